//! One HTTP/2 connection of a client, with one task for each stream.
//!
//! `h2` is used directly: a stream's task is the request's own future, which is small, since only a
//! pointer is copied into it; and responses of several streams are written together.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::{Builder, Connection as Http2Connection, SendResponse};
use h2::{PingPong, Reason};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use super::http::{DRAIN_GRACE, Handler, HttpError, MAX_HEADER_BYTES};
use super::shutdown::{Phase, Running};
use crate::audit::metrics::RefusedRequest;
use crate::body::ClientBody;
use crate::http2::{
    CoalescedWrites, CoalescingIo, KeepAlive, ReceiveBody, RequestStream, Responding, SendBody,
    coalesce,
};
use crate::pipeline::Connection;

// kube-apiserver's numbers (staging/src/k8s.io/apiserver/pkg/server/secure_serving.go): 256 KiB
// holds 99 % of all request bodies, and the connection's window fits all streams at once.
const MAX_CONCURRENT_STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 256 << 10;
/// The largest window of HTTP/2.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Maximum bytes of a response that wait for a slow client, per stream.
const SEND_BUFFER: usize = 32 << 10;
/// Bytes of a response that are handed to h2 immediately, even if the client's window is full.
const EAGER: usize = 16 << 10;

/// Deadline for the client's first bytes, like in Go's server.
const PREFACE_DEADLINE: Duration = Duration::from_secs(10);

/// kube-apiserver's values.
const KEEP_ALIVE: KeepAlive =
    KeepAlive { interval: Duration::from_secs(30), timeout: Duration::from_secs(15) };

/// Events that the connection reacts to, besides incoming frames.
enum ConnectionEvent {
    /// The process accepts no new requests.
    Draining,
    /// The process has drained for a while; the connection may have no request in flight.
    Idle,
    /// The process ends.
    Ending,
    /// The client does not respond to PINGs.
    KeepAliveTimeout,
}

/// Serves `connection` over `io` until the client ends it, or the process is in [`Phase::Ending`].
/// When the process drains, the client gets a GOAWAY, and requests in flight finish.
///
/// # Errors
/// Returns the protocol error.
pub(super) async fn serve<H: Handler>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    handler: H,
    mut running: Running,
) -> Result<(), HttpError> {
    let (io, writes) = coalesce(io);
    let shaken =
        tokio::time::timeout(PREFACE_DEADLINE, handshake(io, &writes, handler.http2_max_streams()));
    let mut http2 = tokio::select! {
        shaken = shaken => shaken.map_err(|_| HttpError::KeepAliveTimeout)??,
        // A client that has just connected may have sent its first request.
        () = running.drained_for(DRAIN_GRACE) => return Ok(()),
    };
    // Each stream has a clone, so that the count shows whether there are streams.
    let running = Arc::new(running);
    let pings = http2.ping_pong().expect("it is taken only here");
    // A separate task, since this one runs at every request, and timers and waiting have a cost.
    let mut watching = spawn(watch(pings, writes.activity(), Running::clone(&running)));
    let mut last_stream = None;
    poll_fn(|context| {
        loop {
            if let Poll::Ready(told) = Pin::new(&mut watching).poll(context) {
                match told {
                    Ok(ConnectionEvent::KeepAliveTimeout) => {
                        return Poll::Ready(Err(HttpError::KeepAliveTimeout));
                    }
                    Ok(ConnectionEvent::Draining) => {
                        http2.graceful_shutdown();
                        watching = spawn(idle(Running::clone(&running)));
                    }
                    // The client does not respond to the GOAWAY.
                    Ok(ConnectionEvent::Idle)
                        if Arc::strong_count(&running) == 1 && !writes.is_waiting() =>
                    {
                        return Poll::Ready(Ok(()));
                    }
                    Ok(ConnectionEvent::Idle) => watching = spawn(idle(Running::clone(&running))),
                    Ok(ConnectionEvent::Ending) | Err(_) => return Poll::Ready(Ok(())),
                }
                continue;
            }
            let (request, reply) = match http2.poll_accept(context) {
                Poll::Ready(Some(Ok(accepted))) => accepted,
                Poll::Ready(Some(Err(error))) => {
                    if error.is_library() {
                        handler.refused(&connection, RefusedRequest::Http2Connection);
                    }
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    writes.send(context);
                    return Poll::Pending;
                }
            };
            // h2 does not report streams that it resets or responds to itself.
            let number = reply.stream_id().as_u32();
            let expected = last_stream.replace(number).map_or(number, |last: u32| last + 2);
            if number > expected {
                handler.refused(&connection, RefusedRequest::Http2Stream);
            }
            if handler.goaway() {
                // Streams in flight continue, including this one; the client opens no more.
                http2.graceful_shutdown();
            }
            let (head, stream) = request.into_parts();
            let is_head = head.method == Method::HEAD;
            let body = ReceiveBody::new(stream, &head.headers, false);
            let (body, responding) = RequestStream::new(body);
            let request = Request::from_parts(head, ClientBody::http2(body));
            // Freed when the response starts, which may be that of a long watch.
            let answer = Box::pin(handler.clone().handle(connection.clone(), request));
            tokio::spawn(serve_stream(answer, is_head, reply, responding, running.clone()));
        }
    })
    .await
}

