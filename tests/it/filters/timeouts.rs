//! `--request-timeout`, `?timeout=` and `--min-request-timeout`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::LIST;
use crate::support::client::{self, Short};
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::Builder;
use crate::support::upstream::{Answered, FakeUpstream, Protocols, streamed};

/// Reports when it is dropped: when the proxy has reset the stream or closed the connection.
struct Dropped(UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn hang(_: Request<Incoming>, dropped: Dropped) -> Answered {
    std::future::pending::<()>().await;
    drop(dropped);
    Err("it never responds".into())
}

#[tokio::test]
async fn the_query_shortens_the_timeout_and_is_forwarded() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (tell, mut told) = unbounded_channel();
        let handler = move |request| hang(request, Dropped(tell.clone()));
        let upstream = FakeUpstream::start(protocols, handler).await;
        let proxy = Builder::new(upstream.addr).start().await;
        let start = Instant::now();
        let target = format!("{LIST}?timeout=300ms");
        let response = http1::get(proxy.addr, Some("alice"), &target, &["Audit-ID: short"]);
        let response = in_time("the 504", response).await.unwrap();
        assert_eq!(response.head.status, 504, "{protocols:?}");
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
        // On HTTP/1.1 the connection is closed, which the fake does not notice while it responds.
        if protocols == Protocols::Http2 {
            in_time("the end upstream", told.recv()).await.unwrap();
        }
        let events = proxy.audit_log().wait("short", 2).await;
        assert_eq!((events[1].stage(), events[1].code()), ("ResponseComplete", 504));
        // A read cannot have changed anything.
        assert!(events[1].at("/annotations/kube-audit-proxy~1outcome-unknown").is_none());
        // The API server gets the timeout, too.
        assert_eq!(upstream.seen()[0].target, target);
    }
}

#[tokio::test]
async fn the_query_does_not_extend_the_timeout() {
    let (tell, _told) = unbounded_channel();
    let handler = move |request| hang(request, Dropped(tell.clone()));
    let upstream = FakeUpstream::start(Protocols::Http2, handler).await;
    let proxy = Builder::new(upstream.addr).flag("--request-timeout=200ms").start().await;
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    for query in ["timeout=1h", "timeout=0s", "timeout=-1s", ""] {
        let target = format!("{LIST}?{query}");
        let response = in_time(query, client::h2_get(&mut sender, &target, &[])).await.unwrap();
        assert_eq!(response.status(), 504, "{query}");
        let body = client::whole(response).await.unwrap();
        assert!(body.starts_with(b"{\"metadata\":{},\"status\":\"Failure\""), "{body:?}");
    }
}

#[tokio::test]
async fn a_response_in_progress_is_aborted_at_the_deadline() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let senders = Arc::clone(&kept);
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let (sender, body) = streamed();
        let senders = Arc::clone(&senders);
        async move {
            sender.send(Ok(Frame::data(Bytes::from_static(b"the beginning")))).await?;
            senders.lock().unwrap().push(sender);
            Ok(Response::new(body))
        }
    })
    .await;
    let builder = Builder::new(upstream.addr).flag("--request-timeout=2s");
    let proxy = builder.flag("--max-requests-inflight=5").start().await;
    let mut log = proxy.audit_log();

    let mut http1 = Connection::open(proxy.addr, Some("alice")).await.unwrap();
    http1.send(&http1::request("GET", LIST, &["Audit-ID: one"], b"")).await.unwrap();
    let head = in_time("the head", http1.head()).await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(http1.chunk().await.unwrap().unwrap(), b"the beginning");
    assert!(in_time("the end", http1.chunk()).await.is_err(), "as if it were complete");

    let mut http2 = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let response = client::h2_get(&mut http2, LIST, &[("audit-id", "two")]).await.unwrap();
    let error = in_time("the reset", client::whole(response)).await.unwrap_err();
    let error = std::error::Error::source(&error).unwrap().downcast_ref::<h2::Error>().unwrap();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));

    for id in ["one", "two"] {
        let end = &log.wait(id, 2).await[1];
        // kube-apiserver's event has the code that was sent as well.
        assert_eq!((end.stage(), end.code()), ("ResponseComplete", 200));
        let why = end.text("/annotations/kube-audit-proxy~1response-incomplete");
        assert!(why.contains("timed out"), "{why:?}");
    }
    // The stream to the API server is reset.
    let senders = std::mem::take(&mut *kept.lock().unwrap());
    for sender in senders {
        in_time("the end upstream", sender.closed()).await;
    }
    let timeouts = "kube_audit_proxy_request_timeouts_total{response=\"started\"}";
    assert_eq!(proxy.metric(timeouts).await, 2);
}

