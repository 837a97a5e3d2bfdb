//! One connection: HTTP/1.1 or HTTP/2, until it ends or the process does.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;

use super::shutdown::{Phase, Running};
use crate::pipeline::{self, Connection, Proxy, ResponseBody};

/// Bytes of a request's head, as kube-apiserver (Go's `MaxHeaderBytes`).
pub const MAX_HEADER_BYTES: u32 = 1 << 20;

// kube-apiserver's numbers (staging/src/k8s.io/apiserver/pkg/server/secure_serving.go): 256 KiB
// holds 99 % of all request bodies, and the connection's window fits all streams at once.
const MAX_CONCURRENT_STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_CONCURRENT_STREAMS;

/// From the end of one HTTP/1.1 request to the end of the next one's head. hyper has one timer for
/// the idle time and for the head, so this is kube-apiserver's idle timeout: a shorter one would
/// close connections under clients that keep them as long as kube-apiserver lets them.
const NEXT_HEAD_DEADLINE: Duration = Duration::from_secs(90);

/// Bytes of an answer that wait for a slow client, at most about that many for each stream. hyper's
/// own 400 KiB add up with many slow clients.
const SEND_BUFFER: usize = 32 << 10;

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

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
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers one request of `connection`.
    fn handle(
        self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

impl Handler for Arc<Proxy> {
    type Body = ResponseBody;

    fn handle(
        self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + 'static {
        pipeline::handle(self, connection, request)
    }
}

/// Serves `connection` over `io` until the client ends it, or until the process has drained:
/// HTTP/2 clients get a GOAWAY, idle HTTP/1.1 connections are closed, requests under way finish.
///
/// # Errors
/// What went wrong on the wire; the caller can do no more than log it.
pub async fn serve_connection<H: Handler>(
    io: impl Read + Write + Unpin + Send + 'static,
    protocol: Protocol,
    connection: Arc<Connection>,
    handler: H,
    mut running: Running,
) -> Result<(), hyper::Error> {
    let tasks = Tasks(running.clone());
    let service = service_fn(move |request| {
        let answer = handler.clone().handle(connection.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // The two connection types share no trait that has `graceful_shutdown`.
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            tokio::select! {
                result = connection.as_mut() => return result,
                () = running.reached(Phase::Draining) => connection.as_mut().graceful_shutdown(),
            }
            tokio::select! {
                result = connection => result,
                () = running.reached(Phase::Ending) => Ok(()),
            }
        }};
    }
    match protocol {
        Protocol::Http1 => drive!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(NEXT_HEAD_DEADLINE)
                .max_buf_size(MAX_HEADER_BYTES as usize)
                .half_close(false)
                .serve_connection(io, service)
                .with_upgrades()
        ),
        Protocol::Http2 => drive!(
            http2::Builder::new(tasks)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(STREAM_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_header_list_size(MAX_HEADER_BYTES)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(io, service)
        ),
    }
}

/// Runs HTTP/2 streams as tasks that the end of the process waits for.
#[derive(Clone)]
struct Tasks(Running);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        let running = self.0.clone();
        tokio::spawn(async move {
            stream.await;
            drop(running);
        });
    }
}
