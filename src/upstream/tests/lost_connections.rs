//! HTTP/2 connections that are lost under a request.

use api_client::ApiRequest;

use super::raw_http2::Raw;
use super::*;

/// Returns a server that loses the first `lost` connections when a request has come on them, and
/// responds on the others; and the number of requests so far.
async fn losing(lost: usize) -> (Upstream, Arc<AtomicUsize>) {
    let listener = Listener::new(&["h2"]).await;
    let (upstream, _) = listener.client();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        for number in 0.. {
            let mut raw = Raw::accept(&listener).await;
            let (stream, _) = raw.request().await;
            count.fetch_add(1, Ordering::SeqCst);
            if number >= lost {
                raw.answer(stream, b"ok").await;
                // The connection stays.
                tokio::spawn(async move {
                    let _raw = raw;
                    std::future::pending::<()>().await;
                });
            }
        }
    });
    (upstream, requests)
}

#[tokio::test]
async fn a_read_is_sent_once_more_on_a_new_connection() {
    let (upstream, requests) = losing(1).await;
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    let (upstream, requests) = losing(2).await;
    let error = upstream.send(get("/")).await.unwrap_err();
    assert!(matches!(error, SendError::Interrupted { .. }), "{error}");
    assert!(error.is_outcome_unknown());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_body_that_was_kept_is_sent_once_more_and_a_broken_one_is_not() {
    let (upstream, requests) = losing(1).await;
    let mut request = get("/");
    *request.body_mut() = clients_body(&["with ", "a body"], true).await;
    assert_eq!(text(upstream.send(request).await.unwrap()).await, "ok");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_write_is_not_retried() {
    let (upstream, requests) = losing(1).await;
    let error = upstream.send(post("/", RequestBody::EMPTY)).await.unwrap_err();
    assert!(matches!(error, SendError::Interrupted { .. }), "{error}");
    assert!(error.is_outcome_unknown() && !error.retry_safe());
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    // But a review of the proxy's own is, although it is a POST.
    let (upstream, requests) = losing(1).await;
    let review = ApiRequest::post("/review", Bytes::new());
    let response = upstream.api().request(&review).await.unwrap();
    assert_eq!((response.status().as_u16(), requests.load(Ordering::SeqCst)), (200, 2));
}

#[tokio::test]
async fn a_write_is_sent_if_the_connection_is_lost_before_it() {
    // The TLS handshake, and after it the HTTP/2 settings.
    for shakes_hands in [false, true] {
        let listener = Listener::new(&["h2"]).await;
        let (upstream, _) = listener.client();
        tokio::spawn(async move {
            match shakes_hands {
                true => drop(listener.accept().await),
                false => drop(listener.tcp.accept().await.unwrap()),
            }
            let mut raw = Raw::accept(&listener).await;
            let (stream, _) = raw.request().await;
            raw.answer(stream, b"ok").await;
            std::future::pending::<()>().await;
        });
        let sent = upstream.send(post("/", RequestBody::EMPTY)).await;
        assert_eq!(text(sent.unwrap()).await, "ok", "{shakes_hands}");
    }
}
