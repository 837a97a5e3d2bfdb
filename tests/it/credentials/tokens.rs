//! Rows for signed tokens, and for tokens that only the API server can verify.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::table::Table;
use super::{ISSUER, Keys};
use crate::support::corpus;
use crate::support::jwt::{Signer, now};
use crate::support::proxy::Proxy;

/// Returns `claims` with `changes`; null removes a claim.
fn changed(mut claims: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(key)),
            value => claims[key] = value.clone(),
        }
    }
    claims
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn unsigned(claims: &Value) -> String {
    format!("{}.{}.", part(&json!({"alg": "none"})), part(claims))
}

/// Signs with the public key as if it were a shared secret.
fn by_public_key(claims: &Value, id: &str) -> String {
    let text = format!("{}.{}", part(&json!({"alg": "HS256", "kid": id})), part(claims));
    let public = std::fs::read(corpus::pki("sa.pub")).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes())))
}

/// Combines the signature of one token with the claims of another.
fn grafted(token: &str, claims: &Value) -> String {
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = rest.split_once('.').unwrap();
    format!("{header}.{}.{signature}", part(claims))
}

/// ServiceAccount tokens, signed with the key of the corpus.
pub async fn service_accounts(table: &mut Table, proxy: &Proxy) {
    let key = Signer::corpus();
    let by = |key: &Signer, claims: &Value| {
        let algorithm = if matches!(key, Signer::Rsa(_)) { "RS256" } else { "ES256" };
        key.token(&json!({"alg": algorithm}), claims)
    };
    let bound = |changes: Value| {
        let claims = json!({
            "iss": ISSUER, "aud": [ISSUER], "sub": "system:serviceaccount:team-a:app", "jti": "j",
            "iat": now(), "nbf": now(), "exp": now() + 3600,
            "kubernetes.io": {
                "namespace": "team-a", "serviceaccount": {"name": "app", "uid": "u"},
            },
        });
        changed(claims, &changes)
    };
    let to = |changes: Value| {
        let account = json!({"namespace": "team-a", "serviceaccount": {"name": "app", "uid": "u"}});
        bound(json!({"kubernetes.io": changed(account, &changes)}))
    };
    let legacy = |changes: Value| {
        let claims = json!({
            "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:team-a:app",
            "kubernetes.io/serviceaccount/namespace": "team-a",
            "kubernetes.io/serviceaccount/secret.name": "app-token",
            "kubernetes.io/serviceaccount/service-account.name": "app",
            "kubernetes.io/serviceaccount/service-account.uid": "u",
        });
        changed(claims, &changes)
    };
    let plain = "system:serviceaccount:team-a:app uid=u \
                 [system:serviceaccounts,system:serviceaccounts:team-a,+]";
    let app = format!("{plain} ~credential-id=JTI=j");
    let with = |extra: &str| format!("{app} {extra}");
    let cases: [(&str, Value, String); 19] = [
        ("good", bound(json!({})), app.clone()),
        ("good, remembered", bound(json!({})), app.clone()),
        ("no jti", bound(json!({"jti": null})), plain.into()),
        (
            "bound to a pod",
            to(json!({"pod": {"name": "app-0", "uid": "p"}})),
            with("~pod-name=app-0 ~pod-uid=p"),
        ),
        (
            "bound to a pod on a node",
            to(json!({"pod": {"name": "app-0", "uid": "p"}, "node": {"name": "n", "uid": "m"}})),
            with("~node-name=n ~node-uid=m ~pod-name=app-0 ~pod-uid=p"),
        ),
        ("bound to a node", to(json!({"node": {"name": "n"}})), with("~node-name=n")),
        ("bound to a secret", to(json!({"secret": {"name": "s", "uid": "t"}})), app.clone()),
        ("should have been renewed", to(json!({"warnafter": now() - 9})), app.clone()),
        ("other issuer of ours", bound(json!({"iss": "https://old.example"})), app.clone()),
        ("for no audience", bound(json!({"aud": null})), app.clone()),
        ("audience as text", bound(json!({"aud": ISSUER})), app.clone()),
        ("other audience", bound(json!({"aud": ["vault"]})), "401".into()),
        ("other issuer", bound(json!({"iss": "https://elsewhere"})), "401".into()),
        ("expired within a minute", bound(json!({"exp": now() - 30})), app.clone()),
        ("expired", bound(json!({"exp": now() - 90})), "401".into()),
        ("not yet valid", bound(json!({"nbf": now() + 90})), "401".into()),
        ("issued in the future", bound(json!({"iat": now() + 90})), "401".into()),
        ("legacy", legacy(json!({})), plain.into()),
        (
            "legacy, of another name",
            legacy(json!({"sub": "system:serviceaccount:a:b"})),
            "401".into(),
        ),
    ];
    for (what, claims, expected) in &cases {
        table.token(proxy, ("service account", what), &by(&key, claims), expected).await;
    }
    let good = by(&key, &bound(json!({})));
    let forged = grafted(&good, &bound(json!({"jti": "forged"})));
    for (what, token) in [
        ("other claims, same signature", forged.as_str()),
        ("cut off", &good[..good.len() - 4]),
        ("alg none", &unsigned(&bound(json!({})))),
        ("HS256 with the public key", &by_public_key(&bound(json!({})), "")),
        ("a stranger's key", &by(&Signer::ec(), &bound(json!({})))),
        (
            "kid of none of ours",
            &key.token(&json!({"alg": "RS256", "kid": "x"}), &bound(json!({}))),
        ),
        ("wrong algorithm", &key.token(&json!({"alg": "RS512"}), &bound(json!({})))),
    ] {
        table.token(proxy, ("service account", what), token, "401").await;
    }
}

