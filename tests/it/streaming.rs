//! Bodies are forwarded as they arrive: frame by frame, byte for byte, of any length.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

use crate::support::client::{self, Short};
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::Builder;
use crate::support::upstream::{BoxError, FakeUpstream, Protocols, full, json, streamed};

const WATCH: &str = "/api/v1/namespaces/team-a/configmaps?watch=true";

type FrameSender = tokio::sync::mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

/// Returns an upstream whose only response is sent by the test itself, frame by frame.
async fn driven(protocols: Protocols) -> (FakeUpstream, Arc<Mutex<Option<FrameSender>>>) {
    let slot = Arc::new(Mutex::new(None));
    let filled = Arc::clone(&slot);
    let upstream = FakeUpstream::start(protocols, move |_| {
        let (sender, body) = streamed();
        *filled.lock().unwrap() = Some(sender);
        async { Ok(Response::builder().header("content-type", "application/json").body(body)?) }
    })
    .await;
    (upstream, slot)
}

#[tokio::test]
async fn every_watch_frame_arrives_before_the_next_is_sent() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (upstream, slot) = driven(protocols).await;
        let proxy = Builder::new(upstream.addr).start().await;
        let mut connection = Connection::open(proxy.addr, Some("alice")).await.unwrap();
        let request = http1::request("GET", WATCH, &["Audit-ID: watch"], b"");
        connection.send(&request).await.unwrap();
        let head = in_time("the head of the watch", connection.head()).await.unwrap();
        assert_eq!(head.status, 200);
        let sender = slot.lock().unwrap().take().unwrap();
        for number in 0..50 {
            let event = format!("{{\"type\":\"ADDED\",\"number\":{number}}}\n");
            sender.send(Ok(Frame::data(Bytes::from(event.clone())))).await.unwrap();
            let chunk = in_time("a frame of the watch", connection.chunk()).await.unwrap();
            assert_eq!(chunk.as_deref(), Some(event.as_bytes()));
        }
        let events = proxy.audit_log().wait("watch", 2).await;
        assert_eq!(events[1].stage(), "ResponseStarted");
        drop(sender);
        assert_eq!(in_time("the end", connection.chunk()).await.unwrap(), None);
        let events = proxy.audit_log().wait_end("watch").await;
        assert_eq!((events.len(), events[2].code()), (3, 200));
    }
}

#[tokio::test]
async fn http2_watch_frames_arrive_one_by_one() {
    let (upstream, slot) = driven(Protocols::Http2).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let watch = client::h2_get(&mut sender, WATCH, &[]);
    let mut response = in_time("the head of the watch", watch).await.unwrap();
    let frames = slot.lock().unwrap().take().unwrap();
    for number in 0..50 {
        let event = Bytes::from(format!("{{\"number\":{number}}}\n"));
        frames.send(Ok(Frame::data(event.clone()))).await.unwrap();
        let frame = in_time("a frame of the watch", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
}

#[tokio::test]
async fn trailers_pass() {
    let (upstream, slot) = driven(Protocols::Http2).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let response = client::h2_get(&mut sender, "/api/v1/pods", &[("te", "trailers")]);
    let response = in_time("the head", response).await.unwrap();
    let frames = slot.lock().unwrap().take().unwrap();
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    frames.send(Ok(Frame::data(Bytes::from_static(b"body")))).await.unwrap();
    frames.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
    drop(frames);
    let collected = in_time("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "body");
}

#[tokio::test]
async fn a_compressed_response_is_forwarded_unchanged() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &[b'x'; 100_000]).unwrap();
    let compressed = encoder.finish().unwrap();
    let body = compressed.clone();
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let body = body.clone();
        async move { Ok(Response::builder().header("content-encoding", "gzip").body(full(body))?) }
    })
    .await;
    let proxy = Builder::new(upstream.addr).start().await;
    let lines = ["Accept-Encoding: gzip"];
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &lines).await.unwrap();
    assert_eq!(answer.head.get("content-encoding"), "gzip");
    assert_eq!(answer.body, compressed);
    assert_eq!(upstream.seen()[0].all("accept-encoding"), ["gzip"]);
}

#[tokio::test]
async fn the_request_target_is_forwarded_byte_for_byte() {
    let targets = [
        "/api/v1//namespaces/../nodes/./a%2Fb%2e%2E?watch=0&x=%zz&&y;z=1&",
        "/api/v1/pods?",
        "/%61pi/v1/pods?fieldSelector=metadata.name%3Dx",
        "/api/v1/pods?a=[b]{c}|d^e`f\\g'h(i)*!",
        "/api/v1/namespaces/a/configmaps/%F0%9F%98%80",
        "//api/v1/pods",
        "/api/v1/pods?labelSelector=a%20in%20(b,c)",
    ];
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = FakeUpstream::start(protocols, |_| async { json(200, "{}") }).await;
        let proxy = Builder::new(upstream.addr).start().await;
        for target in targets {
            let answer = http1::get(proxy.addr, Some("admin"), target, &[]).await.unwrap();
            assert_eq!(answer.head.status, 200, "{target}");
            let seen = &upstream.take_seen()[0];
            assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", target));
            assert_eq!(seen.version == Version::HTTP_2, protocols == Protocols::Http2);
        }
    }
}

