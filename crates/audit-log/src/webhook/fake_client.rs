//! A fake client for tests, which select its responses.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::{ClientError, PostRequest, PostResponse, WebhookClient};
use super::list;
use crate::Line;

/// The response to one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    Status(u16),
    /// A status with `Retry-After` in seconds.
    RetryAfter(u16, u32),
    Unreachable,
    /// No response until [`FakeClient::release`]; then 200.
    Hang,
}

/// Returns each reply once, then repeats the last one.
#[derive(Debug)]
pub(super) struct FakeClient {
    replies: Mutex<VecDeque<Reply>>,
    requests: Mutex<Vec<(Instant, PostRequest)>>,
    released: Notify,
}

impl FakeClient {
    pub(super) fn new(replies: &[Reply]) -> Arc<FakeClient> {
        let (requests, released) = (Mutex::default(), Notify::new());
        Arc::new(FakeClient {
            replies: Mutex::new(replies.iter().copied().collect()),
            requests,
            released,
        })
    }

    /// Completes the requests that hang now.
    pub(super) fn release(&self) {
        self.released.notify_waiters();
    }

    /// Returns the bodies of all requests, decompressed.
    pub(super) fn bodies(&self) -> Vec<Vec<u8>> {
        let requests = self.requests.lock().unwrap();
        let body = |(_, request): &(Instant, PostRequest)| match request.is_gzip {
            true => {
                let mut body = Vec::new();
                GzDecoder::new(&*request.body).read_to_end(&mut body).unwrap();
                body
            }
            false => request.body.to_vec(),
        };
        requests.iter().map(body).collect()
    }

    /// Returns the events of each request, by their `id`.
    pub(super) fn ids(&self) -> Vec<Vec<u64>> {
        self.bodies().iter().map(|list| ids(list)).collect()
    }

    /// Returns when each request was received.
    pub(super) fn times(&self) -> Vec<Instant> {
        self.requests.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

/// Returns an event with the given `id` and padding.
pub(super) fn event(id: u64, padding: usize) -> Line {
    format!("{{\"id\":{id},\"x\":\"{}\"}}\n", "x".repeat(padding)).into_bytes().into()
}

pub(super) fn ids(list: &[u8]) -> Vec<u64> {
    let id = |item: &&[u8]| {
        serde_json::from_slice::<serde_json::Value>(item).unwrap()["id"].as_u64().unwrap()
    };
    list::items(list).unwrap().iter().map(id).collect()
}

impl WebhookClient for FakeClient {
    fn authority(&self) -> Arc<str> {
        "fake:443".into()
    }

    fn post(&self, request: PostRequest) -> BoxFuture<'_, Result<PostResponse, ClientError>> {
        async move {
            let reply = {
                self.requests.lock().unwrap().push((Instant::now(), request));
                let mut replies = self.replies.lock().unwrap();
                match replies.len() {
                    0 => Reply::Status(200),
                    1 => replies[0],
                    _ => replies.pop_front().unwrap(),
                }
            };
            let mut headers = HeaderMap::new();
            let status = match reply {
                Reply::Status(status) => status,
                Reply::RetryAfter(status, seconds) => {
                    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
                    status
                }
                Reply::Unreachable => return Err(ClientError("connection refused".to_owned())),
                Reply::Hang => {
                    self.released.notified().await;
                    200
                }
            };
            Ok(PostResponse { status: StatusCode::from_u16(status).unwrap(), headers })
        }
        .boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<(), ClientError>> {
        std::future::ready(match self.replies.lock().unwrap().front() {
            Some(Reply::Unreachable) => Err(ClientError("connection refused".to_owned())),
            _ => Ok(()),
        })
        .boxed()
    }
}
