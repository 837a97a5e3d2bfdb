//! ServiceAccount tokens verified with the keys that the API server publishes.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::jwt::{Signer, now};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{http1, wait_for};

const ISSUER: &str = "https://kubernetes.default.svc";
const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const KEYS: &str = "/openid/v1/jwks";

/// The issuer and keys that the API server publishes; `None` if it denies access.
type Published = Arc<Mutex<Option<(&'static str, Vec<Value>)>>>;

async fn api_server(addr: &str, published: Published) -> FakeUpstream {
    FakeUpstream::start_on(addr.parse().unwrap(), Protocols::Http2, move |request| {
        let published = published.lock().unwrap().clone();
        async move {
            let path = request.uri().path();
            match (path, published) {
                ("/.well-known/openid-configuration" | KEYS, None) => json(403, "{}"),
                ("/.well-known/openid-configuration", Some((issuer, _))) => {
                    // The published public address is another one.
                    let jwks_uri = "https://oidc.cloud.example/keys";
                    json(200, json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string())
                }
                (KEYS, Some((_, keys))) => json(200, json!({"keys": keys}).to_string()),
                _ => json(200, "{}"),
            }
        }
    })
    .await
}

async fn proxy(upstream: std::net::SocketAddr, flags: &[&str]) -> Proxy {
    let builder = Builder::new(upstream).flag("--service-account-keys-from-upstream");
    flags.iter().fold(builder, |builder, flag| builder.flag(flag)).start().await
}

async fn get(proxy: &Proxy, token: &str, id: &str) -> u16 {
    let lines = [format!("Authorization: Bearer {token}"), format!("Audit-ID: {id}")];
    let lines = lines.each_ref().map(String::as_str);
    http1::get(proxy.addr, None, TARGET, &lines).await.unwrap().head.status
}

fn token(key: &Signer, id: &str, changes: Value) -> String {
    let mut claims = json!({
        "iss": ISSUER, "aud": [ISSUER], "sub": "system:serviceaccount:team-a:app", "jti": "j",
        "iat": now(), "nbf": now(), "exp": now() + 3600,
        "kubernetes.io": {"namespace": "team-a", "serviceaccount": {"name": "app", "uid": "u"}},
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    key.token(&json!({"alg": "ES256", "kid": id}), &claims)
}

fn fetches(upstream: &FakeUpstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.target == KEYS).count()
}

async fn known(proxy: &Proxy) {
    let line = "fetched the keys of ServiceAccount tokens from the API server";
    wait_for(line, || proxy.process.stderr().contains(line).then_some(())).await;
}

#[tokio::test]
async fn issuer_and_keys_come_from_the_api_server() {
    let (old, new) = (Signer::ec(), Signer::ec());
    let published = Published::new(Mutex::new(Some((ISSUER, vec![old.web_key("old")]))));
    let upstream = api_server("127.0.0.1:0", Arc::clone(&published)).await;
    let proxy = proxy(upstream.addr, &[]).await;
    known(&proxy).await;
    assert_eq!(get(&proxy, &token(&old, "old", json!({})), "good").await, 200);
    let event = &proxy.audit_log().wait_end("good").await[0];
    assert_eq!(event.text("/user/username"), "system:serviceaccount:team-a:app");
    let asked = upstream.seen().into_iter().find(|seen| seen.target == KEYS).unwrap();
    assert_eq!(asked.all("x-remote-user"), ["kube-audit-proxy"], "with its own credentials");
    for (what, token) in [
        ("other issuer", token(&old, "old", json!({"iss": "https://elsewhere"}))),
        ("other audience", token(&old, "old", json!({"aud": ["vault"]}))),
        ("key of another", token(&new, "old", json!({}))),
    ] {
        assert_eq!(get(&proxy, &token, "bad").await, 401, "{what}");
    }
    assert_eq!(fetches(&upstream), 1);

    // A new key is fetched when a token names it, but not for each token with an unknown key.
    *published.lock().unwrap() = Some((ISSUER, vec![old.web_key("old"), new.web_key("new")]));
    assert_eq!(get(&proxy, &token(&new, "new", json!({"jti": "k"})), "new").await, 200);
    for index in 0..30 {
        let id = format!("unknown-{index}");
        assert_eq!(get(&proxy, &token(&new, &id, json!({})), &id).await, 401);
    }
    assert_eq!(fetches(&upstream), 2, "a fetch for each unknown key would be a lever");
}

#[tokio::test]
async fn neither_the_start_nor_known_keys_need_the_api_server() {
    let key = Signer::ec();
    let published = Published::new(Mutex::new(Some((ISSUER, vec![key.web_key("k")]))));
    let down = api_server("127.0.0.1:0", Arc::clone(&published)).await;
    let addr = down.addr;
    down.stop().await;
    let proxy = proxy(addr, &["--service-account-issuer=https://given.example"]).await;
    let given = |jti: &str| {
        let given = "https://given.example";
        token(&key, "k", json!({"iss": given, "aud": [given], "jti": jti}))
    };
    assert_eq!(get(&proxy, &given("a"), "early").await, 503, "whose it is cannot be known yet");
    assert_eq!(get(&proxy, &token(&key, "k", json!({})), "theirs").await, 401, "not by the flag");
    assert_eq!(get(&proxy, "nonsense", "nonsense").await, 401, "no ServiceAccount's for certain");
    let up = api_server(&addr.to_string(), published).await;
    known(&proxy).await;
    assert_eq!(get(&proxy, &given("b"), "up").await, 200);
    up.stop().await;
    // The token is valid, but the API server cannot be reached.
    assert_eq!(get(&proxy, &given("c"), "down").await, 503);
    let event = &proxy.audit_log().wait_end("down").await[0];
    assert_eq!(event.text("/user/username"), "system:serviceaccount:team-a:app");
}

#[tokio::test]
async fn a_denial_names_the_missing_permission() {
    let published = Published::default();
    let upstream = api_server("127.0.0.1:0", published).await;
    let proxy = proxy(upstream.addr, &[]).await;
    let role = "system:service-account-issuer-discovery";
    wait_for(role, || proxy.process.stderr().contains(role).then_some(())).await;
    let key = Signer::ec();
    assert_eq!(get(&proxy, &token(&key, "k", json!({})), "refused").await, 503);
}