/// A client that does not read loses its slot, and does not block others.
#[tokio::test]
async fn a_client_that_does_not_read_loses_its_slot_at_the_deadline() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async {
        Ok(Response::new(crate::support::upstream::full(vec![b'x'; 64 << 20])))
    })
    .await;
    let builder = Builder::new(upstream.addr).flag("--request-timeout=2s");
    let proxy = builder.flag("--max-requests-inflight=1").start().await;
    let mut idle = Connection::open(proxy.addr, Some("alice")).await.unwrap();
    idle.send(&http1::request("GET", LIST, &[], b"")).await.unwrap();
    assert_eq!(in_time("the head", idle.head()).await.unwrap().status, 200);
    let current = "kube_audit_proxy_max_in_flight_current{request_kind=\"readOnly\"}";
    let start = Instant::now();
    while proxy.metric(current).await > 0 {
        assert!(start.elapsed() < crate::support::DEADLINE, "the slot is never free");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // When the client reads again, its response is aborted.
    assert!(in_time("the end", idle.exactly(64 << 20)).await.is_err());
}

#[tokio::test]
async fn long_running_requests_have_no_timeout() {
    let (tell, mut told) = unbounded_channel();
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let (sender, body) = streamed();
        tell.send(sender).unwrap();
        async { Ok(Response::new(body)) }
    })
    .await;
    let proxy = Builder::new(upstream.addr).flag("--request-timeout=1s").start().await;
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let target = format!("{LIST}?watch=1&timeout=1ms");
    let response = client::h2_get(&mut sender, &target, &[]).await.unwrap();
    let frames = told.recv().await.unwrap();
    // Another request, which started later, times out meanwhile.
    let other = client::h2_get(&mut sender, LIST, &[]).await.unwrap();
    let _frames_of_other = told.recv().await.unwrap();
    assert!(in_time("the reset", client::whole(other)).await.is_err());
    frames.send(Ok(Frame::data(Bytes::from_static(b"{}")))).await.unwrap();
    drop(frames);
    assert_eq!(in_time("the end", client::whole(response)).await.unwrap(), "{}");
}

#[tokio::test]
async fn watches_end_in_order_if_the_proxy_limits_them() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let senders = Arc::clone(&kept);
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let (sender, body) = streamed();
        senders.lock().unwrap().push(sender);
        async { Ok(Response::new(body)) }
    })
    .await;
    let proxy = Builder::new(upstream.addr).flag("--min-request-timeout=1").start().await;
    let mut log = proxy.audit_log();
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let chosen = format!("{LIST}?watch=1&timeoutSeconds=300");
    let chosen = client::h2_get(&mut sender, &chosen, &[("audit-id", "chosen")]).await.unwrap();
    let target = format!("{LIST}?watch=1");
    let start = Instant::now();
    let watch = client::h2_get(&mut sender, &target, &[("audit-id", "watch")]).await.unwrap();
    assert_eq!(in_time("the end", client::whole(watch)).await.unwrap(), "");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let end = &log.wait("watch", 3).await[2];
    assert_eq!((end.stage(), end.code()), ("ResponseComplete", 200));
    assert!(end.at("/annotations/kube-audit-proxy~1response-incomplete").is_none());
    // The API server enforces the time that a client has chosen.
    assert_eq!(log.of("chosen").len(), 2);
    drop(chosen);
}
