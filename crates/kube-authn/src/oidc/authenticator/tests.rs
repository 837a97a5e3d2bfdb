use std::time::UNIX_EPOCH;

use serde_json::json;

use super::*;
use crate::jwt::tests::Signer;
use crate::oidc::{CaSource, IssuerSettings};

const ISSUER: &str = "https://login.example";
const NOW: u64 = 1_700_000_000;

fn settings(url: &str) -> JwtSettings {
    JwtSettings {
        issuer: IssuerSettings { url: url.into(), discovery_url: None, ca: CaSource::System },
        audiences: vec!["kubernetes".into(), "other".into()],
        algorithms: vec![Algorithm::ES256],
        claim_rules: Vec::new(),
        username: NameMapping::Claim { claim: "sub".into(), prefix: "o:".into() },
        groups: None,
        uid: None,
        extra: Vec::new(),
        user_rules: Vec::new(),
    }
}

fn authenticator(issuer: Arc<Issuer>) -> JwtAuthenticator {
    let settings = settings(issuer.url());
    JwtAuthenticator::new(settings, Some(issuer), Arc::default()).unwrap()
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": "kubernetes", "sub": "jane", "exp": NOW + 60});
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

/// Returns the user of a token whose claims have these changes.
async fn verdict(changes: Value) -> Result<String, OidcError> {
    let signer = Signer::ec(Algorithm::ES256);
    let authenticator = authenticator(Issuer::with_keys(ISSUER, &[("k", signer.public())]));
    let token = signer.token(&json!({"alg": "ES256", "kid": "k"}), &claims(changes));
    let jwt = Jwt::parse(token.as_bytes()).unwrap();
    if !authenticator.is_of(&jwt.issuer()) {
        return Ok("another's".to_owned());
    }
    let verified = authenticator.verify(&jwt, UNIX_EPOCH + Duration::from_secs(NOW)).await?;
    Ok(verified.user.username)
}

#[tokio::test]
async fn issuer_audience_and_time_are_validated_like_by_kube_apiserver() {
    let good = Ok("o:jane".to_owned());
    let audience = || Err(OidcError::Audience(vec!["kubernetes".into(), "other".into()]));
    let cases = [
        (json!({"iss": "https://login.example/"}), Ok("another's".to_owned())),
        (json!({"iss": "https://elsewhere"}), Ok("another's".to_owned())),
        (json!({"aud": ["x", "kubernetes"]}), good.clone()),
        (json!({"aud": "other"}), good.clone()),
        (json!({"aud": "x"}), audience()),
        (json!({"aud": []}), audience()),
        (json!({"aud": null}), audience()),
        (json!({"exp": NOW}), good.clone()),
        (json!({"exp": NOW - 1}), Err(OidcError::Expired)),
        (json!({"exp": null}), Err(OidcError::Claims("a time is no number".into()))),
        (json!({"exp": NOW.to_string()}), good.clone()),
        (json!({"iat": null}), Err(OidcError::Claims("a time is no number".into()))),
        (json!({"nbf": null}), good.clone()),
        (json!({"nbf": NOW + 60}), good.clone()),
        (json!({"nbf": NOW + 61}), Err(OidcError::NotValidYet)),
        (json!({"aud": [null, "kubernetes"]}), good.clone()),
    ];
    for (changes, expected) in cases {
        assert_eq!(verdict(changes.clone()).await, expected, "{changes}");
    }
    let google = authenticator(Issuer::with_keys("https://accounts.google.com", &[]));
    assert!(google.is_of("accounts.google.com") && !google.is_of("google.com"));
}

#[tokio::test]
async fn signatures_are_the_issuers_and_of_the_right_kind() {
    let (ours, other) = (Signer::ec(Algorithm::ES256), Signer::ec(Algorithm::ES256));
    let rsa = Signer::rsa();
    let issuer = Issuer::with_keys(ISSUER, &[("k", ours.public()), ("r", rsa.public())]);
    let authenticator = authenticator(issuer);
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let algorithm = Err(OidcError::Algorithm(Algorithm::RS256));
    let cases = [
        (&ours, json!({"alg": "ES256", "kid": "k"}), Ok(true)),
        (&ours, json!({"alg": "ES256"}), Ok(true)),
        (&ours, json!({"alg": "ES256", "kid": "r"}), Err(OidcError::Signature)),
        (&ours, json!({"alg": "ES256", "kid": "unknown"}), Err(OidcError::Signature)),
        (&other, json!({"alg": "ES256", "kid": "k"}), Err(OidcError::Signature)),
        (&other, json!({"alg": "ES256"}), Err(OidcError::Signature)),
        (&rsa, json!({"alg": "RS256", "kid": "r"}), algorithm),
    ];
    for (signer, header, expected) in cases {
        let token = signer.token(&header, &claims(json!({})));
        let jwt = Jwt::parse(token.as_bytes()).unwrap();
        let verdict = authenticator.verify(&jwt, now).await.map(|_| true);
        assert_eq!(verdict, expected, "{header}");
    }
}
