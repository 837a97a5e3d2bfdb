//! ID tokens of an OpenID Connect issuer: authentication, key rotation, and outages of the issuer.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::jwt::{Signer, now};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{corpus, http1, wait_for};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const KEYS: &str = "/realm/keys";

type Keys = Arc<Mutex<Vec<Value>>>;

/// Returns an issuer at `addr` with these keys. Its URL has a path.
async fn issuer(addr: &str, keys: Keys) -> FakeUpstream {
    FakeUpstream::start_on(addr.parse().unwrap(), Protocols::Http1, move |request| {
        let keys = Arc::clone(&keys);
        async move {
            let host = request.headers()["host"].to_str()?.to_owned();
            match request.uri().path() {
                "/realm/.well-known/openid-configuration" => {
                    let url = format!("https://{host}/realm");
                    json(
                        200,
                        json!({"issuer": url, "jwks_uri": format!("https://{host}{KEYS}")})
                            .to_string(),
                    )
                }
                KEYS => json(200, json!({"keys": *keys.lock().unwrap()}).to_string()),
                _ => json(404, "{}"),
            }
        }
    })
    .await
}

async fn proxy(upstream: &FakeUpstream, issuer: std::net::SocketAddr) -> Proxy {
    Builder::new(upstream.addr)
        .flag(&format!("--oidc-issuer-url=https://{issuer}/realm"))
        .flag("--oidc-client-id=kubernetes")
        .flag("--oidc-username-prefix=oidc:")
        .flag("--oidc-groups-claim=groups")
        .flag("--oidc-signing-algs=RS256,ES256")
        .flag(&format!("--oidc-ca-file={}", corpus::pki("ca.crt").display()))
        .start()
        .await
}

async fn get(proxy: &Proxy, token: &str, id: &str) -> u16 {
    let lines = [format!("Authorization: Bearer {token}"), format!("Audit-ID: {id}")];
    let lines = lines.each_ref().map(String::as_str);
    http1::get(proxy.addr, None, TARGET, &lines).await.unwrap().head.status
}

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Claims of `jane` at the issuer; `changes` replace some, and null takes one away.
fn claims(issuer: std::net::SocketAddr, changes: Value) -> Value {
    let mut claims = json!({
        "iss": format!("https://{issuer}/realm"), "aud": ["kubernetes"], "sub": "jane",
        "groups": ["dev", "system:masters"], "exp": now() + 600, "jti": "j",
    });
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

fn fetches(issuer: &FakeUpstream) -> usize {
    issuer.seen().iter().filter(|seen| seen.target == KEYS).count()
}

#[tokio::test]
async fn new_keys_are_fetched_when_tokens_name_them_but_not_for_each() {
    let (old, new) = (Signer::ec(), Signer::ec());
    let keys = Keys::new(Mutex::new(vec![old.web_key("old")]));
    let issuer = issuer("127.0.0.1:0", Arc::clone(&keys)).await;
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, issuer.addr).await;
    let plain = claims(issuer.addr, json!({}));
    let by =
        |signer: &Signer, kid: &str| signer.token(&json!({"alg": "ES256", "kid": kid}), &plain);
    assert_eq!(get(&proxy, &by(&old, "old"), "old").await, 200);
    *keys.lock().unwrap() = vec![new.web_key("new")];
    let before = fetches(&issuer);
    assert_eq!(get(&proxy, &by(&new, "new"), "new").await, 200);
    assert_eq!(fetches(&issuer), before + 1);
    for index in 0..30 {
        let kid = format!("unknown-{index}");
        assert_eq!(get(&proxy, &by(&new, &kid), &kid).await, 401);
    }
    assert!(fetches(&issuer) <= before + 10, "a fetch for each unknown key would be a lever");
    // Known keys stay valid after the issuer has stopped.
    issuer.stop().await;
    let other = claims(upstream.addr, json!({"iss": plain["iss"], "sub": "tom"}));
    let token = new.token(&json!({"alg": "ES256", "kid": "new"}), &other);
    assert_eq!(get(&proxy, &token, "tom").await, 200);
}

