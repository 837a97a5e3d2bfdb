//! A client's HTTP/1.1 connection as hyper sees it: bytes can be put back, and hyper's own response
//! to a request that it cannot parse is held back.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::pipeline::Connection;

/// Maximum size of hyper's own responses: a status line and at most three header lines.
const LONGEST_REFUSAL: usize = 200;

/// A stream with bytes put back in front of it. If hyper cannot parse a head, it responds by itself
/// (400, 414, 431), without calling the service. That response is held here until the caller
/// decides whether to parse the head again with a higher limit.
pub(super) struct Http1Io<S> {
    stream: S,
    connection: Arc<Connection>,
    /// Bytes that were read from the stream and not parsed.
    ahead: Bytes,
    /// A response that hyper generated itself.
    held: Bytes,
}

impl<S> Http1Io<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>) -> Http1Io<S> {
        Http1Io { stream, connection, ahead: Bytes::new(), held: Bytes::new() }
    }

    /// Returns the status code of the response that is held.
    pub(super) fn refusal(&self) -> Option<u16> {
        std::str::from_utf8(self.held.get(9..12)?).ok()?.parse().ok()
    }

    /// Discards the response that is held, and puts `unparsed` back.
    pub(super) fn rewind(&mut self, unparsed: Bytes) {
        self.held = Bytes::new();
        self.ahead = unparsed;
    }

    /// Returns whether `bytes` are a response that hyper generated itself.
    fn is_refusal(&self, bytes: &[u8]) -> bool {
        let is_code = |code: &[u8]| matches!(code, b"400" | b"414" | b"431");
        bytes.len() <= LONGEST_REFUSAL
            && bytes.starts_with(b"HTTP/1.1 4")
            && bytes.get(9..12).is_some_and(is_code)
            && bytes.ends_with(b"\r\n\r\n")
            && !self.connection.is_upgraded()
            // All responses of the service have an audit ID.
            && memchr::memmem::find(bytes, b"\r\naudit-id: ").is_none()
    }
}

impl<S: AsyncWrite + Unpin> Http1Io<S> {
    /// Sends the response that is held, if there is one, and closes the connection.
    pub(super) async fn close(mut self) -> io::Result<()> {
        if !self.held.is_empty() {
            self.stream.write_all(&self.held).await?;
        }
        self.stream.shutdown().await
    }

    /// Sends the response that is held: hyper did not generate it, since the connection continues.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
            if self.held.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Http1Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            ready!(self.poll_release(context))?;
        }
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http1Io<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.held.is_empty() {
            ready!(self.poll_release(context))?;
        }
        if self.is_refusal(bytes) {
            self.held = Bytes::copy_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [piece] = pieces {
            return self.poll_write(context, piece);
        }
        if !self.held.is_empty() {
            ready!(self.poll_release(context))?;
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// While a response is held, [`Http1Io::close`] shuts the stream down.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.held.is_empty() {
            true => Pin::new(&mut self.stream).poll_shutdown(context),
            false => Poll::Ready(Ok(())),
        }
    }
}
