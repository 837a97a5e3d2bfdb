use audit_body::{Account, Budget};
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;

/// Buffers the frames, with so much memory for bodies.
async fn read(
    frames: Vec<Result<Frame<Bytes>, BodyError>>,
    memory: usize,
) -> (Result<Bytes, BufferError>, usize) {
    let mut memory = Budget::new(memory).reservation(Account::default());
    let body = read_all(StreamBody::new(stream::iter(frames)), &mut memory).await;
    (body, memory.held())
}

fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, BodyError> {
    Ok(Frame::data(bytes.into()))
}

async fn refused(frames: Vec<Result<Frame<Bytes>, BodyError>>, memory: usize) -> Status {
    read(frames, memory).await.0.unwrap_err().status()
}

#[tokio::test]
async fn frames_are_joined_and_a_single_one_is_not_copied() {
    let (body, _) = read(Vec::new(), 1 << 20).await;
    assert!(body.unwrap().is_empty());
    let one = Bytes::from_static(b"{\"kind\":\"Pod\"}");
    let (body, _) = read(vec![data(""), data(one.clone())], 1 << 20).await;
    assert_eq!(body.unwrap().as_ptr(), one.as_ptr());
    let (body, _) = read(vec![data("a"), data(""), data("bc"), data("d")], 1 << 20).await;
    assert_eq!(&body.unwrap()[..], b"abcd");
}

#[tokio::test]
async fn trailers_end_the_body() {
    let trailers = Ok(Frame::trailers(HeaderMap::new()));
    let (body, _) = read(vec![data("a"), trailers, data("b")], 1 << 20).await;
    assert_eq!(&body.unwrap()[..], b"a");
}

#[tokio::test]
async fn a_body_may_be_as_long_as_kube_apiserver_accepts() {
    let mib = || data(vec![b' '; 1 << 20]);
    let (body, held) = read(vec![mib(), mib(), mib()], 1 << 30).await;
    assert_eq!((body.unwrap().len(), held), (MAX_BODY, MAX_BODY));
    let status = refused(vec![mib(), mib(), mib(), data("x")], 1 << 30).await;
    assert_eq!((status.code, &*status.reason), (413, "RequestEntityTooLarge"));
    assert!(status.message.contains("limit is 3145728"), "{}", status.message);
}

#[tokio::test]
async fn a_user_without_memory_left_shall_try_again() {
    let status = refused(vec![data(vec![b' '; 100_000]), data(vec![b' '; 100_000])], 150_000).await;
    assert_eq!((status.code, &*status.reason), (429, "TooManyRequests"));
    assert_eq!(status.details.unwrap().retry_after_seconds, 1);
    assert!(status.message.contains("too much memory"), "{}", status.message);
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_answered_as_too_long() {
    let status = refused(vec![data("a"), Err("reset".into())], 1 << 20).await;
    assert_eq!(status, Status::client_gone());
}
