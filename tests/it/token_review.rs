//! Tokens that only the API server can verify: which TokenReviews are sent, what is cached, and
//! what happens if they fail or are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client;
use crate::support::http1;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::wait_for;

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Accepts the tokens `jane`, `old` (rejected with a reason) and `deploy` (other audiences); takes
/// `time` for a response.
async fn reviewing(time: Duration) -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, move |request| async move {
        if request.uri().path() != REVIEWS {
            return json(200, "{}");
        }
        let body = request.into_body().collect().await?.to_bytes();
        tokio::time::sleep(time).await;
        let question: Value = serde_json::from_slice(&body)?;
        assert_eq!(question["kind"], "TokenReview");
        assert_eq!(question["spec"]["audiences"], json!(["api", "other"]));
        let status = match question["spec"]["token"].as_str() {
            Some("jane") => json!({
                "authenticated": true, "audiences": ["api"],
                "user": {"username": "jane", "uid": "42", "groups": ["dev"], "extra": {"k": ["v"]}},
            }),
            Some("deploy") => json!({
                "authenticated": true, "audiences": ["vault"], "user": {"username": "deploy"},
            }),
            Some("old") => json!({"error": "it has expired"}),
            _ => json!({}),
        };
        json(201, json!({"kind": "TokenReview", "status": status}).to_string())
    })
    .await
}

async fn proxy(upstream: &FakeUpstream, identity: &'static str) -> Proxy {
    Builder::new(upstream.addr)
        .identity(identity)
        .flag("--authentication-token-review")
        .flag("--api-audiences=api,other")
        .start()
        .await
}

async fn get(proxy: &Proxy, token: &str, id: &str) -> u16 {
    let lines = [format!("Authorization: Bearer {token}"), format!("Audit-ID: {id}")];
    let lines = lines.each_ref().map(String::as_str);
    http1::get(proxy.addr, None, TARGET, &lines).await.unwrap().head.status
}

/// Returns the number of TokenReviews that the API server received.
fn reviews(upstream: &FakeUpstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.target == REVIEWS).count()
}

#[tokio::test]
async fn tokens_are_authenticated_with_token_reviews() {
    for identity in ["request-header", "impersonate"] {
        let upstream = reviewing(Duration::ZERO).await;
        let proxy = proxy(&upstream, identity).await;
        assert_eq!(get(&proxy, "jane", "jane").await, 200, "{identity}");
        let event = &proxy.audit_log().wait_end("jane").await[0];
        let expected = json!({
            "username": "jane", "uid": "42", "groups": ["dev", "system:authenticated"],
            "extra": {"k": ["v"]},
        });
        assert_eq!(event.value["user"], expected);
        for token in ["old", "deploy", "nobody", "a.b.c"] {
            assert_eq!(get(&proxy, token, token).await, 401, "{identity}, {token}");
        }
        assert_eq!(get(&proxy, "carol-token", "carol").await, 200, "{identity}");
        assert_eq!(get(&proxy, &"a".repeat(20 << 10), "long").await, 401, "{identity}");
        let seen = upstream.seen();
        assert_eq!(reviews(&upstream), 5, "none about a token of the file, nor one too long");
        let question = seen.iter().find(|seen| seen.target == REVIEWS).unwrap();
        let name = question.all("x-remote-user");
        match identity {
            "request-header" => assert_eq!(name, ["kube-audit-proxy"]),
            _ => assert!(name.is_empty(), "its own certificate says who it is"),
        }
        assert!(!proxy.process.stderr().contains("jane"), "tokens and users are not logged");
    }
}

#[tokio::test]
async fn results_are_cached_and_concurrent_requests_share_a_review() {
    let upstream = reviewing(Duration::from_millis(300)).await;
    let proxy = Arc::new(proxy(&upstream, "request-header").await);
    let mut sending = JoinSet::new();
    for index in 0..40 {
        let proxy = Arc::clone(&proxy);
        let token = if index % 2 == 0 { "jane" } else { "nobody" };
        sending.spawn(async move { (token, get(&proxy, token, &index.to_string()).await) });
    }
    for (token, code) in sending.join_all().await {
        assert_eq!(code, if token == "jane" { 200 } else { 401 }, "{token}");
    }
    assert_eq!(reviews(&upstream), 2);
    assert_eq!(get(&proxy, "jane", "again").await, 200);
    assert_eq!(get(&proxy, "nobody", "again").await, 401);
    assert_eq!(reviews(&upstream), 2);
}

#[tokio::test]
async fn a_ttl_of_zero_disables_the_cache() {
    let upstream = reviewing(Duration::ZERO).await;
    let proxy = Builder::new(upstream.addr)
        .flag("--authentication-token-review")
        .flag("--api-audiences=api,other")
        .flag("--authentication-token-review-cache-authenticated-ttl=0s")
        .flag("--authentication-token-review-cache-unauthenticated-ttl=0s")
        .start()
        .await;
    for round in 1..=2 {
        assert_eq!(get(&proxy, "jane", "a").await, 200);
        assert_eq!(get(&proxy, "nobody", "b").await, 401);
        assert_eq!(reviews(&upstream), 2 * round);
    }
}

