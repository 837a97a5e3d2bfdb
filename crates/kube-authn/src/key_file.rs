//! The keys of `--service-account-key-file`, which verify ServiceAccount tokens.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::jwt::PublicKey;
use pki::is_encrypted_key;

/// A key and its key ID in kube-apiserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedKey {
    /// The SHA-256 of the public key's DER, in base64url.
    pub id: String,
    /// The key.
    pub key: PublicKey,
}

/// Why a key file cannot be used. Contains nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("{path}: cannot read the key file: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The file is not PEM.
    #[error("{path}: the key file is not PEM; its blocks begin like -----BEGIN PUBLIC KEY-----", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// The file only contains encrypted keys.
    #[error("{path}: the private key is encrypted, and no passphrase can be given here; give the public key instead: `openssl pkey -in KEY -pubout`", path = path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The file contains no usable key.
    #[error("{path}: no key in the key file can be used; it takes RSA keys of 2048 to 8192 bits and ECDSA keys on P-256, P-384 or P-521, as PUBLIC KEY, CERTIFICATE, PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Loads all keys of a PEM file: public keys, those of certificates, and those of private keys.
/// Blocks of other kinds are skipped.
///
/// # Errors
/// See [`KeyFileError`].
pub(crate) fn load(path: &Path) -> Result<Vec<NamedKey>, KeyFileError> {
    let text = watched_files::regular_file::read(path)
        .map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
    let mut keys = Vec::new();
    for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(&text) {
        let (kind, der) = block.map_err(|_| match is_encrypted_key(&text) {
            true => KeyFileError::Encrypted { path: path.to_owned() },
            false => KeyFileError::Pem { path: path.to_owned() },
        })?;
        keys.extend(public_der(kind, der).and_then(|der| named(&der)));
    }
    if keys.is_empty() && is_encrypted_key(&text) {
        return Err(KeyFileError::Encrypted { path: path.to_owned() });
    }
    if keys.is_empty() {
        return Err(KeyFileError::Empty { path: path.to_owned() });
    }
    Ok(keys)
}

/// Returns the public key of a block as DER (SubjectPublicKeyInfo).
fn public_der(kind: SectionKind, der: Vec<u8>) -> Option<Vec<u8>> {
    let rsa = |pair: RsaKeyPair| -> Option<Vec<u8>> {
        let key: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        Some(key.as_ref().to_vec())
    };
    let ec = |der: &[u8]| -> Option<Vec<u8>> {
        let curves = [
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &ECDSA_P384_SHA384_FIXED_SIGNING,
            &ECDSA_P521_SHA512_FIXED_SIGNING,
        ];
        let pair = curves
            .into_iter()
            .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())?;
        let key: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        Some(key.as_ref().to_vec())
    };
    match kind {
        SectionKind::PublicKey => Some(der),
        SectionKind::Certificate => {
            let (_, certificate) = X509Certificate::from_der(&der).ok()?;
            Some(certificate.public_key().raw.to_vec())
        }
        SectionKind::RsaPrivateKey => rsa(RsaKeyPair::from_der(&der).ok()?),
        SectionKind::EcPrivateKey => ec(&der),
        SectionKind::PrivateKey => {
            RsaKeyPair::from_pkcs8(&der).ok().and_then(rsa).or_else(|| ec(&der))
        }
        _ => None,
    }
}

fn named(der: &[u8]) -> Option<NamedKey> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let key = match info.parsed().ok()? {
        Parsed::RSA(key) => PublicKey::rsa(key.modulus, key.exponent)?,
        Parsed::EC(point) => PublicKey::ec(point.data())?,
        _ => return None,
    };
    Some(NamedKey { id: URL_SAFE_NO_PAD.encode(digest(&SHA256, der)), key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TempDir;

    #[test]
    fn every_kind_of_block_gives_the_same_key() {
        let dir = TempDir::new();
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
            let public = load(&dir.write("public", &key.public_key_pem())).unwrap();
            assert_eq!(public.len(), 1);
            for text in [key.serialize_pem(), certificate] {
                assert_eq!(load(&dir.write("other", &text)).unwrap(), public);
            }
        }
    }

    #[test]
    fn key_ids_are_kube_apiservers() {
        let pki = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/pki");
        let public = load(&pki.join("sa.pub")).unwrap();
        assert_eq!(public[0].id, "nBtYFipmGr5rfl3Ms1gc0uTySM8blWfjVZZQ4KLEIpQ");
        assert_eq!(load(&pki.join("sa.key")).unwrap(), public);
    }

    #[test]
    fn several_keys_stand_in_one_file() {
        let dir = TempDir::new();
        let key = || rcgen::KeyPair::generate().unwrap().public_key_pem();
        let text = format!("comment\n{}{}", key(), key());
        assert_eq!(load(&dir.write("keys", &text)).unwrap().len(), 2);
    }

    #[test]
    fn errors_name_the_file_and_not_its_content() {
        let dir = TempDir::new();
        let of = |text: &str| load(&dir.write("keys", text)).unwrap_err().to_string();
        assert!(of("").contains("keys: no key in the key file can be used; it takes RSA"));
        assert!(
            of("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").contains("no key")
        );
        assert!(of("-----BEGIN PUBLIC KEY-----\n!secret!\n").contains("is not PEM"));
        for encrypted in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0\n\n\
             AAAA\n-----END RSA PRIVATE KEY-----\n",
        ] {
            assert!(of(encrypted).contains("keys: the private key is encrypted"), "{encrypted}");
        }
        assert!(load(&dir.path().join("absent")).unwrap_err().to_string().contains("cannot read"));
    }
}
