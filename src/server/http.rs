//! Serves one client connection, HTTP/1.1 or HTTP/2, until it or the process ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::shutdown::Running;
use super::{http1, http2};
use crate::audit::metrics::RefusedRequest;
use crate::body::{BodyError, ClientBody};
use crate::pipeline::{self, Connection, Proxy, ResponseBody};
use api_client::log_limit::LogLimit;

/// Maximum size of a request's head, like in kube-apiserver: Go's `MaxHeaderBytes`, and the 4 KiB
/// that Go reads beyond it.
pub const MAX_HEADER_BYTES: u32 = (1 << 20) + (4 << 10);

/// Limits the log to one line in this time for requests that the HTTP library refused.
static REFUSALS: LogLimit = LogLimit::new(Duration::from_secs(10));

/// After the process has begun to drain, a connection without a request has this time to end by
/// itself: a client that is idle, or that never completes a request, must not hold up the shutdown.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The protocol that ALPN chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1; also used if the client offered no ALPN.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Handles the requests of client connections.
pub trait Handler: Clone + Unpin + Send + Sync + 'static {
    /// The body of a response.
    type Body: Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static;

    /// Responds to one request of `connection`.
    fn handle(
        self,
        connection: Arc<Connection>,
        request: Request<ClientBody>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// Notifies of a request that the HTTP library refused, which [`Handler::handle`] does not
    /// receive.
    fn refused(&self, _connection: &Connection, _reason: RefusedRequest) {}

    /// Returns whether an HTTP/2 client that has sent a request must open a new connection.
    fn goaway(&self) -> bool {
        false
    }

    /// Returns how many streams an HTTP/2 connection may have concurrently; 0 means the default.
    fn http2_max_streams(&self) -> u32 {
        0
    }
}

impl Handler for Arc<Proxy> {
    type Body = ResponseBody;

    fn handle(
        self,
        connection: Arc<Connection>,
        request: Request<ClientBody>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + 'static {
        pipeline::handle(self, connection, request)
    }

    fn goaway(&self) -> bool {
        self.filters.goaway()
    }

    fn http2_max_streams(&self) -> u32 {
        self.filters.http2_max_streams()
    }

    fn refused(&self, connection: &Connection, reason: RefusedRequest) {
        self.recorder.metrics.requests.refused(reason);
        if let Some(suppressed) = REFUSALS.pass() {
            tracing::warn!(
                peer = %connection.peer(),
                reason = reason.as_str(),
                suppressed,
                "rejected a request that cannot be parsed; it has no audit event"
            );
        }
    }
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// An error of HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// An error of HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The client sent nothing for too long, or did not respond to a PING.
    #[error("the client is silent")]
    KeepAliveTimeout,
}

/// Serves `connection` over `io` until the client ends it, or until the process has drained:
/// HTTP/2 clients get a GOAWAY, idle HTTP/1.1 connections are closed, requests under way finish.
///
/// # Errors
/// Returns the protocol error; the caller can only log it.
pub async fn serve_connection<H: Handler>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: Protocol,
    connection: Arc<Connection>,
    handler: H,
    running: Running,
) -> Result<(), HttpError> {
    match protocol {
        Protocol::Http1 => Ok(http1::serve(io, connection, handler, running).await?),
        Protocol::Http2 => http2::serve(io, connection, handler, running).await,
    }
}
