use futures_util::FutureExt;
use serde_json::{Value, json};

use super::*;
use crate::jwt::Algorithm;
use crate::jwt::tests::Signer;
use test_support::TempDir;

const ISSUER: &str = "https://kubernetes.default.svc";
/// The current time in these tests.
const NOW: u64 = 1_700_001_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn accounts(signers: &[&Signer], audiences: &[&str]) -> ServiceAccounts {
    let named = |signer: &&Signer| NamedKey { id: "our-key".into(), key: signer.public() };
    ServiceAccounts {
        files: Vec::new(),
        keys: ArcSwap::from_pointee(signers.iter().map(named).collect()),
        upstream: None,
        issuers: vec!["https://old.example".into(), ISSUER.into()],
        audiences: audiences.iter().map(ToString::to_string).collect(),
    }
}

/// Returns the claims of a usual token with `changes`; null removes a claim.
fn bound(changes: Value) -> Value {
    let mut claims = json!({
        "aud": [ISSUER], "iss": ISSUER, "sub": "system:serviceaccount:prod:app", "jti": "0f",
        "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_003_600,
        "kubernetes.io": {
            "namespace": "prod", "serviceaccount": {"name": "app", "uid": "5e1"},
            "pod": {"name": "app-0", "uid": "9a"}, "node": {"name": "n1", "uid": "77"},
            "warnafter": 1_700_003_607,
        },
    });
    change(&mut claims, changes);
    claims
}

fn legacy(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:prod:app",
        "kubernetes.io/serviceaccount/namespace": "prod",
        "kubernetes.io/serviceaccount/secret.name": "app-token",
        "kubernetes.io/serviceaccount/service-account.name": "app",
        "kubernetes.io/serviceaccount/service-account.uid": "5e1",
    });
    change(&mut claims, changes);
    claims
}

fn change(claims: &mut Value, changes: Value) {
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => {
                claims.as_object_mut().unwrap().remove(key);
            }
            value => claims[key] = value.clone(),
        }
    }
}

fn verify(
    accounts: &ServiceAccounts,
    token: &str,
    now: SystemTime,
) -> Result<Option<Verified>, ServiceAccountError> {
    let token = Jwt::parse(token.as_bytes()).unwrap();
    accounts.verify(&token, now).now_or_never().expect("keys of files are not waited for")
}

#[test]
fn a_bound_token_names_account_pod_and_node() {
    let signer = Signer::ec(Algorithm::ES256);
    let token = signer.token(&json!({"alg": "ES256", "kid": "our-key"}), &bound(json!({})));
    let verified = verify(&accounts(&[&signer], &[ISSUER]), &token, at(NOW)).unwrap().unwrap();
    assert_eq!(verified.expires, Some(at(1_700_003_660)));
    let user = verified.user;
    assert_eq!(
        (user.username.as_str(), user.uid.as_str()),
        ("system:serviceaccount:prod:app", "5e1")
    );
    let groups = ["system:serviceaccounts", "system:serviceaccounts:prod", "system:authenticated"];
    assert_eq!(user.groups, groups);
    let extra: Vec<_> = user.extra.iter().map(|(k, v)| (k.as_str(), v[0].as_str())).collect();
    let expected = [
        ("authentication.kubernetes.io/credential-id", "JTI=0f"),
        ("authentication.kubernetes.io/node-name", "n1"),
        ("authentication.kubernetes.io/node-uid", "77"),
        ("authentication.kubernetes.io/pod-name", "app-0"),
        ("authentication.kubernetes.io/pod-uid", "9a"),
    ];
    assert_eq!(extra, expected);
}

#[test]
fn extras_come_only_with_what_they_belong_to() {
    let signer = Signer::ec(Algorithm::ES256);
    let account = json!({"name": "app", "uid": "5e1"});
    let cases: [(Value, &[&str]); 4] = [
        (json!({}), &["credential-id"]),
        (json!({"pod": {"name": "p"}, "node": {"uid": "7"}}), &["credential-id"]),
        (json!({"node": {"name": "n"}}), &["credential-id", "node-name"]),
        (json!({"secret": {"name": "s", "uid": "1"}, "pod": null}), &["credential-id"]),
    ];
    for (mut claims, expected) in cases {
        claims["namespace"] = json!("prod");
        claims["serviceaccount"] = account.clone();
        let claims = bound(json!({"kubernetes.io": claims}));
        let token = signer.token(&json!({"alg": "ES256"}), &claims);
        let user = verify(&accounts(&[&signer], &[]), &token, at(NOW)).unwrap().unwrap().user;
        let keys: Vec<&str> = user
            .extra
            .keys()
            .map(|k| k.trim_start_matches("authentication.kubernetes.io/"))
            .collect();
        assert_eq!(keys, expected, "{claims}");
    }
}

