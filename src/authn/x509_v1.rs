//! Client certificates of X.509 version 1 (`--client-ca-allow-x509-v1`).
//!
//! `openssl x509 -req` makes them unless it is told about extensions, and Go, and so
//! kube-apiserver, takes them: without extensions there is no usage that they are not for. webpki
//! refuses them. Only the client's own certificate can be one, signed by an authority of the file
//! itself: without extensions nothing says that it may sign others.

use std::time::Duration;

use rustls_pki_types::{TrustAnchor, UnixTime};
use webpki::{RawPublicKeyEntity, spki_for_anchor};
use x509_parser::asn1_rs::{Any, BitString};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};

use super::x509::RevocationList;

/// Whether the certificate is of version 1.
pub fn is_v1(der: &[u8]) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, certificate)| certificate.version() == X509Version::V1)
}

/// Verifies a certificate of version 1 at `now` against authorities that may sign others.
///
/// # Errors
/// As webpki says it.
pub fn verify(
    der: &[u8],
    authorities: &[TrustAnchor<'static>],
    crls: &[RevocationList],
    now: UnixTime,
) -> Result<(), webpki::Error> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| webpki::Error::BadDer)?;
    let tbs = &certificate.tbs_certificate;
    if !rest.is_empty()
        || tbs.signature != certificate.signature_algorithm
        || !certificate.extensions().is_empty()
        || tbs.issuer_uid.is_some()
        || tbs.subject_uid.is_some()
    {
        return Err(webpki::Error::BadDer);
    }
    let unix = |time: ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    };
    let (not_before, not_after) =
        (unix(certificate.validity().not_before), unix(certificate.validity().not_after));
    if now < not_before {
        return Err(webpki::Error::CertNotValidYet { time: now, not_before });
    }
    if now > not_after {
        return Err(webpki::Error::CertExpired { time: now, not_after });
    }
    let issuer = contents(certificate.issuer().as_raw()).ok_or(webpki::Error::BadDer)?;
    let signer = authorities
        .iter()
        // Whether the subject is within constraints, nobody has looked.
        .filter(|authority| authority.name_constraints.is_none())
        .filter(|authority| *authority.subject == *issuer)
        .find(|authority| is_signed_by(der, authority))
        .ok_or(webpki::Error::UnknownIssuer)?;
    for crl in crls.iter().filter(|crl| crl.list.issuer() == issuer) {
        if !is_signed_by(&crl.der, signer) {
            return Err(webpki::Error::InvalidCrlSignatureForPublicKey);
        }
        if crl.list.find_serial(certificate.raw_serial())?.is_some() {
            return Err(webpki::Error::CertRevoked);
        }
    }
    Ok(())
}

/// Whether a certificate or revocation list, which have the same frame (RFC 5280, 4.1.1 and 5.1.1),
/// is signed by `authority`.
fn is_signed_by(der: &[u8], authority: &TrustAnchor<'_>) -> bool {
    let Some((signed, algorithm, signature)) = frame(der) else { return false };
    let key = spki_for_anchor(authority);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return false };
    webpki::ALL_VERIFICATION_ALGS
        .iter()
        .filter(|known| known.signature_alg_id().as_ref() == algorithm)
        .any(|known| key.verify_signature(*known, signed, &signature).is_ok())
}

/// What is signed, how, and the signature.
fn frame(der: &[u8]) -> Option<(&[u8], &[u8], Vec<u8>)> {
    let inner = contents(der)?;
    let (rest, _) = Any::from_der(inner).ok()?;
    let signed = &inner[..inner.len() - rest.len()];
    let (rest, algorithm) = Any::from_der(rest).ok()?;
    let (_, signature) = BitString::from_der(rest).ok()?;
    (signature.unused_bits == 0).then(|| (signed, algorithm.data, signature.data.into_owned()))
}

/// What is in a SEQUENCE.
fn contents(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(_, outer)| outer.data)
}
