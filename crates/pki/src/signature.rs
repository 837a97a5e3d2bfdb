//! Signatures: on certificates and revocation lists, and in TLS handshakes.
//!
//! webpki checks them. It is only given keys, since it does not read all certificates that Go does.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;

use super::certificate::Certificate;

/// Whether a signature is that of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Valid,
    Invalid,
    /// The algorithm is unknown, weak, or not for such a key.
    Unsupported,
}

/// Verifies `signature` of `signed` by the key of `signer`. `algorithm` is the content of its
/// `AlgorithmIdentifier`.
pub(super) fn verify(
    signer: &Certificate<'_>,
    algorithm: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Verdict {
    let key = SubjectPublicKeyInfoDer::from(signer.public_key);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return Verdict::Unsupported };
    let mut verdict = Verdict::Unsupported;
    let all = webpki::ALL_VERIFICATION_ALGS.iter();
    // An ECDSA algorithm names the hash but not the curve, so several may fit.
    for known in all.filter(|known| known.signature_alg_id().as_ref() == algorithm) {
        match key.verify_signature(*known, signed, signature) {
            Ok(()) => return Verdict::Valid,
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(_) => verdict = Verdict::Invalid,
        }
    }
    verdict
}

/// Returns the public key of a certificate of any version.
fn public_key(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    match Certificate::parse(certificate) {
        Ok(parsed) => Ok(SubjectPublicKeyInfoDer::from(parsed.public_key).into_owned()),
        Err(_) => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
    }
}

/// Returns whether `certificate` is for the private key of `public`; `None` where that cannot be
/// compared.
pub(super) fn is_key_of(
    certificate: &CertificateDer<'_>,
    public: Option<&SubjectPublicKeyInfoDer<'_>>,
) -> Result<Option<bool>, Error> {
    let key = public_key(certificate)?;
    Ok(public.map(|public| public.as_ref() == key.as_ref()))
}

/// Verifies the signature of a TLS 1.2 handshake by the key of `certificate`, of any version.
///
/// # Errors
/// The certificate cannot be read, or the signature is invalid.
pub fn verify_tls12(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = public_key(certificate)?;
    let key = RawPublicKeyEntity::try_from(&key)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let (_, algorithms) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signed.scheme)
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    // In TLS 1.2 an ECDSA scheme names the hash and not the curve, so each may fit.
    for algorithm in *algorithms {
        match key.verify_signature(*algorithm, message, signed.signature()) {
            Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(_) => break,
        }
    }
    Err(Error::InvalidCertificate(CertificateError::BadSignature))
}

/// Verifies the signature of a TLS 1.3 handshake by the key of `certificate`, of any version.
///
/// # Errors
/// The certificate cannot be read, or the signature is invalid.
pub fn verify_tls13(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = public_key(certificate)?;
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}
