//! Tokens signed with keys of the tests.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};

use super::corpus;

/// A private key.
pub enum Signer {
    /// For RS256.
    Rsa(Box<RsaKeyPair>),
    /// For ES256.
    Ec(EcdsaKeyPair),
}

impl Signer {
    /// Returns the ServiceAccount key of the corpus.
    pub fn corpus() -> Self {
        let pem = std::fs::read(corpus::pki("sa.key")).unwrap();
        let (_, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(&pem).unwrap();
        let key = RsaKeyPair::from_der(&der).or_else(|_| RsaKeyPair::from_pkcs8(&der));
        Self::Rsa(Box::new(key.unwrap()))
    }

    /// Returns a new elliptic-curve key.
    pub fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// Returns the public key as a JSON Web Key of this name.
    pub fn web_key(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                let key = key.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                let (n, e) =
                    (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "kid": id, "use": "sig", "n": text(n), "e": text(e)})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y})
            }
        }
    }

    /// Returns a token in compact form.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Returns the seconds since 1970.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}
