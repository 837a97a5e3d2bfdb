//! Streams of HTTP/2 frame by frame: bodies in both directions, and how they end.

use http_body::Body;

use super::raw_http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, NO_ERROR, RST_STREAM, Raw, WINDOW_UPDATE,
};
use super::*;

/// `:status: 200` of the static table.
const OK: u8 = 0x88;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A 200 that announces `length` bytes: `content-length` is 28 in the static table.
fn head_with_length(length: &str) -> Vec<u8> {
    let mut head = vec![OK, 0x0f, 28 - 15, length.len() as u8];
    head.extend(length.as_bytes());
    head
}

/// Returns a client, and what `serve` does at the other end.
async fn with_server<F, R>(serve: F) -> (Upstream, tokio::task::JoinHandle<R::Output>)
where
    F: FnOnce(Raw) -> R + Send + 'static,
    R: Future<Output: Send> + Send + 'static,
{
    let listener = Listener::new(&["h2"]).await;
    let (upstream, _) = listener.client();
    (upstream, tokio::spawn(async move { serve(Raw::accept(&listener).await).await }))
}

#[tokio::test]
async fn a_response_dropped_early_is_cancelled() {
    let (cancelled, told) = oneshot::channel::<()>();
    let (asked, is_there) = oneshot::channel::<()>();
    let (upstream, server) = with_server(|mut raw| async move {
        let (stream, _) = raw.request().await;
        raw.send(HEADERS, END_HEADERS, stream, &[OK]).await;
        assert_eq!(raw.reach(RST_STREAM).await, (stream, CANCEL.to_vec()));
        cancelled.send(()).unwrap();
        // The same before the response.
        let (stream, _) = raw.request().await;
        asked.send(()).unwrap();
        assert_eq!(raw.reach(RST_STREAM).await, (stream, CANCEL.to_vec()));
    })
    .await;
    drop(upstream.send(get("/watch")).await.unwrap());
    told.await.unwrap();
    tokio::select! {
        _ = upstream.send(get("/slow")) => panic!("an answer that was never sent"),
        there = is_there => there.unwrap(),
    }
    server.await.unwrap();
}

#[tokio::test]
async fn only_read_data_frees_capacity() {
    let (read_now, told) = oneshot::channel::<()>();
    let (upstream, server) = with_server(|mut raw| async move {
        let (stream, _) = raw.request().await;
        raw.send(HEADERS, END_HEADERS, stream, &[OK]).await;
        // The stream's whole window.
        for _ in 0..8 {
            raw.send(DATA, 0, stream, &[b'x'; 16 << 10]).await;
        }
        let quiet = tokio::time::timeout(Duration::from_millis(100), async {
            while raw.reach(WINDOW_UPDATE).await.0 != stream {}
        });
        assert!(quiet.await.is_err(), "there was room without a reader");
        read_now.send(()).unwrap();
        while raw.reach(WINDOW_UPDATE).await.0 != stream {}
        raw.send(DATA, END_STREAM, stream, b"end").await;
        raw
    })
    .await;
    let response = upstream.send(get("/")).await.unwrap();
    told.await.unwrap();
    assert_eq!(text(response).await.len(), (128 << 10) + 3);
    server.await.unwrap();
}

#[tokio::test]
async fn an_early_response_is_complete_although_the_upload_is_rejected() {
    let (upstream, server) = with_server(|mut raw| async move {
        let stream = raw.request_head().await;
        raw.answer(stream, b"too large").await;
        raw.send(RST_STREAM, 0, stream, &NO_ERROR).await;
        let (stream, _) = raw.request().await;
        raw.answer(stream, b"next").await;
        raw
    })
    .await;
    let body = paced_body(vec![Bytes::from_static(b"part")], std::future::pending()).await;
    assert_eq!(text(upstream.send(post("/", body)).await.unwrap()).await, "too large");
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "next");
    server.await.unwrap();
}

#[tokio::test]
async fn an_upload_continues_while_the_response_is_not_read() {
    let (answered, go_on) = oneshot::channel::<()>();
    let (uploaded, told) = oneshot::channel::<()>();
    let (upstream, server) = with_server(|mut raw| async move {
        let stream = raw.request_head().await;
        raw.send(HEADERS, END_HEADERS, stream, &[OK]).await;
        let (same, body) = raw.request().await;
        assert_eq!((same, &body[..]), (stream, &b"part"[..]));
        uploaded.send(()).unwrap();
        raw.send(DATA, END_STREAM, stream, b"thanks").await;
        raw
    })
    .await;
    let ended = async { go_on.await.map_err(|_| ()) };
    let body = paced_body(vec![Bytes::from_static(b"part")], ended).await;
    let response = upstream.send(post("/", body)).await.unwrap();
    answered.send(()).unwrap();
    told.await.unwrap();
    assert_eq!(text(response).await, "thanks");
    server.await.unwrap();
}

