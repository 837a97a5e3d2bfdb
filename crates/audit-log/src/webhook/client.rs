//! The HTTP client that webhooks need.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};

/// Sends requests to one webhook endpoint, with its address, TLS settings and credentials, which
/// may be replaced while it is used.
pub trait WebhookClient: fmt::Debug + Send + Sync {
    /// Returns the endpoint's host and port, for messages.
    fn authority(&self) -> Arc<str>;

    /// Sends one request and returns the head of the response. The rest of the response has no
    /// meaning.
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
    /// Seconds, for the query parameter `timeout` that kube-apiserver's client sends. The caller
    /// enforces the limit itself.
    pub timeout_seconds: u64,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct PostResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
}

/// Why there is no response; names the peer "the webhook".
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(pub String);