#[tokio::test]
async fn an_unreachable_api_server_is_not_a_denial() {
    let upstream = reviewing(Duration::ZERO).await;
    let proxy = proxy(&upstream, "request-header").await;
    assert_eq!(get(&proxy, "jane", "before").await, 200);
    let addr = upstream.addr;
    upstream.stop().await;
    assert_eq!(get(&proxy, "tom", "down").await, 503);
    let events = proxy.audit_log().wait("down", 1).await;
    assert_eq!((events[0].code(), events[0].stage()), (503, "ResponseStarted"));
    assert_eq!(events[0].text("/user/username"), "");
    // A denied review does not mean that the token is invalid.
    let forbidding =
        FakeUpstream::start_on(addr, Protocols::Http2, |_| async { json(403, "{}") }).await;
    assert_eq!(get(&proxy, "tom", "forbidden").await, 503);
    let says_why = || proxy.process.stderr().contains("system:auth-delegator").then_some(());
    wait_for("a hint at the right that is missing", says_why).await;
    assert_eq!(reviews(&forbidding), 1, "failures are not cached, and sent once");
}

/// The same responses are retried as in kube-apiserver.
#[tokio::test]
async fn token_reviews_are_retried_like_in_kube_apiserver() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let tries = Arc::clone(&counted);
        async move {
            if request.uri().path() != REVIEWS {
                return json(200, "{}");
            }
            let body = request.into_body().collect().await?.to_bytes();
            let question: Value = serde_json::from_slice(&body)?;
            let tried = tries.fetch_add(1, Ordering::SeqCst);
            let user = json!({"authenticated": true, "user": {"username": "u"}});
            match (question["spec"]["token"].as_str().unwrap_or(""), tried) {
                ("asked-later", 0) => json(503, "{}").map(|mut answer| {
                    answer.headers_mut().insert("retry-after", "1".parse().unwrap());
                    answer
                }),
                ("overloaded", 0) => json(429, "{}"),
                ("late", 0) => json(504, "{}"),
                ("broken", 0) => Err("broken off".into()),
                ("always-500", _) => json(500, "{}"),
                ("unavailable", _) => json(503, "{}"),
                _ => json(201, json!({"status": user}).to_string()),
            }
        }
    })
    .await;
    let proxy = Builder::new(upstream.addr).flag("--authentication-token-review").start().await;
    for (token, code, expected, longer) in [
        ("asked-later", 200, 2, 1000),
        ("overloaded", 200, 2, 500),
        ("late", 200, 2, 500),
        ("broken", 200, 2, 500),
        ("always-500", 503, 5, 500 + 750 + 1125 + 1687),
        ("unavailable", 503, 1, 0),
    ] {
        tries.store(0, Ordering::SeqCst);
        let start = Instant::now();
        assert_eq!(get(&proxy, token, token).await, code, "{token}");
        assert_eq!(tries.load(Ordering::SeqCst), expected, "{token}");
        assert!(start.elapsed() >= Duration::from_millis(longer), "{token}: {:?}", start.elapsed());
    }
    let (_, metrics) = client::admin(proxy.admin, "/metrics").await.unwrap();
    for line in [
        "apiserver_delegated_authn_request_total{code=\"500\"} 5",
        "apiserver_delegated_authn_request_total{code=\"429\"} 1",
        "apiserver_delegated_authn_request_total{code=\"<error>\"} 1",
        "authentication_token_cache_fetch_total{status=\"ok\"} 4",
        "authentication_token_cache_fetch_total{status=\"error\"} 2",
        "authentication_token_cache_active_fetch_count{status=\"in_flight\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
}

/// kube-apiserver's flags: TokenReviews are sent to another server, to exactly its URL, in its
/// version.
#[tokio::test]
async fn token_reviews_are_sent_to_a_webhook_instead_of_the_api_server() {
    let webhook = FakeUpstream::start(Protocols::Http1, |request| async {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let question: Value = serde_json::from_slice(&body)?;
        let version = question["apiVersion"].as_str().unwrap_or("").to_owned();
        let status = json!({"authenticated": true, "user": {"username": version, "uid": path}});
        json(200, json!({"status": status}).to_string())
    })
    .await;
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let ca = crate::support::corpus::pki("ca.crt");
    let builder = Builder::new(upstream.addr);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
         clusters: [{{name: a, cluster: {{server: 'https://{}/authenticate', \
         certificate-authority: '{}'}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{}}}}]\n",
        webhook.addr,
        ca.display()
    );
    let file = builder.dir().write("webhook.yaml", &kubeconfig);
    let proxy = builder
        .flag(&format!("--authentication-token-webhook-config-file={}", file.display()))
        .start()
        .await;
    for id in ["first", "remembered"] {
        assert_eq!(get(&proxy, "t", id).await, 200);
        let event = &proxy.audit_log().wait_end(id).await[0];
        let expected = ("authentication.k8s.io/v1beta1", "/authenticate");
        assert_eq!((event.text("/user/username"), event.text("/user/uid")), expected);
    }
    assert_eq!(webhook.seen().len(), 1);
    assert!(webhook.seen()[0].all("x-remote-user").is_empty());
    assert!(upstream.seen().iter().all(|seen| seen.target == TARGET));
}