/// Returns the claims of `jane` at the issuer.
fn jane(issuer: SocketAddr, changes: &Value) -> Value {
    let claims = json!({
        "iss": format!("https://{issuer}/realm"), "aud": ["kubernetes"], "sub": "jane",
        "groups": ["dev", "system:masters"], "exp": now() + 600, "jti": "j",
    });
    changed(claims, changes)
}

/// ID tokens of an issuer that has the RSA key of the corpus as `r`, and `ec` as `e`.
pub async fn oidc(table: &mut Table, proxy: &Proxy, issuer: SocketAddr, ec: &Signer) {
    let rsa = Signer::corpus();
    let plain = jane(issuer, &json!({}));
    let of =
        |changes: Value| rsa.token(&json!({"alg": "RS256", "kid": "r"}), &jane(issuer, &changes));
    let by = |signer: &Signer, header: Value| signer.token(&header, &plain);
    let stranger = Signer::ec();
    let user = "oidc:jane [dev,+] ~credential-id=JTI=j";
    let slash = format!("https://{issuer}/realm/");
    let cases: [(&str, String, &str); 27] = [
        ("good; the cluster's own groups left out", of(json!({})), user),
        ("audience as text", of(json!({"aud": "kubernetes"})), user),
        ("several audiences", of(json!({"aud": ["a", "kubernetes"]})), user),
        ("no groups", of(json!({"groups": null})), "oidc:jane [+] ~credential-id=JTI=j"),
        ("group as text", of(json!({"groups": "ops"})), "oidc:jane [ops,+] ~credential-id=JTI=j"),
        ("no jti", of(json!({"jti": null})), "oidc:jane [dev,+]"),
        ("other key of the issuer", by(ec, json!({"alg": "ES256", "kid": "e"})), user),
        ("no kid", by(ec, json!({"alg": "ES256"})), user),
        ("not before, within leeway", of(json!({"nbf": now() + 40})), user),
        ("not yet valid", of(json!({"nbf": now() + 90})), "401"),
        ("expired", of(json!({"exp": now() - 1})), "401"),
        ("no expiry", of(json!({"exp": null})), "401"),
        ("wrong audience", of(json!({"aud": ["other"]})), "401"),
        ("wrong issuer", of(json!({"iss": "https://elsewhere/realm"})), "401"),
        ("issuer with a slash", of(json!({"iss": slash})), "401"),
        ("user name is a number", of(json!({"sub": 1})), "401"),
        ("no user name", of(json!({"sub": null})), "401"),
        ("groups are a number", of(json!({"groups": 1})), "401"),
        ("alg none", unsigned(&plain), "401"),
        ("HS256 with the public key", by_public_key(&plain, "r"), "401"),
        (
            "RS512, which is not among the flag's",
            rsa.token(&json!({"alg": "RS512", "kid": "r"}), &plain),
            "401",
        ),
        ("stranger's key", by(&stranger, json!({"alg": "ES256", "kid": "e"})), "401"),
        ("stranger's key, no kid", by(&stranger, json!({"alg": "ES256"})), "401"),
        ("kid of another key", by(ec, json!({"alg": "ES256", "kid": "r"})), "401"),
        ("kid as a path", by(ec, json!({"alg": "ES256", "kid": "../../dev/null"})), "401"),
        (
            "key in the header",
            by(&stranger, json!({"alg": "ES256", "jwk": stranger.web_key("x")})),
            "401",
        ),
        ("crit", by(ec, json!({"alg": "ES256", "kid": "e", "crit": ["exp"]})), "401"),
    ];
    for (what, token, expected) in &cases {
        table.token(proxy, ("oidc", what), token, expected).await;
    }
}

