//! The connection to the API server is lost before the response, or the response cannot be parsed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;

use crate::support::http1::{self, Answer};
use crate::support::in_time;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, full, json};

const LIST: &str = "/api/v1/namespaces/team-a/configmaps";
const UNKNOWN: &str = "/annotations/kube-audit-proxy~1outcome-unknown";

async fn ask(proxy: &Proxy, method: &str, id: &str) -> Answer {
    let id = format!("Audit-ID: {id}");
    let request = http1::request(method, LIST, &[&id], if method == "POST" { b"{}" } else { b"" });
    let answer = http1::exchange(proxy.addr, Some("admin"), &request);
    in_time("an answer", answer).await.unwrap()
}

/// Returns the last event of a request, which has the status code of its response.
async fn last_event(proxy: &Proxy, id: &str, answer: &Answer) -> crate::support::audit_log::Event {
    let event = proxy.audit_log().wait_end(id).await.pop().unwrap();
    assert_eq!(event.code(), u64::from(answer.head.status));
    event
}

/// Closes the connection of every other request, including the first, after reading it.
async fn every_other() -> FakeUpstream {
    let count = Arc::new(AtomicUsize::new(0));
    FakeUpstream::start(Protocols::Http1, move |_| {
        let breaks = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        async move { if breaks { Err("broken".into()) } else { json(200, "{}") } }
    })
    .await
}

#[tokio::test]
async fn a_read_is_retried_and_a_write_is_not() {
    let upstream = every_other().await;
    let proxy = Builder::new(upstream.addr).start().await;
    for method in ["GET", "OPTIONS", "HEAD"] {
        let answer = ask(&proxy, method, method).await;
        assert_eq!(answer.head.status, 200, "{method}");
        assert!(last_event(&proxy, method, &answer).await.at(UNKNOWN).is_none());
        assert_eq!(upstream.take_seen().len(), 2, "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = ask(&proxy, method, method).await;
        assert_eq!(answer.head.status, 503, "{method}");
        assert!(String::from_utf8_lossy(&answer.body).contains("may have been processed"));
        // A date, because client-go would retry after a number of seconds.
        assert!(answer.head.get("retry-after").ends_with(" GMT"));
        assert!(answer.json().pointer("/details").is_none());
        let event = last_event(&proxy, method, &answer).await;
        assert!(event.text(UNKNOWN).contains("may have been processed"), "{}", event.line);
        assert_eq!(upstream.take_seen().len(), 1, "{method}");
        // The next request breaks the connection again.
        assert_eq!(ask(&proxy, method, "between").await.head.status, 200);
        upstream.take_seen();
    }
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_503_with_retry_after() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let proxy = Builder::new(upstream.addr).start().await;
    upstream.stop().await;
    let answer = ask(&proxy, "POST", "down").await;
    assert_eq!((answer.head.status, answer.head.get("retry-after")), (503, "1"));
    assert_eq!(answer.json()["details"]["retryAfterSeconds"], 1);
    let event = last_event(&proxy, "down", &answer).await;
    assert!(event.at(UNKNOWN).is_none(), "{}", event.line);
}

#[tokio::test]
async fn an_unparsable_response_does_not_hide_that_the_request_was_processed() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        // More than can be retried. Over HTTP/2 not so much that the connection is closed.
        let length = if protocols == Protocols::Http1 { 1500 << 10 } else { 600 << 10 };
        let upstream = FakeUpstream::start(protocols, move |_| async move {
            let long = "x".repeat(length);
            let response = Response::builder().status(201).header("x-a", &long);
            Ok(response.header("x-b", long).body(full("{}"))?)
        })
        .await;
        let proxy = Builder::new(upstream.addr).start().await;
        for method in ["POST", "GET"] {
            let answer = ask(&proxy, method, method).await;
            assert_eq!(answer.head.status, 503, "{protocols:?}");
            let event = last_event(&proxy, method, &answer).await;
            assert!(event.text(UNKNOWN).contains("cannot be parsed"), "{}", event.line);
        }
        assert_eq!(upstream.seen().len(), 2, "{protocols:?}");
    }
}
