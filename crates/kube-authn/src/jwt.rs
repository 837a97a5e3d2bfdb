//! JSON Web Tokens in compact form (RFC 7515, 7519), and the keys that verify them.
//!
//! `jsonwebtoken` verifies signatures, except those of ES512, which it lacks. Headers and claims
//! are parsed here, because go-jose, the library of kube-apiserver, is stricter or more lenient
//! than that crate about duplicate members, the types of `kid`, `x5c` and `jwk`, and `crit`.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::jose_json::{AllMembers, Members};
use super::jwk;

/// A decoded token. Nothing in it is trustworthy before [`Jwt::is_signed_by`] returns `true`.
pub struct Jwt<'t> {
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// `kid`, the ID of the key; empty if missing.
    pub key_id: String,
    /// The claims; not necessarily valid JSON.
    pub claims: Vec<u8>,
    signed: &'t [u8],
    /// The signature, in valid base64.
    signature: &'t str,
}

/// Signature algorithms that kube-apiserver accepts. They include neither `none` nor symmetric
/// ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512
    RS512,
    /// RSASSA-PSS with SHA-256
    PS256,
    /// RSASSA-PSS with SHA-384
    PS384,
    /// RSASSA-PSS with SHA-512
    PS512,
    /// ECDSA with P-256 and SHA-256
    ES256,
    /// ECDSA with P-384 and SHA-384
    ES384,
    /// ECDSA with P-521 and SHA-512
    ES512,
}

impl Algorithm {
    /// The algorithms that kube-apiserver accepts by default.
    pub const ALL: [Algorithm; 9] = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::ES512,
    ];

    /// Returns the library's constant; `None` for ES512, which it lacks.
    fn in_library(self) -> Option<jsonwebtoken::Algorithm> {
        Some(match self {
            Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
            Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
            Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
            Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
            Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::ES512 => return None,
        })
    }

    /// Returns the algorithm with this name in tokens and flags.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(
            name,
        ))
        .ok()
    }
}

/// Parses a header like kube-apiserver's library.
///
/// Returns the algorithm and the key ID; `None` if a member has the wrong type, or the token
/// requires something unsupported.
fn parse_header(text: &[u8]) -> Option<(Algorithm, String)> {
    let header = Members::parse(text).ok()?;
    let algorithm = Algorithm::from_name(header.text("alg").ok()?)?;
    let key_id = header.text("kid").ok()?.to_owned();
    header.text("nonce").ok()?;
    jwk::certificates(&header).ok()?;
    if header.get("jwk").is_some_and(|key| !jwk::is_public_key(key)) {
        return None;
    }
    // The only supported extension, and only with its default value (RFC 7797).
    let critical = header.texts("crit").ok()?.unwrap_or_default();
    let is_encoded = header.get("b64").is_none_or(|encoded| *encoded != Value::Bool(false));
    (is_encoded && critical.iter().all(|name| *name == "b64")).then_some((algorithm, key_id))
}

impl<'t> Jwt<'t> {
    /// Parses `token`. Returns `None` if it is not a signed token in compact form, or its algorithm
    /// is not accepted.
    pub fn parse(token: &'t [u8]) -> Option<Jwt<'t>> {
        let last = token.iter().rposition(|byte| *byte == b'.')?;
        let (signed, signature) = (&token[..last], &token[last + 1..]);
        let middle = signed.iter().position(|byte| *byte == b'.')?;
        let (header, claims) = (&signed[..middle], &signed[middle + 1..]);
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).ok();
        let (algorithm, key_id) = parse_header(&decode(header)?)?;
        decode(signature)?;
        let signature = str::from_utf8(signature).ok()?;
        Some(Jwt { algorithm, key_id, claims: decode(claims)?, signed, signature })
    }

    /// Returns the claim `iss`; empty if it is missing.
    pub fn issuer(&self) -> String {
        let claims = serde_json::from_slice::<AllMembers<'_>>(&self.claims);
        let AllMembers(members) = claims.unwrap_or(AllMembers(Vec::new()));
        let issuer = members.iter().rev().find(|(name, _)| name == "iss");
        issuer.and_then(|(_, raw)| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// Returns whether `key` has signed the token.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verify(self.algorithm, self.signed, self.signature)
    }
}

/// A key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA
    Rsa {
        /// The modulus, big-endian, without leading zeros.
        n: Vec<u8>,
        /// The exponent, big-endian, without leading zeros.
        e: Vec<u8>,
    },
    /// A point on P-256, P-384 or P-521, uncompressed: 4, x, y.
    Ec(Vec<u8>),
}

/// The accepted lengths of an RSA modulus in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 2048 / 8..=8192 / 8;

impl PublicKey {
    /// Returns an RSA key of 2048 to 8192 bits; `None` for other lengths.
    pub fn rsa(n: &[u8], e: &[u8]) -> Option<PublicKey> {
        let trimmed = |number: &[u8]| {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number[zeros..].to_vec()
        };
        let (n, e) = (trimmed(n), trimmed(e));
        (RSA_BYTES.contains(&n.len()) && !e.is_empty()).then_some(PublicKey::Rsa { n, e })
    }

    /// Returns an elliptic-curve key from an uncompressed point; `None` for unsupported curves.
    pub fn ec(point: &[u8]) -> Option<PublicKey> {
        (point.first() == Some(&4) && matches!(point.len(), 65 | 97 | 133))
            .then(|| PublicKey::Ec(point.to_vec()))
    }

    /// Verifies a signature, which is in base64.
    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        let key = match self {
            PublicKey::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            PublicKey::Ec(point) => match (algorithm, point.len()) {
                // The length of the point identifies the curve.
                (Algorithm::ES256, 65) | (Algorithm::ES384, 97) => DecodingKey::from_ec_der(point),
                (Algorithm::ES512, 133) => {
                    let key = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
                    let signature = URL_SAFE_NO_PAD.decode(signature);
                    return signature
                        .is_ok_and(|signature| key.verify(message, &signature).is_ok());
                }
                _ => return false,
            },
        };
        // The library rejects keys of another family than the algorithm's.
        algorithm.in_library().is_some_and(|algorithm| {
            jsonwebtoken::crypto::verify(signature, message, &key, algorithm).unwrap_or(false)
        })
    }
}

/// Deserializes a claim that is a string or a list of strings, such as `aud`.
///
/// # Errors
/// Returns an error if it is neither.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<OneOrMany>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    })
}

#[cfg(test)]
pub(crate) mod tests;