fn spawn(
    task: impl Future<Output = ConnectionEvent> + Send + 'static,
) -> AbortOnDropHandle<ConnectionEvent> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    io: CoalescingIo<S>,
    writes: &CoalescedWrites<S>,
    max_streams: u32,
) -> Result<Http2Connection<CoalescingIo<S>, Bytes>, h2::Error> {
    let streams = if max_streams == 0 { MAX_CONCURRENT_STREAMS } else { max_streams };
    let mut handshake = Builder::new()
        .max_concurrent_streams(streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams).min(MAX_WINDOW))
        .max_frame_size(STREAM_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_BYTES)
        .handshake(io);
    poll_fn(|context| {
        let shaken = Pin::new(&mut handshake).poll(context);
        writes.send(context);
        shaken
    })
    .await
}

/// Waits for the next event of [`ConnectionEvent`].
async fn watch(
    pings: PingPong,
    activity: Arc<AtomicBool>,
    mut running: Running,
) -> ConnectionEvent {
    let silent = async {
        if !KEEP_ALIVE.is_silent(pings, &activity).await {
            // The connection has ended, and the task that waits for this ends with it.
            std::future::pending().await
        }
    };
    tokio::select! {
        () = silent => ConnectionEvent::KeepAliveTimeout,
        () = running.reached(Phase::Draining) => ConnectionEvent::Draining,
    }
}

/// Waits until a connection without requests may be closed.
async fn idle(mut running: Running) -> ConnectionEvent {
    tokio::select! {
        () = tokio::time::sleep(DRAIN_GRACE) => ConnectionEvent::Idle,
        () = running.reached(Phase::Ending) => ConnectionEvent::Ending,
    }
}

/// Sends the response to one request, unless the client cancels it.
async fn serve_stream<B: Body<Data = Bytes> + Unpin>(
    mut answer: Pin<Box<impl Future<Output = Response<B>>>>,
    is_head: bool,
    mut reply: SendResponse<Bytes>,
    _responding: Option<Responding>,
    _running: Arc<Running>,
) {
    let answered = poll_fn(|context| match answer.as_mut().poll(context) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => reply.poll_reset(context).map(|_| None),
    })
    .await;
    drop(answer);
    let Some(response) = answered else { return };
    let (mut head, mut body) = response.into_parts();
    // Responses of the API server have both.
    head.headers.entry(DATE).or_insert_with(now);
    let mut ended = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !ended) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    if is_head && !ended {
        // RFC 9110, section 9.3.2: the headers are those of a GET, and there is no content.
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            if frame.is_err() {
                return reply.send_reset(Reason::INTERNAL_ERROR);
            }
        }
        ended = true;
    }
    match reply.send_response(Response::from_parts(head, ()), ended) {
        Ok(_) if ended => {}
        Ok(stream) => SendBody::new(body, stream, EAGER, Reason::INTERNAL_ERROR).await,
        Err(error) => {
            // The client has disconnected, or HTTP/2 does not allow a header.
            tracing::debug!(%error, "a response was not sent");
            reply.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

fn now() -> HeaderValue {
    let now = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::from_str(&now).expect("a date is ASCII")
}

#[cfg(test)]
mod tests;
