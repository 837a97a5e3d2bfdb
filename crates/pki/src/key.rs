//! Private keys in PEM, and whether they belong to a certificate.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::signature::is_key_of;

/// A private key cannot be used with a certificate. No message shows anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key is encrypted.
    #[error(
        "the private key is encrypted, and no passphrase can be given here; decrypt it with \
         `openssl pkey -in KEY -out NEW_KEY`, and let only the proxy's user read the new file"
    )]
    Encrypted,
    /// There is no private key.
    #[error("has no private key in PEM ({0}); it takes PKCS#8, PKCS#1 or SEC1")]
    Missing(pem::Error),
    /// The kind of key cannot sign.
    #[error("the private key cannot be used: {0}")]
    Unusable(rustls::Error),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the first certificate of the chain")]
    Mismatch,
    /// The certificate cannot be read.
    #[error("the first certificate of the chain is not X.509")]
    Certificate,
}

/// Returns whether a PEM text has an encrypted private key, in PKCS#8 or in OpenSSL's older form.
pub fn is_encrypted_key(pem: &[u8]) -> bool {
    let has = |needle: &[u8]| memchr::memmem::find(pem, needle).is_some();
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// Pairs a chain (its own certificate first) with the private key in a PEM text. Reads all
/// certificates that [`super::Certificate`] does, which are more than rustls reads.
///
/// # Errors
/// See [`KeyError`].
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, KeyError> {
    let key = match PrivateKeyDer::from_pem_slice(key) {
        _ if is_encrypted_key(key) => return Err(KeyError::Encrypted),
        Ok(key) => key,
        Err(error) => return Err(KeyError::Missing(without_content(error))),
    };
    let key = provider.key_provider.load_private_key(key).map_err(KeyError::Unusable)?;
    let leaf = chain.first().ok_or(KeyError::Certificate)?;
    match is_key_of(leaf, key.public_key().as_ref()) {
        Ok(Some(false)) => Err(KeyError::Mismatch),
        // Keys that cannot be compared fail in the first handshake.
        Ok(Some(true) | None) => Ok(CertifiedKey::new(chain, Arc::clone(&key))),
        Err(_) => Err(KeyError::Certificate),
    }
}

/// Removes quoted lines from an error of the PEM reader, because the file contains a key.
fn without_content(error: pem::Error) -> pem::Error {
    match error {
        pem::Error::IllegalSectionStart { .. } => {
            pem::Error::IllegalSectionStart { line: b"-----".to_vec() }
        }
        pem::Error::Base64Decode(_) => pem::Error::Base64Decode("not base64".into()),
        other => other,
    }
}
