//! The HTTP client interface of webhook backends.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};

/// Sends requests to one webhook endpoint. The implementation holds its address, TLS settings and
/// credentials, which may be replaced at run time.
pub trait WebhookClient: fmt::Debug + Send + Sync {
    /// Returns the endpoint's host and port, for messages.
    fn authority(&self) -> Arc<str>;

    /// Sends one request and returns the head of the response. The response body is ignored.
    fn post(&self, request: PostRequest) -> BoxFuture<'_, Result<PostResponse, ClientError>>;

    /// Opens a connection unless one is open.
    fn connect(&self) -> BoxFuture<'_, Result<(), ClientError>>;
}

/// A POST of JSON to the endpoint's path.
#[derive(Debug, Clone)]
pub struct PostRequest {
    /// The body.
    pub body: Bytes,
    /// Whether the body is compressed (`Content-Encoding: gzip`).
    pub is_gzip: bool,
    /// The value of the query parameter `timeout`, in seconds, which kube-apiserver's client sends.
    /// The caller enforces the limit.
    pub timeout_seconds: u64,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct PostResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

/// Why there is no response. The message calls the peer "the webhook".
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(pub String);
