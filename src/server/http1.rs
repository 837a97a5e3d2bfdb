//! One HTTP/1.1 connection of a client, served with hyper.
//!
//! hyper keeps 100 header lines on the stack. A higher limit makes it allocate and fill a table of
//! that size for every request (4,096 lines: 47,000 instructions). So a connection has the default
//! limit until a request exceeds it; that request, and the later ones, are parsed with a high
//! limit.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http::{DRAIN_GRACE, Handler, MAX_HEADER_BYTES};
use super::http1_io::Http1Io;
use super::shutdown::{Phase, Running};
use crate::audit::metrics::RefusedRequest;
use crate::body::ClientBody;
use crate::pipeline::Connection;

/// Maximum time from the end of one HTTP/1.1 request to the end of the next one's head. hyper has
/// one timer for the idle time and for the head, so this is kube-apiserver's idle timeout: a
/// shorter one would close connections that clients of kube-apiserver expect to stay open.
const NEXT_HEAD_DEADLINE: Duration = Duration::from_secs(90);

/// Maximum number of header lines of one request. `HeaderMap` holds 24,576 names at most; the proxy
/// adds some.
const MAX_HEADER_LINES: usize = 20_000;

/// hyper's default limit.
const DEFAULT_HEADER_LINES: usize = 100;

/// Serves `connection` over `io` until the client ends it, or the process is in [`Phase::Ending`].
/// While it drains, an idle connection is closed, and a request in progress finishes.
///
/// # Errors
/// Returns the protocol error.
pub(super) async fn serve<H: Handler>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    handler: H,
    mut running: Running,
) -> hyper::Result<()> {
    let mut io = Http1Io::new(io, connection.clone());
    let mut max_lines = None;
    let requested = Arc::new(AtomicBool::new(false));
    loop {
        let (of_requests, answering) = (connection.clone(), handler.clone());
        let request_seen = requested.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            request_seen.store(true, Ordering::Relaxed);
            let request = request.map(ClientBody::http1);
            let answer = answering.clone().handle(of_requests.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut builder = Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_HEAD_DEADLINE)
            .max_buf_size(MAX_HEADER_BYTES as usize)
            .half_close(false);
        if let Some(lines) = max_lines {
            builder.max_headers(lines);
        }
        let mut serving = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = running.reached(Phase::Draining) => {
                Pin::new(&mut serving).graceful_shutdown();
                None
            }
        };
        let ended = match ended {
            Some(ended) => ended,
            // An idle connection has been closed by that, and one with a request closes after it.
            // But hyper waits for the rest of a first request's head.
            None => tokio::select! {
                ended = &mut serving => ended,
                () = never_used(&requested) => return Ok(()),
                () = running.reached(Phase::Ending) => return Ok(()),
            },
        };
        let Err(error) = ended else { return Ok(()) };
        let Some(parts) = serving.into_parts() else { return Err(error) };
        io = parts.io.into_inner();
        let unparsed = parts.read_buf;
        if error.is_parse_too_large()
            && max_lines.is_none()
            && io.refusal() == Some(431)
            && has_many_lines(&unparsed)
        {
            io.rewind(unparsed);
            max_lines = Some(MAX_HEADER_LINES);
            continue;
        }
        if let Some(reason) = io.refusal().and_then(RefusedRequest::of_code) {
            handler.refused(&connection, reason);
        }
        // The client may have disconnected.
        let _ = io.close().await;
        return Err(error);
    }
}

/// Waits until a connection that has had no request may be closed.
async fn never_used(requested: &AtomicBool) {
    tokio::time::sleep(DRAIN_GRACE).await;
    if requested.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Returns whether the head has more lines than hyper accepts by default.
fn has_many_lines(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).nth(DEFAULT_HEADER_LINES).is_some()
}
