//! The API server rejects the proxy's own credentials, or denies it a review.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::support::http1::{self, Answer};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{DEADLINE, client};

const LIST: &str = "/api/v1/namespaces/team-a/configmaps";
const LOG: &str = "/api/v1/namespaces/team-a/pods/p/log";
const EXEC: &str = "/api/v1/namespaces/team-a/pods/p/exec?command=ls";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const DENIED: &str = "/annotations/kube-audit-proxy~1upstream-access-denied";

/// Responds to paths with this prefix with the status code, unless it is 0.
async fn denying(path: &'static str) -> (FakeUpstream, Arc<AtomicU16>) {
    let code = Arc::new(AtomicU16::new(0));
    let shared = Arc::clone(&code);
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let code = shared.load(Ordering::SeqCst);
        let is_denied = request.uri().path().starts_with(path) && code != 0;
        async move { json(if is_denied { code } else { 200 }, "{}") }
    })
    .await;
    (upstream, code)
}

async fn get(proxy: &Proxy, target: &str, lines: &[&str]) -> Answer {
    http1::get(proxy.addr, Some("alice"), target, lines).await.unwrap()
}

async fn ready(proxy: &Proxy) -> (u16, String) {
    client::admin(proxy.admin, "/readyz").await.unwrap()
}

async fn becomes_ready(proxy: &Proxy) {
    let start = Instant::now();
    while ready(proxy).await.0 != 200 {
        assert!(start.elapsed() < DEADLINE, "{:?}", ready(proxy).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn denials(proxy: &Proxy, access: &str) -> u64 {
    let name = "kube_audit_proxy_upstream_access_denied_total";
    proxy.metric(&format!("{name}{{access=\"{access}\"}}")).await
}

#[tokio::test]
async fn a_401_for_the_proxys_credentials_is_a_503() {
    for identity in ["impersonate", "request-header"] {
        let (upstream, code) = denying("/").await;
        let proxy = Builder::new(upstream.addr).identity(identity).start().await;
        assert_eq!(get(&proxy, LIST, &[]).await.head.status, 200);
        becomes_ready(&proxy).await;
        code.store(401, Ordering::SeqCst);
        let upgrade = ["Connection: Upgrade", "Upgrade: SPDY/3.1"];
        let requests: [(&str, &str, &[&str]); 3] =
            [("list", LIST, &[]), ("log", LOG, &[]), ("exec", EXEC, &upgrade)];
        for (id, target, lines) in requests {
            let header = format!("Audit-ID: {id}");
            let answer = get(&proxy, target, &[lines, &[header.as_str()]].concat()).await;
            assert_eq!(answer.head.status, 503, "{identity} {id}");
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains("the proxy's own credentials (401), not yours"), "{message}");
            let event = proxy.audit_log().wait_end(id).await.pop().unwrap();
            assert_eq!(event.code(), 503);
            assert_eq!(event.text("/responseStatus/message"), message);
            assert_eq!(event.text(DENIED), message);
        }
        assert_eq!(denials(&proxy, "forward").await, 3);
        let (status, text) = ready(&proxy).await;
        assert_eq!(status, 500);
        assert!(text.contains("[-]upstream-access failed: the API server rejected"), "{text}");
        let log = proxy.process.logs("own credentials (401)").await;
        let warnings = log.lines().filter(|line| line.contains("own credentials (401)"));
        assert_eq!(warnings.count(), 1, "{log}");
        code.store(0, Ordering::SeqCst);
        becomes_ready(&proxy).await;
    }
}

#[tokio::test]
async fn a_401_from_an_aggregated_server_is_forwarded() {
    let (upstream, code) = denying("/api/v1/namespaces/team-a/pods/p/log").await;
    let proxy = Builder::new(upstream.addr).start().await;
    code.store(401, Ordering::SeqCst);
    assert_eq!(get(&proxy, LOG, &[]).await.head.status, 401);
    assert_eq!(denials(&proxy, "forward").await, 0);
    becomes_ready(&proxy).await;
}

#[tokio::test]
async fn a_401_for_forwarded_credentials_is_forwarded() {
    let (upstream, code) = denying("/").await;
    let proxy = Builder::new(upstream.addr).identity("pass-through").start().await;
    code.store(401, Ordering::SeqCst);
    let request = http1::request("GET", LIST, &["Authorization: Bearer carol-token"], b"");
    let answer = http1::exchange(proxy.addr, None, &request).await.unwrap();
    assert_eq!(answer.head.status, 401);
    assert_eq!(denials(&proxy, "forward").await, 0);
}

#[tokio::test]
async fn denied_reviews_name_what_is_missing() {
    let (upstream, code) = denying(REVIEWS).await;
    let proxy = Builder::new(upstream.addr)
        .identity("impersonate")
        .flag("--constrained-impersonation=false")
        .start()
        .await;
    for (status, part) in [(403, "not permitted to create SubjectAccessReviews"), (401, "(401)")] {
        code.store(status, Ordering::SeqCst);
        let id = format!("Audit-ID: review-{status}");
        let answer = get(&proxy, LIST, &["Impersonate-User: jane", &id]).await;
        assert_eq!(answer.head.status, 503);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{message}");
        let event = proxy.audit_log().wait_end(&format!("review-{status}")).await.pop().unwrap();
        assert_eq!((event.code(), event.text(DENIED)), (503, message.as_str()));
        assert_eq!(ready(&proxy).await.0, 500);
    }
    assert_eq!(denials(&proxy, "subjectaccessreview").await, 2);
    code.store(0, Ordering::SeqCst);
    becomes_ready(&proxy).await;
}

#[tokio::test]
async fn denied_token_reviews_name_what_is_missing() {
    let (upstream, code) = denying(TOKENS).await;
    let proxy = Builder::new(upstream.addr).flag("--authentication-token-review").start().await;
    for (status, part) in [(403, "not permitted to create TokenReviews"), (401, "(401)")] {
        code.store(status, Ordering::SeqCst);
        let lines = [format!("Authorization: Bearer unknown-{status}")];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let request = http1::request("GET", LIST, &lines, b"");
        let answer = http1::exchange(proxy.addr, None, &request).await.unwrap();
        assert_eq!(answer.head.status, 503);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{message}");
        assert_eq!(ready(&proxy).await.0, 500);
    }
    let mut log = proxy.audit_log();
    let denied = log.events().iter().filter(|event| event.at(DENIED).is_some()).count();
    assert_eq!(denied, 2);
    code.store(0, Ordering::SeqCst);
    becomes_ready(&proxy).await;
}
