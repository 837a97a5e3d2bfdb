use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use serde_json::{Value, json};

use super::*;

/// A test key that signs tokens.
pub(crate) enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
}

impl Signer {
    pub(crate) fn rsa() -> Signer {
        Signer::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn ec(algorithm: Algorithm) -> Signer {
        let curve = match algorithm {
            Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Algorithm::ES512 => &ECDSA_P521_SHA512_FIXED_SIGNING,
            _ => panic!("{algorithm:?} is no ECDSA"),
        };
        Signer::Ec(EcdsaKeyPair::generate(curve).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        match self {
            Signer::Rsa(key) => {
                let components = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
                PublicKey::rsa(&components.n, &components.e).unwrap()
            }
            Signer::Ec(key) => PublicKey::ec(key.public_key().as_ref()).unwrap(),
        }
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    /// Returns a token with this header and these claims, which need not be valid.
    pub(crate) fn token_of(&self, header: &str, claims: &str) -> String {
        let [signed, payload] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{signed}.{payload}");
        let header: Value = serde_json::from_str(header).unwrap_or_default();
        let random = SystemRandom::new();
        let signature = match self {
            Signer::Rsa(key) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match header["alg"].as_str() {
                    Some("RS384") => &RSA_PKCS1_SHA384,
                    Some("RS512") => &RSA_PKCS1_SHA512,
                    Some("PS256") => &RSA_PSS_SHA256,
                    Some("PS384") => &RSA_PSS_SHA384,
                    Some("PS512") => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Signer::Ec(key) => key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[test]
fn each_algorithm_verifies_its_own_signatures_only() {
    let (rsa, other) = (Signer::rsa(), Signer::rsa().public());
    let (p256, p384, p521) =
        (Signer::ec(Algorithm::ES256), Signer::ec(Algorithm::ES384), Signer::ec(Algorithm::ES512));
    let cases = [
        ("RS256", &rsa),
        ("RS384", &rsa),
        ("RS512", &rsa),
        ("PS256", &rsa),
        ("PS384", &rsa),
        ("PS512", &rsa),
        ("ES256", &p256),
        ("ES384", &p384),
        ("ES512", &p521),
    ];
    for (algorithm, signer) in cases {
        let token = signer.token(&json!({"alg": algorithm, "kid": "k"}), &json!({"iss": "i"}));
        let jwt = Jwt::parse(token.as_bytes()).unwrap();
        assert_eq!((jwt.key_id.as_str(), jwt.issuer().as_str()), ("k", "i"));
        assert!(jwt.is_signed_by(&signer.public()), "{algorithm}");
        assert!(!jwt.is_signed_by(&other), "{algorithm}");
        for (changed, _) in cases.iter().filter(|(name, _)| *name != algorithm) {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": changed, "kid": "k"}).to_string());
            let (_, rest) = token.split_once('.').unwrap();
            let forged = format!("{header}.{rest}");
            let jwt = Jwt::parse(forged.as_bytes()).unwrap();
            assert!(!jwt.is_signed_by(&signer.public()), "{algorithm} as {changed}");
        }
        let forged = token.replacen(&token[token.len() - 6..], "AAAAAA", 1);
        assert!(!Jwt::parse(forged.as_bytes()).unwrap().is_signed_by(&signer.public()));
    }
}

#[test]
fn what_is_no_signed_token_is_none() {
    let header = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (good, claims) = (header(json!({"alg": "RS256"})), header(json!({})));
    assert!(Jwt::parse(format!("{good}.{claims}.AAAA").as_bytes()).is_some());
    let bad = [
        String::new(),
        "..".to_owned(),
        "token".to_owned(),
        format!("{good}.{claims}"),
        format!("{good}.{claims}.AAAA.AAAA"),
        format!("{good}.{claims}.AAAA="),
        format!("{good}.{claims}.AA AA"),
        format!("{}.{claims}.", header(json!({"alg": "none"}))),
        format!("{}.{claims}.AAAA", header(json!({"alg": "HS256"}))),
        format!("{}.{claims}.AAAA", header(json!({"alg": "rs256"}))),
        format!("{}.{claims}.AAAA", header(json!({"alg": ["RS256"]}))),
        format!("{}.{claims}.AAAA", header(json!({"kid": "k"}))),
        format!("{}.{claims}.AAAA", header(json!({"alg": "RS256", "crit": ["exp"]}))),
        format!("{}.{claims}.AAAA", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"RS256"}"#)),
        json!({"protected": good, "payload": claims, "signature": "AAAA"}).to_string(),
    ];
    for token in bad {
        assert!(Jwt::parse(token.as_bytes()).is_none(), "{token}");
    }
    let no_signature = format!("{good}.{claims}.");
    let jwt = Jwt::parse(no_signature.as_bytes()).unwrap();
    assert!(!jwt.is_signed_by(&Signer::rsa().public()));
}

#[test]
fn weak_and_odd_keys_are_refused() {
    assert!(PublicKey::rsa(&[0xff; 128], &[1, 0, 1]).is_none(), "1024 bits");
    assert!(PublicKey::rsa(&[0xff; 256], &[0]).is_none());
    assert!(PublicKey::rsa(&[&[0][..], &[0xff; 256]].concat(), &[1, 0, 1]).is_some());
    assert!(PublicKey::ec(&[4; 57]).is_none(), "P-224");
    assert!(PublicKey::ec(&[2; 33]).is_none(), "compressed");
}
