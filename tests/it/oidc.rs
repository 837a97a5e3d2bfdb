//! ID tokens of an OpenID Connect issuer: whose they are, and what an issuer may do meanwhile.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::jwt::{Signer, now};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{corpus, http1, wait_for};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const KEYS: &str = "/realm/keys";

type Keys = Arc<Mutex<Vec<Value>>>;

/// An issuer at `addr` with these keys. Its URL is not that of its port's root.
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
async fn tokens_of_the_issuer_are_its_users() {
    let (rsa, ec) = (Signer::corpus(), Signer::ec());
    let keys = Keys::new(Mutex::new(vec![rsa.web_key("r"), ec.web_key("e")]));
    let issuer = issuer("127.0.0.1:0", keys).await;
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, issuer.addr).await;
    let header = json!({"alg": "RS256", "kid": "r"});
    let token = |changes: Value| rsa.token(&header, &claims(issuer.addr, changes));

    assert_eq!(get(&proxy, &token(json!({})), "jane").await, 200);
    let expected = json!({
        "username": "oidc:jane", "groups": ["dev", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": ["JTI=j"]},
    });
    assert_eq!(proxy.audit_log().wait_end("jane").await[0].value["user"], expected);

    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let plain = claims(issuer.addr, json!({}));
    let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), part(&plain));
    let hs256 = {
        let text = format!("{}.{}", part(&json!({"alg": "HS256", "kid": "r"})), part(&plain));
        let public = std::fs::read(corpus::pki("sa.pub")).unwrap();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
        let tag = aws_lc_rs::hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let by = |signer: &Signer, header: Value| signer.token(&header, &plain);
    let stranger = Signer::ec();
    let cases = [
        ("good", token(json!({})), 200),
        ("audience as text", token(json!({"aud": "kubernetes"})), 200),
        ("other key of the issuer", by(&ec, json!({"alg": "ES256", "kid": "e"})), 200),
        ("no kid", by(&ec, json!({"alg": "ES256"})), 200),
        ("not before, within leeway", token(json!({"nbf": now() + 200})), 200),
        ("expired", token(json!({"exp": now() - 1})), 401),
        ("no expiry", token(json!({"exp": null})), 401),
        ("not before", token(json!({"nbf": now() + 400})), 401),
        ("wrong audience", token(json!({"aud": ["other"]})), 401),
        ("wrong issuer", token(json!({"iss": "https://elsewhere/realm"})), 401),
        (
            "issuer with a slash",
            token(json!({"iss": format!("https://{}/realm/", issuer.addr)})),
            401,
        ),
        ("user name is a number", token(json!({"sub": 1})), 401),
        ("groups are a number", token(json!({"groups": 1})), 401),
        ("alg none", unsigned, 401),
        ("HS256 with the public key", hs256, 401),
        ("stranger's key", by(&stranger, json!({"alg": "ES256", "kid": "e"})), 401),
        ("stranger's key, no kid", by(&stranger, json!({"alg": "ES256"})), 401),
        ("kid of another key", by(&ec, json!({"alg": "ES256", "kid": "r"})), 401),
        ("kid as a path", by(&ec, json!({"alg": "ES256", "kid": "../../dev/null"})), 401),
        (
            "key in the header",
            by(&stranger, json!({"alg": "ES256", "jwk": stranger.web_key("x")})),
            401,
        ),
        ("crit", by(&ec, json!({"alg": "ES256", "kid": "e", "crit": ["exp"]})), 401),
    ];
    for (index, (what, token, expected)) in cases.iter().enumerate() {
        let code = get(&proxy, token, &format!("case-{index}")).await;
        println!("{what:<40} {code}");
        assert_eq!(code, *expected, "{what}");
    }
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
    assert_eq!(fetches(&issuer), before + 1, "a fetch for each unknown key would be a lever");
    // An issuer that is gone changes nothing for the keys that are known.
    issuer.stop().await;
    let other = claims(upstream.addr, json!({"iss": plain["iss"], "sub": "tom"}));
    let token = new.token(&json!({"alg": "ES256", "kid": "new"}), &other);
    assert_eq!(get(&proxy, &token, "tom").await, 200);
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
        proxy.process.stderr().contains("INFO kube_audit_proxy::authn::oidc::issuer").then_some(())
    })
    .await;
    assert_eq!(get(&proxy, &token, "up").await, 200);
}