#[test]
fn times_are_validated_with_kube_apiservers_leeway_of_a_minute() {
    let signer = Signer::ec(Algorithm::ES256);
    let accounts = accounts(&[&signer], &[]);
    use ServiceAccountError::*;
    let cases = [
        (json!({"exp": NOW}), Ok(())),
        (json!({"exp": NOW - 60}), Ok(())),
        (json!({"exp": NOW - 61}), Err(Expired)),
        (json!({"exp": NOW as f64 - 60.5}), Err(Expired)),
        (json!({"exp": 0}), Err(Expired)),
        (json!({"exp": -5}), Err(Expired)),
        (json!({"exp": null}), Ok(())),
        (json!({"exp": 1e300}), Ok(())),
        (json!({"nbf": NOW + 60}), Ok(())),
        (json!({"nbf": NOW + 61}), Err(NotValidYet)),
        (json!({"nbf": null, "iat": null}), Ok(())),
        (json!({"nbf": null, "iat": NOW + 60}), Ok(())),
        (json!({"nbf": null, "iat": NOW + 61}), Err(IssuedInTheFuture)),
    ];
    for (changes, expected) in cases {
        let token = signer.token(&json!({"alg": "ES256"}), &bound(changes.clone()));
        let verdict = verify(&accounts, &token, at(NOW)).map(|verified| {
            assert!(verified.is_some());
        });
        assert_eq!(verdict, expected, "{changes}");
    }
}

#[test]
fn issuer_audience_and_key_must_be_ours() {
    let (ours, other) = (Signer::ec(Algorithm::ES256), Signer::ec(Algorithm::ES256));
    let accounts = accounts(&[&ours, &other], &["api", ISSUER]);
    let plain = json!({"alg": "ES256"});
    let verdict = |signer: &Signer, header: &Value, changes: Value| {
        let token = signer.token(header, &bound(changes));
        verify(&accounts, &token, at(NOW)).map(|verified| verified.is_some())
    };
    assert_eq!(verdict(&ours, &plain, json!({})), Ok(true));
    assert_eq!(verdict(&other, &plain, json!({})), Ok(true), "a second key");
    assert_eq!(verdict(&ours, &plain, json!({"iss": "https://old.example"})), Ok(true));
    for issuer in [json!("https://elsewhere"), json!(""), json!(7), Value::Null] {
        assert_eq!(verdict(&ours, &plain, json!({"iss": issuer})), Ok(false), "{issuer}");
    }
    assert_eq!(verdict(&ours, &plain, json!({"aud": "api"})), Ok(true));
    assert_eq!(verdict(&ours, &plain, json!({"aud": ["x", "api"]})), Ok(true));
    assert_eq!(verdict(&ours, &plain, json!({"aud": null})), Ok(true));
    let refused = verdict(&ours, &plain, json!({"aud": ["vault"]}));
    assert!(matches!(refused, Err(ServiceAccountError::Audience(..))), "{refused:?}");
    let refused = verdict(&ours, &plain, json!({"aud": 7}));
    assert!(matches!(refused, Err(ServiceAccountError::Claims(_))), "{refused:?}");
    let stranger = verdict(&Signer::ec(Algorithm::ES256), &plain, json!({}));
    assert_eq!(stranger, Err(ServiceAccountError::Signature));
    let unknown = json!({"alg": "ES256", "kid": "elsewhere"});
    assert_eq!(verdict(&ours, &unknown, json!({})), Err(ServiceAccountError::UnknownKey));
    let nobody = verdict(&ours, &plain, json!({"kubernetes.io": null}));
    assert!(matches!(nobody, Err(ServiceAccountError::Claim(_))), "{nobody:?}");
}

