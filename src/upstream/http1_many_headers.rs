//! HTTP/1.1 responses with more than 100 header lines.
//!
//! hyper keeps 100 lines on the stack. A higher limit makes it allocate and fill a table of that
//! size for every response (4,096 lines: 47,000 instructions), so pooled connections have the
//! default limit. A response that exceeds it is parsed a second time by a connection with a high
//! limit, from the bytes that the first parser left. Nothing is sent to the API server again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http1::{Http1Lease, MAX_HEADER_BYTES, UnparsedResponse};
use super::request_body::Outgoing;

/// Maximum number of header lines of one message. `HeaderMap` holds 24,576 names at most; the proxy
/// adds some.
pub(super) const MAX_HEADER_LINES: usize = 20_000;

/// Parses the response to a request with this method again. The connection is closed after it.
/// Returns `None` if its bytes are lost, and an error if it is malformed or exceeds the high limit,
/// too.
pub(super) async fn parse(
    connection: Http1Lease,
    method: Method,
) -> Option<Result<Response<Incoming>, hyper::Error>> {
    let remains = connection.into_remains().await?;
    Some(parse_remains(remains, method).await)
}

async fn parse_remains(
    remains: UnparsedResponse,
    method: Method,
) -> Result<Response<Incoming>, hyper::Error> {
    let (read, stream) = (remains.read_buf, remains.io.into_inner());
    let replay = Replay { read, stream, asked: false, reader: None };
    let (mut sender, connection) = Builder::new()
        .max_headers(MAX_HEADER_LINES)
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(replay))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection with many headers ended");
        }
    });
    // Only its method matters: a response to HEAD has no body.
    let mut request = Request::new(Outgoing::Known(None));
    *request.method_mut() = method;
    sender.send_request(request).await
}

/// A partially read stream whose peer already has the request.
struct Replay<S> {
    read: Bytes,
    stream: S,
    /// Whether the request was written. hyper rejects bytes that arrive before that.
    asked: bool,
    reader: Option<Waker>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    /// Discards the request.
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
