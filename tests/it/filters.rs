//! The request filters compared with recordings of a kube-apiserver 1.36.2 with the same flags:
//! responses, headers and audit events for 400, 429, 504 and CORS.

mod goaway;
mod in_flight;
mod live;
mod recorded;
mod timeouts;

use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use hyper::body::Incoming;

use crate::support::client::{self, Short};
use crate::support::proxy::Builder;
use crate::support::upstream::{Answered, FakeUpstream, Protocols, full, json};
use crate::support::{http1, in_time};
use recorded::Recorded;

const POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: RequestResponse\n";
const LIST: &str = "/api/v1/namespaces/default/configmaps";
const ORIGIN: &str = "Origin: https://console.example.com";
const CORS: &str = r"--cors-allowed-origins=^https://console\.example\.com(:|$)";
const HSTS: &str = "--strict-transport-security-directives=max-age=31536000,includeSubDomains";

/// Responds like an API server without filters, but never to a POST.
async fn answer(request: Request<Incoming>) -> Answered {
    if request.method() == http::Method::POST {
        std::future::pending::<()>().await;
    }
    let mut response = json(200, r#"{"kind":"ConfigMapList","apiVersion":"v1","items":[]}"#)?;
    let cache = http::HeaderValue::from_static("no-cache, private");
    response.headers_mut().insert("cache-control", cache);
    Ok(response)
}

#[tokio::test]
async fn responses_before_authentication_are_as_recorded() {
    let upstream = FakeUpstream::start(Protocols::Http2, answer).await;
    let builder = Builder::new(upstream.addr).policy(POLICY).flag(CORS).flag(HSTS);
    let mut proxy = builder.start().await;
    let cases = Recorded::all().into_iter().filter(|case| !matches!(case.status, 429 | 504));
    let cases: Vec<_> = cases.collect();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut log = proxy.audit_log();
    for case in &cases {
        let response = case.send(proxy.addr).await;
        case.check_response(&response);
        case.check_events(&mut log).await;
    }
    let preflights = cases.iter().filter(|case| case.status == 204).count() as u64;
    assert_eq!(proxy.metric("kube_audit_proxy_cors_preflights_total").await, preflights);
    // Preflights never reach the API server.
    assert!(upstream.seen().iter().all(|seen| seen.method == "GET"), "{:?}", upstream.seen());
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn too_many_requests_are_as_recorded() {
    let upstream = FakeUpstream::start(Protocols::Http2, answer).await;
    let builder = Builder::new(upstream.addr).policy(POLICY).flag(CORS).flag(HSTS);
    let builder = builder.flag("--max-mutating-requests-inflight=1");
    let mut proxy = builder.flag("--max-requests-inflight=1").start().await;
    let mut first = http1::Connection::open(proxy.addr, Some("alice")).await.unwrap();
    first.send(&http1::request("POST", LIST, &[], b"{}")).await.unwrap();
    let waited = || (!upstream.seen().is_empty()).then_some(());
    crate::support::wait_for("the first request upstream", waited).await;

    let cases: Vec<_> = Recorded::all().into_iter().filter(|case| case.status == 429).collect();
    assert_eq!(cases.len(), 3);
    let responses = cases.iter().map(|case| case.send(proxy.addr));
    let responses = futures_util::future::join_all(responses).await;
    let mut log = proxy.audit_log();
    for (case, response) in cases.iter().zip(&responses) {
        case.check_response(response);
        case.check_events(&mut log).await;
    }
    let rejected = "kube_audit_proxy_max_in_flight_rejections_total{request_kind=\"mutating\"}";
    assert_eq!(proxy.metric(rejected).await, 3);
    // Other kinds have limits of their own, and a watch has none.
    let read = http1::get(proxy.addr, Some("alice"), LIST, &[]).await.unwrap();
    assert_eq!(read.head.status, 200);
    drop(first);
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn a_timeout_is_as_recorded() {
    let upstream = FakeUpstream::start(Protocols::Http2, answer).await;
    let builder = Builder::new(upstream.addr).policy(POLICY).flag(CORS).flag(HSTS);
    let mut proxy = builder.flag("--request-timeout=300ms").start().await;
    let case = Recorded::all().into_iter().find(|case| case.status == 504).unwrap();
    let response = case.send(proxy.addr).await;
    case.check_response(&response);
    let mut log = proxy.audit_log();
    let events = case.check_events(&mut log).await;
    // Unlike kube-apiserver, the proxy does not know whether the request was processed.
    let annotation = events[1].text("/annotations/kube-audit-proxy~1outcome-unknown");
    assert!(annotation.contains("may have been processed"), "{annotation:?}");
    let timeouts = "kube_audit_proxy_request_timeouts_total{response=\"none\"}";
    assert_eq!(proxy.metric(timeouts).await, 1);
    assert!(proxy.stop().await.success());
}

/// Headers set by the API server are replaced if CORS is enabled, and kept otherwise.
#[tokio::test]
async fn headers_of_the_api_server_and_of_filters_do_not_add_up() {
    let count = AtomicUsize::new(0);
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            let response = http::Response::builder()
                .header("access-control-allow-origin", "https://of-the-api-server")
                .header("access-control-expose-headers", format!("Number-{number}"))
                .header("strict-transport-security", "max-age=1");
            Ok(response.body(full("{}"))?)
        }
    })
    .await;
    let builder = Builder::new(upstream.addr).flag(CORS).flag(HSTS);
    let proxy = builder.start().await;
    let get = |headers: &'static [&'static str]| async move {
        let response = http1::get(proxy.addr, Some("alice"), LIST, headers);
        in_time("a response", response).await.unwrap().head
    };
    let allowed = get(&[ORIGIN]).await;
    assert_eq!(allowed.all("access-control-allow-origin"), ["https://console.example.com"]);
    assert_eq!(allowed.all("access-control-expose-headers"), ["Date"]);
    assert_eq!(allowed.all("strict-transport-security"), ["max-age=1"]);
    let other = get(&[]).await;
    assert_eq!(other.all("access-control-allow-origin"), ["https://of-the-api-server"]);
    assert_eq!(other.all("access-control-expose-headers"), ["Number-1"]);
}

