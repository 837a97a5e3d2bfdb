//! Authentication with credentials of every kind, as a table: each row has a credential, and the
//! user in the event or the rejection. The table is printed and stored as `credentials.txt`.

mod certificates;
mod headers;
mod table;
mod tokens;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::jwt::Signer;
use crate::support::pki::Authority;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, json};
use crate::support::{corpus, wait_for};
use table::{Shown, Table};

/// The issuer of ServiceAccount tokens, which is also their audience.
const ISSUER: &str = "https://kubernetes.default.svc";

/// The keys of an OIDC issuer, and whether it responds.
#[derive(Default)]
struct Keys {
    set: Mutex<Vec<Value>>,
    stalled: AtomicBool,
}

impl Keys {
    fn set(&self, keys: Vec<Value>) {
        *self.set.lock().unwrap() = keys;
    }

    /// Stops responding to requests.
    fn stall(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }
}

async fn issuer(keys: Arc<Keys>) -> FakeUpstream {
    let listen = "127.0.0.1:0".parse().unwrap();
    FakeUpstream::start_on(listen, Protocols::Http1, move |request| {
        let keys = Arc::clone(&keys);
        async move {
            if keys.stalled.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let host = request.headers()["host"].to_str()?.to_owned();
            let answer = match request.uri().path() {
                "/realm/keys" => json!({"keys": *keys.set.lock().unwrap()}),
                _ => json!({
                    "issuer": format!("https://{host}/realm"),
                    "jwks_uri": format!("https://{host}/realm/keys"),
                }),
            };
            json(200, answer.to_string())
        }
    })
    .await
}

/// Returns an API server that reviews tokens; the text of a token selects the response.
async fn api_server() -> FakeUpstream {
    let broken = Arc::new(AtomicUsize::new(0));
    FakeUpstream::start(Protocols::Http2, move |request| {
        let broken = Arc::clone(&broken);
        async move {
            if !request.uri().path().ends_with("/tokenreviews") {
                return json(200, "{}");
            }
            let body = request.into_body().collect().await?.to_bytes();
            let question: Value = serde_json::from_slice(&body)?;
            let token = question["spec"]["token"].as_str().unwrap_or("");
            assert_ne!(token, "carol-token", "tokens that are known are not asked about");
            review(token, &broken)
        }
    })
    .await
}

fn review(token: &str, broken: &AtomicUsize) -> Answered {
    let plain = json!({"username": "plain"});
    let status = match token {
        "review-jane" => json!({
            "authenticated": true, "audiences": [ISSUER],
            "user": {"username": "jane", "uid": "42", "groups": ["dev"], "extra": {"k": ["v", "w"]}},
        }),
        "review-plain" => json!({"authenticated": true, "audiences": [ISSUER], "user": plain}),
        "review-no-audience" => json!({"authenticated": true, "user": plain}),
        "review-vault" => json!({"authenticated": true, "audiences": ["vault"], "user": plain}),
        "review-both" => {
            json!({"authenticated": true, "audiences": ["vault", ISSUER], "user": plain})
        }
        "review-expired" => json!({"error": "it has expired"}),
        "review-nameless" => json!({"authenticated": true, "audiences": [ISSUER], "user": {}}),
        "review-garbage" => return json(201, "<html>"),
        "review-forbidden" => return json(403, "{}"),
        "review-broken-once" if broken.fetch_add(1, Ordering::SeqCst) == 0 => {
            return Err("broken off".into());
        }
        "review-broken-once" => {
            json!({"authenticated": true, "audiences": [ISSUER], "user": plain})
        }
        _ => json!({}),
    };
    json(201, json!({"kind": "TokenReview", "status": status}).to_string())
}

