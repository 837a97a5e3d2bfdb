//! Ed25519 keys: the private key signs seals, public keys verify them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};

/// The bytes before the 32 bytes of a public Ed25519 key in its DER (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key cannot be used. Contains nothing of the content of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{}: cannot read the key file: {source}; `kube-audit-proxy log keygen` creates one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file contains no private key.
    #[error(
        "{}: the file contains no Ed25519 private key in PKCS#8 PEM; create one with \
         `kube-audit-proxy log keygen FILE` or `openssl genpkey -algorithm ed25519 -out FILE`",
        .0.display()
    )]
    NotPrivate(PathBuf),
    /// The private key in the file is encrypted.
    #[error(
        "{}: the private key is encrypted, and no passphrase can be given here; decrypt it with \
         `openssl pkey -in KEY -out NEW_KEY`, and let only the proxy's user read the new file",
        .0.display()
    )]
    Encrypted(PathBuf),
    /// The file contains no public key.
    #[error(
        "{}: the file contains no Ed25519 public key in PEM; `openssl pkey -in PRIVATE -pubout` prints that of a private key",
        .0.display()
    )]
    NotPublic(PathBuf),
    /// The key could not be generated.
    #[error("the random number generator of the system failed")]
    Generate,
}

/// A public key. Its text form is the key in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Returns all public keys of a PEM file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or contains no public key.
    pub fn load(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
        let text = read(path)?;
        let blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(&text).flatten();
        let keys: Vec<_> = blocks
            .filter(|(kind, _)| *kind == SectionKind::PublicKey)
            .filter_map(|(_, der)| Some(PublicKey(der.strip_prefix(&SPKI)?.try_into().ok()?)))
            .collect();
        if keys.is_empty() { Err(KeyError::NotPublic(path.to_owned())) } else { Ok(keys) }
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Option<PublicKey> {
        Some(PublicKey(STANDARD.decode(text).ok()?.try_into().ok()?))
    }

    /// Returns the key as SubjectPublicKeyInfo in PEM, like openssl writes it.
    pub fn to_pem(self) -> String {
        pem("PUBLIC KEY", &[&SPKI[..], &self.0].concat())
    }

    /// Returns whether `signature` is a signature of `message` by this key.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// A private key.
pub struct SealKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SealKey {
    /// Loads the private key from a PEM file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or contains no private key.
    pub fn load(path: &Path) -> Result<SealKey, KeyError> {
        let text = read(path)?;
        if is_encrypted(&text) {
            return Err(KeyError::Encrypted(path.to_owned()));
        }
        let mut blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(&text).flatten();
        blocks
            .find(|(kind, _)| *kind == SectionKind::PrivateKey)
            .and_then(|(_, der)| Ed25519KeyPair::from_pkcs8(&der).ok())
            .and_then(SealKey::new)
            .ok_or_else(|| KeyError::NotPrivate(path.to_owned()))
    }

    /// Generates a key.
    ///
    /// # Errors
    /// Returns an error if the system's random number generator fails.
    pub fn generate() -> Result<SealKey, KeyError> {
        Ed25519KeyPair::generate().ok().and_then(SealKey::new).ok_or(KeyError::Generate)
    }

    /// Returns the key as PKCS#8 in PEM, like openssl reads it.
    ///
    /// # Errors
    /// Does not fail in practice, because the key is valid.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError::Generate)?;
        Ok(pem("PRIVATE KEY", der.as_ref()))
    }

    /// Returns the public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Returns a signature of 64 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    fn new(pair: Ed25519KeyPair) -> Option<SealKey> {
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(SealKey { pair, public })
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("public", &self.public).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    watched_files::regular_file::read(path)
        .map_err(|source| KeyError::Read { path: path.to_owned(), source })
}

fn pem(label: &str, der: &[u8]) -> String {
    // Both kinds of keys fit into one line of 64 characters.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// Returns whether a PEM text contains an encrypted private key, in PKCS#8 or in OpenSSL's older
/// format.
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |needle: &[u8]| memchr::memmem::find(pem, needle).is_some();
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::TestFolder;

    /// Generated with `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIKbaU/lV3Qg18GDhpCzFdFMZBtFFvq+oNK57A3r6b7hd\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn a_key_is_what_was_written() {
        let dir = TestFolder::new();
        let key = SealKey::generate().unwrap();
        let private = dir.write("key", &key.to_pem().unwrap());
        let public = dir.write("pub", &key.public().to_pem());
        assert_eq!(SealKey::load(&private).unwrap().public(), key.public());
        assert_eq!(PublicKey::load(&public).unwrap(), [key.public()]);
        assert_eq!(PublicKey::parse(&key.public().to_string()), Some(key.public()));
        assert!(key.public().verifies(b"x", &key.sign(b"x")));
        assert!(!key.public().verifies(b"y", &key.sign(b"x")));
    }

    #[test]
    fn openssls_keys_are_read() {
        let dir = TestFolder::new();
        SealKey::load(&dir.write("key", PRIVATE)).unwrap();
    }

    #[test]
    fn errors_name_the_file_and_the_remedy_and_no_content() {
        let dir = TestFolder::new();
        let rsa = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/pki/sa.key");
        for path in [rsa, dir.write("empty", ""), dir.write("text", "secret")] {
            let private = SealKey::load(&path).unwrap_err().to_string();
            assert!(
                private.contains("openssl genpkey") && !private.contains("secret"),
                "{private}"
            );
            let public = PublicKey::load(&path).unwrap_err().to_string();
            assert!(public.contains(&path.display().to_string()), "{public}");
        }
        let missing = SealKey::load(&dir.path().join("missing")).unwrap_err().to_string();
        assert!(missing.contains("cannot read"), "{missing}");
    }
}
