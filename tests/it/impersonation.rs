//! Impersonation that the proxy authorizes with SubjectAccessReviews.

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json as value};
use std::sync::{Arc, Mutex};

use crate::support::http1::{self, Answer};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, Seen, json};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

const VERSION: &str = "/version";

type Asked = Arc<Mutex<Vec<Value>>>;

/// Returns an API server that allows everyone to impersonate users, groups and so on, except names
/// that begin with `system:` or `forbidden`.
async fn reviewing() -> (FakeUpstream, Asked) {
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let log = Arc::clone(&log);
        async move { review(request, &log).await }
    })
    .await;
    (upstream, asked)
}

async fn review(request: Request<Incoming>, log: &Asked) -> Answered {
    match request.uri().path() {
        REVIEWS => {}
        VERSION => return json(200, r#"{"major":"1","minor":"35"}"#),
        _ => return json(200, "{}"),
    }
    let body = request.into_body().collect().await?.to_bytes();
    let mut review: Value = serde_json::from_slice(&body)?;
    log.lock().unwrap().push(review["spec"].clone());
    let attributes = &review["spec"]["resourceAttributes"];
    let name = attributes["name"].as_str().unwrap_or("").to_owned();
    if name == "broken" {
        return json(500, "{}");
    }
    // Only the verb `impersonate` is allowed here.
    let is_classic = attributes["verb"] == "impersonate";
    let is_allowed = is_classic && !name.starts_with("system:") && !name.starts_with("forbidden");
    review["status"] =
        value!({"allowed": is_allowed, "reason": if is_allowed { "" } else { "no" }});
    json(201, review.to_string())
}

async fn as_other(proxy: &Proxy, id: &str, lines: &[&str]) -> Answer {
    let id = format!("Audit-ID: {id}");
    let lines = [&[id.as_str()], lines].concat();
    http1::get(proxy.addr, Some("alice"), TARGET, &lines).await.unwrap()
}

fn forwarded(upstream: &FakeUpstream) -> Vec<Seen> {
    let mut seen = upstream.take_seen();
    seen.retain(|seen| ![REVIEWS, VERSION].contains(&seen.target.as_str()));
    seen
}

#[tokio::test]
async fn an_allowed_impersonation_sends_only_the_resolved_identity() {
    let (upstream, asked) = reviewing().await;
    let proxy = Builder::new(upstream.addr).identity("impersonate").start().await;
    let lines = [
        "Impersonate-User: bob",
        "Impersonate-Group: ops",
        "Impersonate-Group: qa",
        "Impersonate-Uid: 7",
        "Impersonate-Extra-Acme.com%2fProject: p",
    ];
    let answer = as_other(&proxy, "allowed", &lines).await;
    assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let seen = forwarded(&upstream);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].all("impersonate-user"), ["bob"]);
    assert_eq!(seen[0].all("impersonate-group")[..2], ["ops", "qa"]);
    assert_eq!(seen[0].all("impersonate-uid"), ["7"]);
    assert_eq!(seen[0].all("impersonate-extra-acme.com%2fproject"), ["p"]);
    let credential = "impersonate-extra-authentication.kubernetes.io%2fcredential-id";
    assert!(seen[0].all(credential).is_empty(), "alice's certificate is not bob's");

    let events = proxy.audit_log().wait_end("allowed").await;
    assert_eq!(events[0].value.get("impersonatedUser"), None);
    let expected = value!({
        "username": "bob", "uid": "7", "groups": ["ops", "qa", "system:authenticated"],
        "extra": {"acme.com/project": ["p"]},
    });
    assert_eq!(events[1].value["impersonatedUser"], expected);
    assert_eq!(events[1].text("/user/username"), "alice");

    let asked = asked.lock().unwrap().clone();
    let classic = |resource: &str| {
        let mut of = asked.iter().filter(|spec| {
            let attributes = &spec["resourceAttributes"];
            attributes["verb"] == "impersonate" && attributes["resource"] == resource
        });
        of.next().is_some() || panic!("{resource} was not asked for: {asked:?}")
    };
    assert!(["users", "groups", "uids", "userextras"].into_iter().all(classic));
    assert!(asked.iter().all(|spec| spec["user"] == "alice" && spec["groups"][0] == "dev"));
}

