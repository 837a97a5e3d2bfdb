//! `authorization.k8s.io/*` annotations, with SubjectAccessReviews of a fake API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::audit_log::Event;
use crate::support::http1;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const PODS: &str = "/api/v1/namespaces/team-a/pods";
const DECISION: &str = "/annotations/authorization.k8s.io~1decision";
const REASON: &str = "/annotations/authorization.k8s.io~1reason";

/// Allows every review, with a reason that repeats its contents, and counts the reviews.
struct Authorizer {
    upstream: FakeUpstream,
    reviews: Arc<AtomicUsize>,
    /// Whether reviews get no response until `go_on` is called.
    hangs: Arc<AtomicBool>,
    go_on: Arc<Notify>,
}

async fn authorizer() -> Authorizer {
    let (reviews, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let go_on = Arc::new(Notify::new());
    let shared = (Arc::clone(&reviews), Arc::clone(&hangs), Arc::clone(&go_on));
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let (reviews, hangs, go_on) = shared.clone();
        async move {
            let path = request.uri().path().to_owned();
            if path != REVIEWS {
                return match path.as_str() {
                    "/forbidden" => json(403, forbidden("alice", ": RBAC: no role")),
                    _ => json(200, "{}"),
                };
            }
            let body = request.into_body().collect().await?.to_bytes();
            let review: Value = serde_json::from_slice(&body)?;
            let spec = &review["spec"];
            let is_own = spec["resourceAttributes"]["verb"] == "impersonate";
            if !is_own {
                reviews.fetch_add(1, Ordering::SeqCst);
                if hangs.load(Ordering::SeqCst) {
                    go_on.notified().await;
                }
            }
            let user = spec["user"].as_str().unwrap_or_default();
            let what = match &spec["resourceAttributes"] {
                Value::Null => spec["nonResourceAttributes"].to_string(),
                resource => resource.to_string(),
            };
            let status = match user {
                "bob" => json!({"allowed": false, "reason": "no"}),
                _ => json!({"allowed": true, "reason": format!("{user} {what}")}),
            };
            json(201, json!({"kind": "SubjectAccessReview", "status": status}).to_string())
        }
    })
    .await;
    Authorizer { upstream, reviews, hangs, go_on }
}

fn forbidden(user: &str, reason: &str) -> String {
    let message = format!("forbidden: User \"{user}\" cannot get path \"/forbidden\"{reason}");
    // In kube-apiserver's order.
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":{},"reason":"Forbidden","details":{{}},"code":403}}"#,
        Value::from(message)
    )
}

async fn proxy(authorizer: &Authorizer, timeout: &str) -> Proxy {
    Builder::new(authorizer.upstream.addr)
        .identity("impersonate")
        .flag("--constrained-impersonation=false")
        .flag("--audit-authorization-annotations")
        .flag(&format!("--audit-authorization-timeout={timeout}"))
        .start()
        .await
}

async fn request(proxy: &Proxy, user: &str, target: &str, id: &str, lines: &[&str]) -> Event {
    let id_line = format!("Audit-ID: {id}");
    let lines = [&[id_line.as_str()], lines].concat();
    http1::get(proxy.addr, Some(user), target, &lines).await.unwrap();
    proxy.audit_log().wait_end(id).await.pop().unwrap()
}

async fn missing(proxy: &Proxy, reason: &str) -> u64 {
    let name = "kube_audit_proxy_authorization_annotations_missing_total";
    proxy.metric(&format!("{name}{{reason=\"{reason}\"}}")).await
}

fn annotations(event: &Event) -> (&str, &str) {
    (event.text(DECISION), event.text(REASON))
}

#[tokio::test]
async fn the_reason_is_that_of_the_user_and_the_attributes() {
    let authorizer = authorizer().await;
    let proxy = proxy(&authorizer, "20s").await;
    let list =
        r#"{"group":"","namespace":"team-a","resource":"pods","verb":"list","version":"v1"}"#;
    let event = request(&proxy, "alice", PODS, "list", &[]).await;
    assert_eq!(annotations(&event), ("allow", &*format!("alice {list}")));
    let log = "/api/v1/namespaces/team-a/pods/p/log?follow=true";
    let event = request(&proxy, "alice", log, "log", &[]).await;
    let subresource = r#"{"group":"","name":"p","namespace":"team-a","resource":"pods","subresource":"log","verb":"get","version":"v1"}"#;
    assert_eq!(annotations(&event), ("allow", &*format!("alice {subresource}")));
    // A long-running request has them from its first response on.
    let events = proxy.audit_log().of("log");
    let started = events.iter().find(|event| event.stage() == "ResponseStarted").unwrap();
    assert_eq!(annotations(started), annotations(&event));
    let received = events.iter().find(|event| event.stage() == "RequestReceived").unwrap();
    assert_eq!(received.at(DECISION), None);
    let event = request(&proxy, "alice", "/version", "path", &[]).await;
    assert_eq!(annotations(&event), ("allow", r#"alice {"path":"/version","verb":"get"}"#));
    let event = request(&proxy, "admin", PODS, "as", &["Impersonate-User: carol"]).await;
    assert_eq!(annotations(&event), ("allow", &*format!("carol {list}")));
    // A denial follows from the response.
    let event = request(&proxy, "alice", "/forbidden", "no", &[]).await;
    assert_eq!((event.code(), annotations(&event)), (403, ("forbid", "RBAC: no role")));
    // A review that the response contradicts is not recorded.
    let event = request(&proxy, "admin", PODS, "bob", &["Impersonate-User: bob"]).await;
    assert_eq!((event.code(), event.at(DECISION)), (200, None));
    assert_eq!(missing(&proxy, "contradiction").await, 1);
    // Repeated requests need no review.
    let before = authorizer.reviews.load(Ordering::SeqCst);
    request(&proxy, "alice", PODS, "again", &[]).await;
    assert_eq!(authorizer.reviews.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_review_delays_a_request_only_until_its_timeout() {
    let authorizer = authorizer().await;
    let proxy = proxy(&authorizer, "200ms").await;
    authorizer.hangs.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let event = request(&proxy, "alice", PODS, "late", &[]).await;
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!((event.code(), event.at(DECISION), event.at(REASON)), (200, None, None));
    assert_eq!(missing(&proxy, "timeout").await, 1);
    // The next request shares the review in flight.
    request(&proxy, "alice", PODS, "later", &[]).await;
    assert_eq!(authorizer.reviews.load(Ordering::SeqCst), 1);
    authorizer.hangs.store(false, Ordering::SeqCst);
    authorizer.go_on.notify_waiters();
    let start = Instant::now();
    loop {
        let id = format!("in-time-{}", start.elapsed().as_nanos());
        if request(&proxy, "alice", PODS, &id, &[]).await.text(DECISION) == "allow" {
            break;
        }
        assert!(start.elapsed() < crate::support::DEADLINE);
    }
}

#[tokio::test]
async fn a_request_that_was_not_forwarded_has_no_decision() {
    let authorizer = authorizer().await;
    let mut proxy = proxy(&authorizer, "20s").await;
    authorizer.upstream.stop().await;
    let event = request(&proxy, "alice", PODS, "down", &[]).await;
    assert_eq!((event.code(), event.at(DECISION), event.at(REASON)), (503, None, None));
    assert_eq!(missing(&proxy, "error").await, 0);
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn the_flag_needs_credentials_of_the_proxys_own() {
    let builder = Builder::new("127.0.0.1:1".parse().unwrap()).identity("pass-through");
    let (code, log) = builder.flag("--audit-authorization-annotations").run_to_end().await;
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("needs credentials of the proxy's own"), "{log}");
}