const PIECE: usize = 64 * 1024;
const PIECES: usize = 1024;

async fn echo(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, BoxError>>, BoxError> {
    let body = request.into_body().map_err(BoxError::from);
    Ok(Response::new(BoxBody::new(body)))
}

fn piece(number: usize) -> Bytes {
    let mut bytes = vec![number as u8; PIECE];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Bytes::from(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_64_mb_passes_both_ways_in_constant_memory() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).start().await;
    type Pieces = BoxBody<Bytes, BoxError>;
    let mut sender = client::http2::<Pieces>(proxy.addr, Some("admin")).await.unwrap();
    let before = proxy.process.resident();
    let pieces = futures_util::stream::iter(0..PIECES);
    let pieces = pieces.map(|number| Ok::<_, BoxError>(Frame::data(piece(number))));
    let request = Request::post("https://kubernetes/api/v1/namespaces/team-a/configmaps");
    let request = request.body(Pieces::new(StreamBody::new(pieces))).unwrap();
    let response = in_time("the head", sender.send_request(request)).await.unwrap();
    let (mut body, mut whole, mut peak) = (response.into_body(), 0, 0);
    let mut hash = Vec::with_capacity(PIECE);
    while let Some(frame) = in_time("a frame", body.frame()).await {
        let data = frame.unwrap().into_data().unwrap();
        for &byte in &data {
            hash.push(byte);
            if hash.len() == PIECE {
                assert!(hash == piece(whole / PIECE), "piece {} differs", whole / PIECE);
                whole += PIECE;
                hash.clear();
                if whole % (8 << 20) == 0 {
                    peak = peak.max(proxy.process.resident());
                }
            }
        }
    }
    assert_eq!(whole, PIECE * PIECES);
    let grown = peak.saturating_sub(before) >> 20;
    println!("64 MB each way: {} MB resident before, {grown} MB more at the peak", before >> 20);
    assert!(grown < 48, "the proxy keeps bodies: {grown} MB more");
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let lines = ["Expect: 100-continue", "Content-Length: 4"];
    connection.send(&http1::request("POST", "/api/v1/namespaces", &lines, b"")).await.unwrap();
    let head = in_time("100 Continue", connection.head()).await.unwrap();
    assert_eq!(head.status, 100);
    tokio::time::sleep(Duration::from_millis(20)).await;
    connection.send(b"body").await.unwrap();
    let answer = in_time("the answer", connection.answer("POST")).await.unwrap();
    assert_eq!((answer.head.status, answer.body.as_slice()), (200, b"body".as_slice()));
}

#[tokio::test]
async fn a_request_that_is_refused_needs_no_body() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut connection = Connection::open(proxy.addr, None).await.unwrap();
    let lines = ["Expect: 100-continue", "Content-Length: 4", "Authorization: Bearer wrong"];
    connection.send(&http1::request("POST", "/api/v1/namespaces", &lines, b"")).await.unwrap();
    let head = in_time("the refusal", connection.head()).await.unwrap();
    assert_eq!(head.status, 401, "no 100 before the identity is known");
}

#[tokio::test]
async fn an_interrupted_error_response_is_not_complete() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = FakeUpstream::start(protocols, |_| async {
            let (sender, body) = streamed();
            tokio::spawn(async move {
                let part = Bytes::from_static(b"{\"kind\":\"Status\",");
                let _ = sender.send(Ok(Frame::data(part))).await;
                let _ = sender.send(Err("broken off".into())).await;
            });
            let response = Response::builder().status(500);
            Ok(response.header("content-type", "application/json").body(body)?)
        })
        .await;
        let proxy = Builder::new(upstream.addr).start().await;
        let target = "/api/v1/namespaces/a/pods/p/log";
        let headers = ["Audit-ID: broken"];
        let answer = http1::get(proxy.addr, Some("admin"), target, &headers);
        let answer = in_time("the end of the answer", answer).await;
        assert!(answer.is_err(), "{:?}", answer.map(|answer| answer.head.status));
        let events = proxy.audit_log().wait_end("broken").await;
        let annotation = "/annotations/kube-audit-proxy~1response-incomplete";
        assert_eq!((events.len(), events[2].code()), (3, 500));
        assert!(!events[2].text(annotation).is_empty());
    }
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_body_reaches_the_client() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async {
        let too_large = r#"{"kind":"Status","apiVersion":"v1","code":413}"#;
        Ok(Response::builder().status(413).body(full(too_large))?)
    })
    .await;
    let proxy = Builder::new(upstream.addr).start().await;
    for _ in 0..5 {
        let mut connection = Connection::open(proxy.addr, Some("alice")).await.unwrap();
        // More than the buffers of the sockets on the path hold.
        let body = vec![b' '; 4 << 20];
        let request = http1::request("POST", "/api/v1/namespaces", &[], &body);
        let answer = in_time("sending it all, and the answer", async {
            // A client whose connection is closed here does not read a response.
            connection.send(&request).await?;
            connection.answer("POST").await
        })
        .await;
        assert_eq!(answer.unwrap().head.status, 413);
    }
}