#[test]
fn legacy_tokens_have_no_time_and_no_extra() {
    let signer = Signer::rsa();
    let accounts = accounts(&[&signer], &[ISSUER]);
    let verdict = |changes: Value| {
        verify(&accounts, &signer.token(&json!({"alg": "RS256"}), &legacy(changes)), at(NOW))
    };
    let verified = verdict(json!({"exp": 1})).unwrap().unwrap();
    assert_eq!(verified.expires, None);
    assert_eq!(verified.user.username, "system:serviceaccount:prod:app");
    assert_eq!(verified.user.uid, "5e1");
    assert!(verified.user.extra.is_empty());
    for (claim, missing) in [
        ("sub", "sub claim is missing"),
        ("kubernetes.io/serviceaccount/namespace", "namespace claim is missing"),
        ("kubernetes.io/serviceaccount/secret.name", "secretName claim is missing"),
        ("kubernetes.io/serviceaccount/service-account.uid", "serviceAccountUID claim is missing"),
    ] {
        let verdict = verdict(json!({ claim: null }));
        assert_eq!(verdict, Err(ServiceAccountError::Claim(missing)), "{claim}");
    }
    let other = verdict(json!({"sub": "system:serviceaccount:prod:other"}));
    assert_eq!(other, Err(ServiceAccountError::Claim("sub claim is invalid")));
}

#[test]
fn tokens_without_audience_and_those_that_should_be_renewed_are_noted() {
    let signer = Signer::ec(Algorithm::ES256);
    let accounts = accounts(&[&signer], &[]);
    let annotations = |claims: &Value, now| {
        let token = signer.token(&json!({"alg": "ES256"}), claims);
        verify(&accounts, &token, now).unwrap().unwrap().annotations
    };
    let sub = "system:serviceaccount:prod:app";
    let legacy_token = ("authentication.k8s.io/legacy-token", sub.to_owned());
    assert_eq!(annotations(&bound(json!({})), at(NOW)), []);
    let only_legacy = std::slice::from_ref(&legacy_token);
    assert_eq!(annotations(&legacy(json!({})), at(NOW)), only_legacy);
    let mut stale = bound(json!({"aud": null}));
    stale["kubernetes.io"]["warnafter"] = json!(NOW - 7);
    let text = format!("subject: {sub}, seconds after warning threshold: 7");
    let noted = ("authentication.k8s.io/stale-token", text);
    let late = at(NOW) + Duration::from_millis(500);
    assert_eq!(annotations(&stale, late), [legacy_token.clone(), noted]);
    for warn_after in [NOW, 0] {
        stale["kubernetes.io"]["warnafter"] = json!(warn_after);
        assert_eq!(annotations(&stale, at(NOW)), only_legacy, "{warn_after}");
    }
}

#[test]
fn changed_key_files_are_reloaded_and_invalid_ones_rejected() {
    let dir = TempDir::new();
    let key = || rcgen::KeyPair::generate().unwrap().public_key_pem();
    let file = dir.write("sa.pub", &key());
    let accounts =
        ServiceAccounts::load(vec![file], None, vec![ISSUER.into()], Vec::new()).unwrap();
    let before = accounts.keys.load_full();
    dir.write("sa.pub", "half a key");
    assert!(accounts.reload().is_err());
    assert_eq!(accounts.keys.load_full(), before);
    dir.write("sa.pub", &key());
    accounts.reload().unwrap();
    assert_ne!(accounts.keys.load_full(), before);
}

/// Tokens that a real kube-apiserver accepted, verified at the time of their events.
#[test]
fn recorded_tokens_give_the_recorded_users() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let issuer = vec![ISSUER.to_owned()];
    let accounts =
        ServiceAccounts::load(vec![corpus.join("pki/sa.pub")], None, issuer.clone(), issuer)
            .unwrap();
    let text = std::fs::read_to_string(corpus.join("exchanges/all-metadata.jsonl")).unwrap();
    let mut compared = 0;
    for line in text.lines().filter(|line| line.contains("\"sa-token\"")) {
        let exchange: Value = serde_json::from_str(line).unwrap();
        let headers = exchange["headers"].as_array().unwrap();
        let header = headers.iter().find(|pair| pair[0] == "Authorization").unwrap();
        let token = header[1].as_str().unwrap().strip_prefix("Bearer ").unwrap();
        let event: Value = serde_json::from_str(exchange["events"][0].as_str().unwrap()).unwrap();
        let received = event["requestReceivedTimestamp"].as_str().unwrap();
        let format = &time::format_description::well_known::Rfc3339;
        let received = SystemTime::from(time::OffsetDateTime::parse(received, format).unwrap());
        let verified = verify(&accounts, token, received).unwrap().unwrap();
        let user = json!({
            "username": verified.user.username, "uid": verified.user.uid,
            "groups": verified.user.groups, "extra": verified.user.extra,
        });
        assert_eq!(user, event["user"]);
        let late = received + Duration::from_secs(2 * 3600);
        assert_eq!(verify(&accounts, token, late), Err(ServiceAccountError::Expired));
        compared += 1;
    }
    assert!(compared > 0);
}
