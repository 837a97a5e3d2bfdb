use std::time::UNIX_EPOCH;

use serde_json::json;

use super::*;
use crate::authn::jwt::tests::Signer;

const ISSUER: &str = "https://login.example";
const NOW: u64 = 1_700_000_000;

fn settings() -> OidcSettings {
    OidcSettings {
        issuer_url: ISSUER.into(),
        client_id: "kubernetes".into(),
        username_claim: "sub".into(),
        username_prefix: format!("{ISSUER}#"),
        groups_claim: Some("groups".into()),
        groups_prefix: String::new(),
        required_claims: Vec::new(),
        signing_algs: vec![Algorithm::ES256],
        ca_file: None,
    }
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": "kubernetes", "sub": "jane", "exp": NOW + 60});
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

/// What becomes of a token with these changes to its claims; its user, as `name [groups] extra`.
async fn verdict(settings: &OidcSettings, changes: Value) -> Result<String, OidcError> {
    let signer = Signer::ec(Algorithm::ES256);
    let issuer = Issuer::with_keys(&settings.issuer_url, &[("k", signer.public())]);
    let oidc = Oidc { issuer, settings: settings.clone() };
    let token = signer.token(&json!({"alg": "ES256", "kid": "k"}), &claims(changes));
    let jwt = Jwt::parse(token.as_bytes()).unwrap();
    let verified = oidc.verify(&jwt, UNIX_EPOCH + Duration::from_secs(NOW)).await?;
    let Some(Verified { user, .. }) = verified else { return Ok("another's".to_owned()) };
    let extra: Vec<_> = user.extra.values().flatten().cloned().collect();
    Ok(format!("{} {} {}", user.username, user.groups.join(","), extra.join(",")).trim().to_owned())
}

#[tokio::test]
async fn claims_make_users() {
    let plain = settings();
    let email = OidcSettings {
        username_claim: "email".into(),
        username_prefix: String::new(),
        groups_prefix: "oidc:".into(),
        required_claims: vec![("hd".into(), "example.com".into())],
        ..settings()
    };
    let claim = |name: &str, problem| Err(OidcError::Claim(name.into(), problem));
    let not_text = "is neither a string nor a list of strings";
    let jane = "https://login.example#jane";
    let all = "system:authenticated";
    let ok = |text: String| Ok(text);
    let mail = json!({"email": "j@example.com", "hd": "example.com"});
    let with = |changes: Value| {
        let mut claims = mail.clone();
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    };
    let cases = [
        (&plain, json!({}), ok(format!("{jane} {all}"))),
        (&plain, json!({"jti": "7"}), ok(format!("{jane} {all} JTI=7"))),
        (&plain, json!({"groups": "dev"}), ok(format!("{jane} dev,{all}"))),
        (&plain, json!({"groups": ["a", "b"]}), ok(format!("{jane} a,b,{all}"))),
        (&plain, json!({"groups": []}), ok(format!("{jane} {all}"))),
        (&plain, json!({"groups": ["a", "system:masters"]}), ok(format!("{jane} a,{all}"))),
        (&plain, json!({"groups": [1]}), claim("groups", not_text)),
        (&plain, json!({"groups": {"a": 1}}), claim("groups", not_text)),
        (&plain, json!({"sub": 7}), claim("sub", "is no string")),
        (&plain, json!({"email_verified": false}), ok(format!("{jane} {all}"))),
        (&email, mail.clone(), ok(format!("j@example.com {all}"))),
        (&email, with(json!({"email_verified": true})), ok(format!("j@example.com {all}"))),
        (&email, with(json!({"email_verified": false})), claim("email_verified", "is not true")),
        (&email, with(json!({"email_verified": "true"})), claim("email_verified", "is not true")),
        (
            &email,
            with(json!({"groups": "system:x"})),
            ok(format!("j@example.com oidc:system:x,{all}")),
        ),
        (&email, with(json!({"email": ""})), claim("email", "is empty")),
        (
            &email,
            with(json!({"email": "system:admin"})),
            claim("email", "begins with system:, which is Kubernetes' own"),
        ),
        (
            &email,
            with(json!({"hd": "elsewhere"})),
            claim("hd", "is not what --oidc-required-claim says"),
        ),
        (
            &email,
            with(json!({"hd": ["example.com"]})),
            claim("hd", "is not what --oidc-required-claim says"),
        ),
    ];
    for (settings, changes, expected) in cases {
        assert_eq!(verdict(settings, changes.clone()).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn issuer_audience_and_time_are_judged_as_by_kube_apiserver() {
    let settings = settings();
    let good = Ok("https://login.example#jane system:authenticated".to_owned());
    let audience = || Err(OidcError::Audience("kubernetes".into()));
    let cases = [
        (json!({"iss": "https://login.example/"}), Ok("another's".to_owned())),
        (json!({"iss": "https://elsewhere"}), Ok("another's".to_owned())),
        (json!({"aud": ["x", "kubernetes"]}), good.clone()),
        (json!({"aud": "x"}), audience()),
        (json!({"aud": []}), audience()),
        (json!({"aud": null}), audience()),
        (json!({"exp": NOW}), good.clone()),
        (json!({"exp": NOW - 1}), Err(OidcError::Expired)),
        (json!({"exp": null}), Err(OidcError::Expired)),
        (json!({"nbf": NOW + 300}), good.clone()),
        (json!({"nbf": NOW + 301}), Err(OidcError::NotValidYet)),
    ];
    for (changes, expected) in cases {
        assert_eq!(verdict(&settings, changes.clone()).await, expected, "{changes}");
    }
    assert!(is_issuer("https://accounts.google.com", "accounts.google.com"));
}

#[tokio::test]
async fn signatures_are_the_issuers_and_of_the_right_kind() {
    let (ours, other) = (Signer::ec(Algorithm::ES256), Signer::ec(Algorithm::ES256));
    let rsa = Signer::rsa();
    let issuer = Issuer::with_keys(ISSUER, &[("k", ours.public()), ("r", rsa.public())]);
    let oidc = Oidc { issuer, settings: settings() };
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
        let verdict = oidc.verify(&jwt, now).await.map(|verified| verified.is_some());
        assert_eq!(verdict, expected, "{header}");
    }
}
