//! Parses JSON Web Keys (RFC 7517) like kube-apiserver's library. One invalid key makes the whole
//! set invalid; valid keys that no accepted algorithm can use are skipped.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use serde_json::value::RawValue;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as CertifiedKey;

use super::jose_json::{AllMembers, Members, WrongType};
use super::jwt::PublicKey;

/// Like in Go, the unused bits of the last character are ignored.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    LENIENT.with_decode_padding_mode(DecodePaddingMode::RequireNone),
);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// A key of a set and its ID.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedWebKey {
    /// `kid`; may be empty.
    pub(super) id: String,
    pub(super) key: PublicKey,
}

/// Why a key or a set of keys is invalid.
#[derive(Debug, thiserror::Error)]
pub enum JwkError {
    /// The text is not valid JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A member has the wrong type.
    #[error(transparent)]
    Type(#[from] WrongType),
    /// A key in the set is invalid; contains the reason.
    #[error("{0}")]
    Key(&'static str),
}

/// Parses a set, and returns the keys that can verify signatures.
///
/// # Errors
/// Returns an error if the set or one of its keys is invalid.
pub(super) fn parse_set(text: &[u8]) -> Result<Vec<NamedWebKey>, JwkError> {
    let AllMembers(members) = serde_json::from_slice(text)?;
    // Unlike in a key, this name is case-insensitive, and the last one wins.
    let mut found = Vec::new();
    for (_, keys) in members.iter().filter(|(name, _)| name.eq_ignore_ascii_case("keys")) {
        let keys: Option<Vec<&RawValue>> = serde_json::from_str(keys.get())?;
        let parsed = keys.iter().flatten().map(|key| {
            let key = parse_key(key.get().as_bytes())?;
            Ok(key.public.map(|public| NamedWebKey { id: key.id, key: public }))
        });
        found = parsed.filter_map(Result::transpose).collect::<Result<_, JwkError>>()?;
    }
    Ok(found)
}

/// A valid key.
pub(super) struct WebKey {
    id: String,
    /// `None` if no accepted algorithm can use it.
    public: Option<PublicKey>,
    pub(super) is_public: bool,
}

/// Parses one key.
///
/// # Errors
/// Returns an error if the key is invalid.
pub(super) fn parse_key(text: &[u8]) -> Result<WebKey, JwkError> {
    let members = Members::parse(text)?;
    for name in ["use", "alg"] {
        members.text(name)?;
    }
    let numbers = ["k", "x", "y", "n", "e", "d", "p", "q", "dp", "dq", "qi"]
        .into_iter()
        .map(|name| Ok((name, number(&members, name)?)))
        .collect::<Result<Vec<_>, JwkError>>()?;
    let number = |wanted: &str| {
        numbers.iter().find(|(name, _)| *name == wanted).and_then(|(_, number)| number.as_deref())
    };
    let is_private = number("d").is_some();
    let all = |names: &[&str]| names.iter().all(|name| number(name).is_some());
    let missing = JwkError::Key("a key lacks a number that its kind has");
    let public = match (members.text("kty")?, members.text("crv")?) {
        ("EC", curve) => {
            let point = point(curve, number("x"), number("y"))?;
            // The private key must be as long as a coordinate.
            if number("d").is_some_and(|d| d.len() != point.len() / 2) {
                return Err(JwkError::Key("d of an EC key has the wrong length"));
            }
            Some(PublicKey::Ec(point))
        }
        ("RSA", _) if is_private && !all(&["p", "q"]) => return Err(missing),
        ("RSA", _) => match (number("n"), number("e")) {
            // Keys that are too short or too long are valid, but not used.
            (Some(n), Some(e)) => PublicKey::rsa(n, e),
            _ => return Err(missing),
        },
        ("oct", _) if number("k").is_some() => None,
        ("OKP", "Ed25519") if number("x").is_some() => None,
        ("oct" | "OKP", _) => return Err(missing),
        _ => return Err(JwkError::Key("a key is of an unknown type")),
    };
    check_certificates(&members, public.as_ref())?;
    let is_public = !is_private && members.text("kty")? != "oct";
    let id = members.text("kid")?.to_owned();
    Ok(WebKey { id, public: public.filter(|_| !is_private), is_public })
}

fn number(members: &Members, name: &'static str) -> Result<Option<Vec<u8>>, JwkError> {
    if members.get(name).is_none() {
        return Ok(None);
    }
    decode(&URL_SAFE, members.text(name)?).map(Some)
}

fn decode(engine: &GeneralPurpose, text: &str) -> Result<Vec<u8>, JwkError> {
    // Go ignores line breaks.
    let text = text.replace(['\r', '\n'], "");
    engine.decode(text).map_err(|_| JwkError::Key("a key has a member that is not base64"))
}

/// Returns the point of an elliptic-curve key in uncompressed form.
fn point(curve: &str, x: Option<&[u8]>, y: Option<&[u8]>) -> Result<Vec<u8>, JwkError> {
    let (Some(x), Some(y)) = (x, y) else { return Err(JwkError::Key("an EC key lacks x or y")) };
    let (length, algorithm) = match curve {
        "P-256" => (32, &ECDSA_P256_SHA256_FIXED),
        "P-384" => (48, &ECDSA_P384_SHA384_FIXED),
        "P-521" => (66, &ECDSA_P521_SHA512_FIXED),
        _ => return Err(JwkError::Key("a key is on an unknown curve")),
    };
    if x.len() != length || y.len() != length {
        return Err(JwkError::Key("x or y of an EC key has the wrong length"));
    }
    let point = [&[4][..], x, y].concat();
    match ParsedPublicKey::new(algorithm, &point) {
        Ok(_) => Ok(point),
        Err(_) => Err(JwkError::Key("x and y of an EC key are not on its curve")),
    }
}

/// Checks `x5c`, `x5t`, `x5t#S256` and `x5u`.
fn check_certificates(members: &Members, public: Option<&PublicKey>) -> Result<(), JwkError> {
    // kube-apiserver's library decodes it as an object.
    if members.get("x5u").is_some_and(|url| !url.is_object()) {
        return Err(JwkError::Key("a key has an x5u, which is not supported"));
    }
    let chain = certificates(members)?;
    let leaf = chain.first();
    if let Some(leaf) = leaf {
        let matches = match (certified_key(leaf), public) {
            (Some(certified), Some(public)) => certified == *public,
            // Such a key cannot verify anything.
            (_, None) => members.text("kty")? != "oct",
            (None, Some(_)) => false,
        };
        if !matches {
            return Err(JwkError::Key("a key and its certificate do not match"));
        }
    }
    for (name, algorithm) in [("x5t", &SHA1_FOR_LEGACY_USE_ONLY), ("x5t#S256", &SHA256)] {
        let mut thumbprint = decode(&URL_SAFE, members.text(name)?)?;
        let length = algorithm.output_len();
        if thumbprint.len() == 2 * length {
            thumbprint = from_hex(&thumbprint).ok_or(JwkError::Key("a thumbprint is not hex"))?;
        }
        if !thumbprint.is_empty() && thumbprint.len() != length {
            return Err(JwkError::Key("a thumbprint has the wrong length"));
        }
        if let Some(leaf) = leaf
            && !thumbprint.is_empty()
            && digest::digest(algorithm, leaf).as_ref() != thumbprint
        {
            return Err(JwkError::Key("a certificate and its thumbprint do not match"));
        }
    }
    Ok(())
}

/// Returns the certificates in `x5c`.
///
/// # Errors
/// Returns an error if one of them cannot be parsed.
pub(super) fn certificates(members: &Members) -> Result<Vec<Vec<u8>>, JwkError> {
    let encoded = members.texts("x5c")?.unwrap_or_default();
    let decoded = encoded.into_iter().map(|text| {
        let certificate = decode(&STANDARD, text)?;
        match X509Certificate::from_der(&certificate) {
            Ok(([], _)) => Ok(certificate),
            _ => Err(JwkError::Key("x5c has a certificate that cannot be parsed")),
        }
    });
    decoded.collect()
}

fn certified_key(certificate: &[u8]) -> Option<PublicKey> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    match certificate.public_key().parsed().ok()? {
        CertifiedKey::RSA(key) => PublicKey::rsa(key.modulus, key.exponent),
        CertifiedKey::EC(point) => PublicKey::ec(point.data()),
        _ => None,
    }
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Returns whether a member `jwk` of a JWS header is a public key, or null.
pub(super) fn is_public_key(value: &Value) -> bool {
    parse_key(value.to_string().as_bytes()).is_ok_and(|key| key.is_public)
}

#[cfg(test)]
mod tests;