#[tokio::test]
async fn an_aborted_upload_and_a_dropped_response_reset_the_stream() {
    let (broken, upload) = oneshot::channel::<()>();
    let (upstream, server) = with_server(|mut raw| async move {
        let stream = raw.request_head().await;
        broken.send(()).unwrap();
        assert_eq!(raw.reach(RST_STREAM).await, (stream, CANCEL.to_vec()));
        // The upload would never end, except for the response, which is not needed.
        let stream = raw.request_head().await;
        raw.send(HEADERS, END_HEADERS, stream, &[OK]).await;
        assert_eq!(raw.reach(RST_STREAM).await, (stream, CANCEL.to_vec()));
    })
    .await;
    let part = || vec![Bytes::from_static(b"part")];
    let body = paced_body(part(), async { upload.await.map_err(|_| ()).and(Err(())) }).await;
    let error = upstream.send(post("/", body)).await.unwrap_err();
    assert!(matches!(error, SendError::BodyFromClient), "{error}");
    let body = paced_body(part(), std::future::pending()).await;
    drop(upstream.send(post("/", body)).await.unwrap());
    server.await.unwrap();
}

#[tokio::test]
async fn an_incomplete_response_is_not_complete() {
    for (how, said) in [
        ("too little", "stream error detected: "),
        ("too much", "stream error detected: "),
        ("reset", "the API server ended the stream before its response"),
        ("closed", "peer closed connection"),
    ] {
        let (upstream, server) = with_server(move |mut raw| async move {
            let (stream, _) = raw.request().await;
            raw.send(HEADERS, END_HEADERS, stream, &head_with_length("5")).await;
            match how {
                "too little" => raw.send(DATA, END_STREAM, stream, b"1234").await,
                "too much" => raw.send(DATA, 0, stream, b"123456").await,
                "reset" => {
                    raw.send(DATA, 0, stream, b"1234").await;
                    raw.send(RST_STREAM, 0, stream, &NO_ERROR).await;
                }
                _ => drop(raw),
            }
        })
        .await;
        let body = upstream.send(get("/")).await.unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(5));
        let error = body.collect().await.map(|_| ()).expect_err(how);
        assert!(error.to_string().starts_with(said), "{how}: {error}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_response_to_head_has_a_length_but_no_body() {
    let (upstream, server) = with_server(|mut raw| async move {
        let (stream, _) = raw.request().await;
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &head_with_length("5")).await;
        let (stream, _) = raw.request().await;
        raw.send(HEADERS, END_HEADERS, stream, &head_with_length("5")).await;
        raw.send(DATA, END_STREAM, stream, b"").await;
        raw
    })
    .await;
    for ended in [true, false] {
        let request = Request::head("/").body(RequestBody::EMPTY).unwrap();
        let response = upstream.send(request).await.unwrap();
        assert_eq!(response.headers()["content-length"], "5");
        if ended {
            assert!(response.body().is_end_stream());
        }
        assert_eq!(response.body().size_hint().exact(), Some(0));
        assert_eq!(text(response).await, "");
    }
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_go_up_and_down_at_once() {
    const CHUNKS: usize = 256;
    let (upstream, _, _) = serve(&["h2"], 100, |request| async {
        // As fast as it comes: what goes down waits for its reader, and what goes up for that.
        let body = request.into_body().map_err(|_| unreachable!("the client is whole"));
        Response::new(body.boxed_unsync())
    })
    .await;
    let mut asking = tokio::task::JoinSet::new();
    for byte in 0..4 {
        let upstream = upstream.clone();
        asking.spawn(async move {
            let chunks = vec![Bytes::from(vec![byte; 16 << 10]); CHUNKS];
            let body = paced_body(chunks, std::future::ready(Ok(()))).await;
            let response = upstream.send(post("/", body)).await.unwrap();
            let answer = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(answer.len(), CHUNKS * (16 << 10));
            assert!(answer.iter().all(|b| *b == byte));
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(30), asking.join_all());
    all.await.expect("it does not flow");
}