/// A response of the proxy itself to HEAD has the headers of a response with a body, but no body.
/// (HTTP/2 clients treat a body as a protocol error.)
#[tokio::test]
async fn responses_to_head_have_no_body() {
    let upstream = FakeUpstream::start(Protocols::Http2, answer).await;
    let builder = Builder::new(upstream.addr).flag("--anonymous-auth=false");
    let proxy = builder.flag("--max-mutating-requests-inflight=1").start().await;
    let mut first = http1::Connection::open(proxy.addr, None).await.unwrap();
    let token = ["Authorization: Bearer carol-token"];
    first.send(&http1::request("POST", LIST, &token, b"{}")).await.unwrap();
    let waited = || (!upstream.seen().is_empty()).then_some(());
    crate::support::wait_for("the first request upstream", waited).await;

    let mut sender = client::http2::<Short>(proxy.addr, None).await.unwrap();
    for (token, target, status, length) in [
        ("nope", LIST, 401, "129"),
        // For non-resource requests, the verb is "head", which is not a read-only verb.
        ("carol-token", "/version", 429, "43"),
        ("carol-token", "/api/v1/nodes?timeout=x", 400, "190"),
    ] {
        let request = Request::head(format!("https://kubernetes{target}"));
        let request = request.header("authorization", format!("Bearer {token}"));
        sender.ready().await.unwrap();
        let response = sender.send_request(request.body(Short::default()).unwrap());
        let response = in_time("a response", response).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-length"], length, "{status}");
        assert_eq!(client::whole(response).await.unwrap(), "", "{status}");
    }
}
