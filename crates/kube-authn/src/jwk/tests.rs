use base64::engine::general_purpose::{STANDARD as PADDED, URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;
use crate::jwt::Algorithm;
use crate::jwt::tests::Signer;

fn number(bytes: usize) -> String {
    URL_SAFE_NO_PAD.encode(vec![0xff; bytes])
}

fn rsa() -> Value {
    json!({"kty": "RSA", "kid": "a", "use": "sig", "n": number(256), "e": "AQAB"})
}

fn ec() -> Value {
    let PublicKey::Ec(point) = Signer::ec(Algorithm::ES256).public() else { unreachable!() };
    let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
    json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
}

fn changed(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

/// Returns the IDs of the usable keys.
fn set(text: &str) -> Result<Vec<String>, String> {
    let keys = parse_set(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(keys.into_iter().map(|key| key.id).collect())
}

fn set_of(key: &Value) -> Result<Vec<String>, String> {
    set(&json!({"keys": [rsa(), key]}).to_string())
}

#[test]
fn keys_that_can_be_used_are_returned() {
    assert_eq!(set_of(&ec()).unwrap(), ["a", ""]);
    // Like in kube-apiserver, the declared use of the key is ignored.
    let for_encryption = changed(changed(rsa(), "use", json!("enc")), "kid", json!("b"));
    assert_eq!(set_of(&for_encryption).unwrap(), ["a", "b"]);
    assert_eq!(set("{\"keys\": []}").unwrap(), [""; 0]);
    assert_eq!(set("{\"KEYS\": null}").unwrap(), [""; 0]);
    assert_eq!(set("{}").unwrap(), [""; 0]);
}

#[test]
fn valid_keys_of_no_use_are_skipped() {
    for key in [
        json!({"kty": "oct", "k": "AAAA"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": number(32)}),
        changed(rsa(), "n", json!(number(128))),
        changed(changed(changed(rsa(), "d", json!("AQ")), "p", json!("AQ")), "q", json!("AQ")),
        changed(ec(), "d", json!(number(32))),
    ] {
        assert_eq!(set_of(&key).unwrap(), ["a"], "{key}");
    }
}

#[test]
fn a_set_with_an_invalid_key_is_invalid() {
    for key in [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({"kty": "rsa"}),
        json!({"KTY": "RSA", "N": number(256), "E": "AQAB"}),
        json!({"kty": "oct"}),
        json!({"kty": "OKP", "crv": "X25519", "x": number(32)}),
        json!({"kty": "OKP", "crv": "Ed25519"}),
        json!({"kty": "RSA", "n": number(256)}),
        changed(rsa(), "n", json!("not base64!")),
        changed(rsa(), "n", json!("+/+/")),
        changed(rsa(), "e", json!("AQAB==")),
        changed(rsa(), "e", json!(65537)),
        changed(rsa(), "kid", json!(5)),
        changed(rsa(), "alg", json!(["RS256"])),
        changed(rsa(), "use", json!(5)),
        changed(rsa(), "d", json!("AQ")),
        changed(rsa(), "x5u", json!("https://a/b")),
        changed(rsa(), "x5c", json!("text")),
        changed(rsa(), "x5c", json!(["AAAA"])),
        changed(rsa(), "x5t", json!("AAAA")),
        changed(rsa(), "x5t#S256", json!("AAAA")),
        changed(ec(), "d", json!("AQ")),
        changed(ec(), "crv", json!("secp256k1")),
        changed(ec(), "crv", json!("P-384")),
        changed(ec(), "x", json!(number(31))),
        changed(ec(), "y", json!(number(32))),
    ] {
        assert!(set_of(&key).is_err(), "{key}");
    }
    for text in [
        "[{\"keys\": []}]",
        "{\"keys\": {}}",
        "{\"keys\": []} x",
        "\u{feff}{\"keys\": []}",
        "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AA\", \"k\": \"AA\"}]}",
        "null",
        "",
    ] {
        assert!(set(text).is_err(), "{text}");
    }
}

#[test]
fn certificates_must_be_of_the_key() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a".into()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
    let CertifiedKey::EC(point) = parsed.public_key().parsed().unwrap() else { unreachable!() };
    let [x, y] = [&point.data()[1..33], &point.data()[33..]].map(|h| URL_SAFE_NO_PAD.encode(h));
    let chain = json!([PADDED.encode(certificate.der())]);
    let thumbprint = digest::digest(&SHA256, certificate.der());
    let thumbprint = URL_SAFE_NO_PAD.encode(thumbprint);
    let key = json!({
        "kty": "EC", "crv": "P-256", "x": x, "y": y, "x5c": chain, "x5t#S256": thumbprint,
    });
    assert_eq!(set_of(&key).unwrap(), ["a", ""]);
    assert!(set_of(&changed(key, "x5t#S256", json!(number(32)))).is_err());
    assert!(set_of(&changed(ec(), "x5c", chain)).is_err());
}
