//! Certificates of X.509 version 1, which none of the libraries here can create.

use rcgen::SigningKey;
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, FromDer};

/// Returns a certificate of version 1 with the contents of `certificate`, signed by `key`: without
/// extensions, and thus without key usage.
///
/// # Panics
/// If `certificate` is malformed.
pub fn as_v1(certificate: &CertificateDer<'_>, key: &rcgen::KeyPair) -> CertificateDer<'static> {
    let (_, outer) = Any::from_der(certificate).unwrap();
    let (_, tbs) = Any::from_der(outer.data).unwrap();
    let after_tbs = {
        let (rest, _) = Any::from_der(outer.data).unwrap();
        rest
    };
    let algorithm = first(after_tbs).0;
    // Version first, then serial number, algorithm, issuer, validity, subject and key, then the
    // extensions.
    let (_, mut rest) = first(tbs.data);
    let mut kept = Vec::new();
    for _ in 0..6 {
        let (part, next) = first(rest);
        kept.extend_from_slice(part);
        rest = next;
    }
    let tbs = wrapped(0x30, &kept);
    let signature = key.sign(&tbs).unwrap();
    let signature = wrapped(0x03, &[&[0][..], &signature].concat());
    wrapped(0x30, &[&tbs, algorithm, &signature].concat()).into()
}

/// Returns the first element, including its header, and the rest.
fn first(der: &[u8]) -> (&[u8], &[u8]) {
    let (rest, _) = Any::from_der(der).unwrap();
    der.split_at(der.len() - rest.len())
}

fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    der.extend_from_slice(content);
    der
}