/// Enables all authentication methods that can be combined.
fn everything(upstream: &FakeUpstream, root: &Authority, issuer: SocketAddr) -> Builder {
    let keys = corpus::pki("sa.pub").display().to_string();
    let builder = oidc(Builder::new(upstream.addr).front_proxies(), issuer);
    let ca = std::fs::read_to_string(corpus::pki("ca.crt")).unwrap();
    let ca = builder.dir().write("client-ca.crt", &format!("{ca}{}", root.pem));
    let crl = root.revocation_list(&[certificates::REVOKED]);
    let crl = builder.dir().write("client.crl", &crl);
    let tokens = builder.dir().write("tokens.csv", headers::TOKENS);
    [
        format!("--client-ca-file={}", ca.display()),
        format!("--client-crl-file={}", crl.display()),
        format!("--token-auth-file={}", tokens.display()),
        format!("--service-account-key-file={keys}"),
        format!("--service-account-issuer={ISSUER}"),
        "--service-account-issuer=https://old.example".to_owned(),
        format!("--api-audiences={ISSUER}"),
        "--authentication-token-review".to_owned(),
        "--requestheader-username-headers=X-Remote-User,X-Authenticated-As".to_owned(),
        "--requestheader-group-headers=X-Remote-Group,X-Remote-Group-2".to_owned(),
    ]
    .iter()
    .fold(builder, |builder, flag| builder.flag(flag))
}

fn oidc(builder: Builder, issuer: SocketAddr) -> Builder {
    builder
        .flag(&format!("--oidc-issuer-url=https://{issuer}/realm"))
        .flag("--oidc-client-id=kubernetes")
        .flag("--oidc-username-prefix=oidc:")
        .flag("--oidc-groups-claim=groups")
        .flag("--oidc-signing-algs=RS256,ES256")
        .flag(&format!("--oidc-ca-file={}", corpus::pki("ca.crt").display()))
}

async fn keys_known(proxy: &Proxy) {
    let line = "fetched the keys of the OIDC issuer";
    wait_for(line, || proxy.process.stderr().contains(line).then_some(())).await;
}

#[tokio::test]
async fn every_credential_authenticates_its_user_or_is_rejected() {
    let upstream = api_server().await;
    let root = Authority::root("test-root");
    let ec = Signer::ec();
    let keys = Arc::new(Keys::default());
    keys.set(vec![Signer::corpus().web_key("r"), ec.web_key("e")]);
    let issuer = issuer(Arc::clone(&keys)).await;
    let down = "127.0.0.1:1".parse().unwrap();

    let proxy = everything(&upstream, &root, issuer.addr).start().await;
    let lenient = everything(&upstream, &root, issuer.addr);
    let lenient = lenient.flag("--client-ca-allow-x509-v1").start().await;
    let front_proxy_ca = corpus::pki("front-proxy-ca.crt").display().to_string();
    let picky = Builder::new(upstream.addr)
        .flag(&format!("--requestheader-client-ca-file={front_proxy_ca}"))
        .flag("--requestheader-allowed-names=other,another")
        .flag("--anonymous-auth=false")
        .start()
        .await;
    let plain = oidc(Builder::new(upstream.addr), down);
    let ca = plain.dir().write("client-ca.crt", &root.pem);
    let plain = plain.flag(&format!("--client-ca-file={}", ca.display())).start().await;
    keys_known(&proxy).await;
    keys_known(&lenient).await;

    let mut table = Table::default();
    certificates::rows(&mut table, &proxy, &lenient, &plain, &root).await;
    headers::static_tokens(&mut table, &proxy).await;
    headers::bearer(&mut table, &proxy).await;
    headers::websocket(&mut table, &proxy).await;
    headers::front_proxies(&mut table, &proxy, &picky).await;
    tokens::service_accounts(&mut table, &proxy).await;
    tokens::oidc(&mut table, &proxy, issuer.addr, &ec).await;
    tokens::oidc_rotation(&mut table, &lenient, issuer.addr, &keys).await;
    tokens::oidc_down(&mut table, &plain, down).await;
    tokens::reviewed(&mut table, &proxy).await;
    table.row(&picky, ("anonymous", "not allowed"), Shown::None, &[], "401").await;
    let basic = ["Authorization: Basic Y2Fyb2w6eA=="];
    table.row(&picky, ("anonymous", "not allowed, Basic"), Shown::None, &basic, "401").await;
    table.finish(&upstream);
    for proxy in [&proxy, &lenient] {
        let log = proxy.process.stderr();
        assert!(!log.contains("carol-token") && !log.contains("review-"), "tokens are not logged");
    }
}