#[tokio::test]
async fn withdrawn_keys_are_rejected_once_new_ones_are_used() {
    let signers = [Signer::ec(), Signer::ec(), Signer::ec()];
    let by = |index: usize, sub: &str, claims: Value| {
        let mut claims = claims;
        claims["sub"] = json!(format!("{sub}-{index}"));
        signers[index].token(&json!({"alg": "ES256", "kid": format!("k{index}")}), &claims)
    };
    let keys = Keys::new(Mutex::new(vec![signers[0].web_key("k0")]));
    let issuer = issuer("127.0.0.1:0", Arc::clone(&keys)).await;
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, issuer.addr).await;
    let plain = claims(issuer.addr, json!({}));
    assert_eq!(get(&proxy, &by(0, "first", plain.clone()), "first-0").await, 200);
    // Two rotations in a row, as after a compromised issuer.
    for index in [1, 2] {
        *keys.lock().unwrap() = vec![signers[index].web_key(&format!("k{index}"))];
        let id = format!("new-{index}");
        assert_eq!(get(&proxy, &by(index, "new", plain.clone()), &id).await, 200);
        let id = format!("withdrawn-{index}");
        assert_eq!(get(&proxy, &by(index - 1, "withdrawn", plain.clone()), &id).await, 401);
    }
    // Another key with the same ID.
    *keys.lock().unwrap() = vec![signers[0].web_key("k2")];
    let renamed = signers[0].token(&json!({"alg": "ES256", "kid": "k2"}), &plain);
    assert_eq!(get(&proxy, &renamed, "renamed").await, 200);
}

#[tokio::test]
async fn names_that_no_header_can_carry_are_rejected_with_a_reason() {
    let key = Signer::ec();
    let keys = Keys::new(Mutex::new(vec![key.web_key("k")]));
    let issuer = issuer("127.0.0.1:0", keys).await;
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, issuer.addr).await;
    for (index, changes) in [
        json!({"sub": "a\nb"}),
        json!({"sub": "a\r\nX-Remote-Group: system:masters"}),
        json!({"sub": "\0"}),
        json!({"sub": "jane "}),
        json!({"groups": ["a\nb"]}),
    ]
    .into_iter()
    .enumerate()
    {
        let token =
            key.token(&json!({"alg": "ES256", "kid": "k"}), &claims(issuer.addr, changes.clone()));
        let lines =
            [format!("Authorization: Bearer {token}"), format!("Audit-ID: control-{index}")];
        let lines = lines.each_ref().map(String::as_str);
        let response = http1::get(proxy.addr, None, TARGET, &lines).await.unwrap();
        assert_eq!(response.head.status, 400, "{changes}");
        let status: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(status["reason"], "BadRequest", "{changes}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("cannot be sent in a header"), "{changes}: {message}");
    }
    assert_eq!(upstream.seen().len(), 0, "nothing of them is forwarded");
}

#[tokio::test]
async fn documents_that_are_arrays_are_not_read() {
    let key = Signer::ec();
    for (name, discovery, keys) in [
        ("keys", json!({"issuer": "URL", "jwks_uri": "URL/keys"}), json!([[key.web_key("k")]])),
        ("discovery", json!(["URL", "URL/keys"]), json!({"keys": [key.web_key("k")]})),
    ] {
        let server = FakeUpstream::start(Protocols::Http1, move |request| {
            let (discovery, keys) = (discovery.clone(), keys.clone());
            async move {
                let host = request.headers()["host"].to_str()?.to_owned();
                let answer = if request.uri().path().ends_with("/keys") { keys } else { discovery };
                let url = format!("https://{host}/realm");
                json(200, answer.to_string().replace("URL", &url))
            }
        })
        .await;
        let upstream = ok_upstream().await;
        let proxy = proxy(&upstream, server.addr).await;
        let token =
            key.token(&json!({"alg": "ES256", "kid": "k"}), &claims(server.addr, json!({})));
        assert_eq!(get(&proxy, &token, name).await, 503, "{name}");
    }
}

#[tokio::test]
async fn the_start_does_not_need_the_issuer() {
    let key = Signer::ec();
    let keys = Keys::new(Mutex::new(vec![key.web_key("k")]));
    let down = issuer("127.0.0.1:0", Arc::clone(&keys)).await;
    let addr = down.addr;
    down.stop().await;
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, addr).await;
    let token = key.token(&json!({"alg": "ES256", "kid": "k"}), &claims(addr, json!({})));
    assert_eq!(get(&proxy, &token, "down").await, 503, "whose it is cannot be known yet");
    assert_eq!(get(&proxy, "carol-token", "carol").await, 200);
    let _up = issuer(&addr.to_string(), keys).await;
    wait_for("the issuer's keys", || {
        proxy.process.stderr().contains("INFO kube_authn::oidc::issuer").then_some(())
    })
    .await;
    assert_eq!(get(&proxy, &token, "up").await, 200);
}