#[tokio::test]
async fn a_denied_impersonation_is_a_recorded_403_and_is_not_forwarded() {
    let (upstream, _) = reviewing().await;
    let proxy = Builder::new(upstream.addr).identity("impersonate").start().await;
    let cases: [(&[&str], &str); 3] = [
        (&["Impersonate-User: forbidden-fred"], "forbidden-fred"),
        (&["Impersonate-User: bob", "Impersonate-Group: system:masters"], "system:masters"),
        (&["Impersonate-User: bob", "Impersonate-Extra-Scopes: forbidden"], "forbidden"),
    ];
    for (number, (lines, name)) in cases.into_iter().enumerate() {
        let id = format!("refused-{number}");
        let answer = as_other(&proxy, &id, lines).await;
        assert_eq!(answer.head.status, 403, "{lines:?}");
        let status = answer.json();
        assert_eq!(status["reason"], "Forbidden");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("\"alice\" cannot impersonate"), "{message}");
        assert!(message.contains(name), "{message}");
        assert!(forwarded(&upstream).is_empty(), "{lines:?}");
        let events = proxy.audit_log().wait_end(&id).await;
        assert_eq!(events[1].code(), 403);
        assert_eq!(events[1].text("/responseStatus/message"), message);
        assert_eq!(events[1].value.get("impersonatedUser"), None);
    }
}

#[tokio::test]
async fn impersonation_is_denied_while_the_api_server_cannot_review_it() {
    let (upstream, _) = reviewing().await;
    let proxy = Builder::new(upstream.addr).identity("impersonate").start().await;
    let answer = as_other(&proxy, "unsure", &["Impersonate-User: broken"]).await;
    assert!(answer.head.status >= 400, "{}", answer.head.status);
    assert!(forwarded(&upstream).is_empty());
    let events = proxy.audit_log().wait_end("unsure").await;
    assert_eq!(events[1].code(), u64::from(answer.head.status));
    assert_eq!(events[1].value.get("impersonatedUser"), None);
}

/// A cached permission does not apply to another caller or another name.
#[tokio::test]
async fn a_cached_review_applies_to_one_caller_and_one_name() {
    let (upstream, asked) = reviewing().await;
    let proxy = Builder::new(upstream.addr).identity("impersonate").start().await;
    as_other(&proxy, "one", &["Impersonate-User: bob"]).await;
    let first = asked.lock().unwrap().len();
    as_other(&proxy, "two", &["Impersonate-User: bob"]).await;
    assert_eq!(asked.lock().unwrap().len(), first, "an allowed impersonation is cached");
    as_other(&proxy, "three", &["Impersonate-User: carl"]).await;
    let other = asked.lock().unwrap().len();
    assert!(other > first);
    let lines = ["Impersonate-User: bob"];
    http1::get(proxy.addr, Some("bob"), TARGET, &lines).await.unwrap();
    assert!(asked.lock().unwrap().len() > other, "another client is authorized separately");
}

/// In request-header mode the API server authorizes impersonation; after a denial the event has no
/// impersonated user.
#[tokio::test]
async fn a_denial_by_the_api_server_records_no_impersonated_user() {
    let refusal = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"users \"bob\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope","reason":"Forbidden","details":{"name":"bob","kind":"users"},"code":403}"#;
    let upstream =
        FakeUpstream::start(Protocols::Http2, move |_| async move { json(403, refusal) }).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let answer = as_other(&proxy, "no", &["Impersonate-User: bob"]).await;
    assert_eq!(answer.head.status, 403);
    let events = proxy.audit_log().wait_end("no").await;
    assert_eq!(events[1].code(), 403);
    assert_eq!(events[1].value.get("impersonatedUser"), None);
    assert_eq!(events[1].text("/responseStatus/details/kind"), "users");
}
