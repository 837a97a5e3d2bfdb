//! One connection: HTTP/1.1 or HTTP/2, until it ends or the process does.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http2;
use super::shutdown::{Phase, Running};
use crate::body::{BodyError, ClientBody};
use crate::pipeline::{self, Connection, Proxy, ResponseBody};

/// Bytes of a request's head, as kube-apiserver (Go's `MaxHeaderBytes`).
pub const MAX_HEADER_BYTES: u32 = 1 << 20;

/// From the end of one HTTP/1.1 request to the end of the next one's head. hyper has one timer for
/// the idle time and for the head, so this is kube-apiserver's idle timeout: a shorter one would
/// close connections under clients that keep them as long as kube-apiserver lets them.
const NEXT_HEAD_DEADLINE: Duration = Duration::from_secs(90);

/// After the process has begun to drain, a connection without a request has this time to end by itself: a
/// client that is idle, or that never completes a request, must not hold up the shutdown.
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
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static;

    /// Answers one request of `connection`.
    fn handle(
        self,
        connection: Arc<Connection>,
        request: Request<ClientBody>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
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
        Protocol::Http1 => Ok(serve_http1(io, connection, handler, running).await?),
        Protocol::Http2 => http2::serve(io, connection, handler, running).await,
    }
}

async fn serve_http1<H: Handler>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    handler: H,
    mut running: Running,
) -> hyper::Result<()> {
    let requested = Arc::new(AtomicBool::new(false));
    let request_seen = requested.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        request_seen.store(true, Ordering::Relaxed);
        let request = request.map(ClientBody::http1);
        let answer = handler.clone().handle(connection.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD_DEADLINE)
        .max_buf_size(MAX_HEADER_BYTES as usize)
        .half_close(false)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    tokio::select! {
        result = serving.as_mut() => return result,
        () = running.reached(Phase::Draining) => serving.as_mut().graceful_shutdown(),
    }
    // An idle connection has been closed by that, and one with a request closes after it. But hyper waits
    // for the rest of a first request's head.
    let never_used = async {
        tokio::time::sleep(DRAIN_GRACE).await;
        if requested.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    tokio::select! {
        result = serving => result,
        () = never_used => Ok(()),
        () = running.reached(Phase::Ending) => Ok(()),
    }
}
