//! One connection: HTTP/1.1 or HTTP/2, until it ends or the process does.

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
use crate::log_limit::LogLimit;
use crate::pipeline::{self, Connection, Proxy, ResponseBody};

/// Bytes of a request's head, like kube-apiserver: Go's `MaxHeaderBytes`, and the 4 KiB that Go
/// reads beyond it.
pub const MAX_HEADER_BYTES: u32 = (1 << 20) + (4 << 10);

/// Requests that the HTTP library refused are logged once in this time.
static REFUSALS: LogLimit = LogLimit::new(Duration::from_secs(10));

/// After the process has begun to drain, a connection without a request has this time to end by
/// itself: a client that is idle, or that never completes a request, must not hold up the shutdown.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The protocol that ALPN chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, also where the client offered no ALPN.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What answers requests.
pub trait Handler: Clone + Unpin + Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static;

    /// Answers one request of `connection`.
    fn handle(
        self,
        connection: Arc<Connection>,
        request: Request<ClientBody>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// The HTTP library refused a request of `connection`, which [`Handler::handle`] does not see.
    fn refused(&self, _connection: &Connection, _reason: RefusedRequest) {}

    /// Whether a client on HTTP/2 that has sent a request has to open a new connection.
    fn goaway(&self) -> bool {
        false
    }

    /// How many streams an HTTP/2 connection may have at a time; 0 is the default.
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
                "refused a request that cannot be parsed; it has no audit event"
            );
        }
    }
}

/// Why a connection ended otherwise than by being closed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// What HTTP/1.1 says.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// What HTTP/2 says.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The client says nothing at all, or answers no PING.
    #[error("the client is silent")]
    Silent,
}

/// Serves `connection` over `io` until the client ends it, or until the process has drained:
/// HTTP/2 clients get a GOAWAY, idle HTTP/1.1 connections are closed, requests under way finish.
///
/// # Errors
/// What went wrong on the wire; the caller can do no more than log it.
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