/// The issuer changes its keys, is slow, and stops. Uses another proxy than the table, because
/// tokens have exhausted the fetches of that one.
pub async fn oidc_rotation(table: &mut Table, proxy: &Proxy, issuer: SocketAddr, keys: &Keys) {
    let (old, new) = (Signer::ec(), Signer::ec());
    let by = |signer: &Signer, kid: &str, jti: &str| {
        let claims = jane(issuer, &json!({"jti": jti, "groups": null}));
        signer.token(&json!({"alg": "ES256", "kid": kid}), &claims)
    };
    keys.set(vec![new.web_key("new")]);
    table
        .token(
            proxy,
            ("oidc", "key that is new"),
            &by(&new, "new", "a"),
            "oidc:jane [+] ~credential-id=JTI=a",
        )
        .await;
    table.token(proxy, ("oidc", "key that was withdrawn"), &by(&old, "old", "b"), "401").await;
    keys.stall();
    table
        .token(
            proxy,
            ("oidc", "known key, issuer does not answer"),
            &by(&new, "new", "c"),
            "oidc:jane [+] ~credential-id=JTI=c",
        )
        .await;
    table
        .token(proxy, ("oidc", "unknown key, issuer does not answer"), &by(&old, "x", "d"), "401")
        .await;
}

/// An issuer that has never been reachable.
pub async fn oidc_down(table: &mut Table, proxy: &Proxy, issuer: SocketAddr) {
    let token = Signer::ec().token(&json!({"alg": "ES256", "kid": "e"}), &jane(issuer, &json!({})));
    table.token(proxy, ("oidc", "issuer down since the start"), &token, "503").await;
    let other = Signer::ec().token(&json!({"alg": "ES256"}), &jane(issuer, &json!({"iss": "x"})));
    table.token(proxy, ("oidc", "another's token meanwhile"), &other, "401").await;
}

/// Tokens that are verified by TokenReviews.
pub async fn reviewed(table: &mut Table, proxy: &Proxy) {
    for (what, token, expected) in [
        ("user in full", "review-jane", "jane uid=42 [dev,+] k=v,w"),
        ("again, remembered", "review-jane", "jane uid=42 [dev,+] k=v,w"),
        ("name alone", "review-plain", "plain [+]"),
        ("answer without audiences", "review-no-audience", "plain [+]"),
        ("other audiences", "review-vault", "401"),
        ("one audience of several", "review-both", "plain [+]"),
        ("refused with a reason", "review-expired", "401"),
        ("user without a name", "review-nameless", "401"),
        ("unknown", "review-nobody", "401"),
        ("answer is no JSON", "review-garbage", "503"),
        ("the API server refuses to answer", "review-forbidden", "503"),
        ("the API server breaks off once", "review-broken-once", "plain [+]"),
    ] {
        table.token(proxy, ("token review", what), token, expected).await;
    }
    let long = "a".repeat(20 << 10);
    table.token(proxy, ("token review", "20 KiB long"), &long, "401").await;
}
