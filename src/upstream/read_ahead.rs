//! Reads more bytes from a socket than were requested.
//!
//! rustls reads 4 KiB at a time, and responses to concurrent requests arrive together: a system
//! call for each 4 KiB would be most of the cost of reading.

use std::cell::Cell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Maximum number of bytes per read; two TLS records.
const AHEAD: usize = 32 << 10;

thread_local! {
    /// The buffer for the next read on this thread. Streams that are read concurrently have their
    /// own.
    static ROOM: Cell<BytesMut> = Cell::default();
}

/// A stream that reads as much as is available. It has no buffer while nothing arrives.
pub(super) struct ReadAhead<S> {
    stream: S,
    ahead: BytesMut,
}

impl<S> ReadAhead<S> {
    pub(super) fn new(stream: S) -> ReadAhead<S> {
        ReadAhead { stream, ahead: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ReadAhead { stream, ahead } = self.get_mut();
        if ahead.is_empty() {
            *ahead = ROOM.take();
            ahead.reserve(AHEAD);
            let read = poll_read_buf(Pin::new(stream), context, ahead);
            if ahead.is_empty() {
                ROOM.set(mem::take(ahead));
            }
            ready!(read)?;
        }
        let length = ahead.len().min(buffer.remaining());
        buffer.put_slice(&ahead[..length]);
        ahead.advance(length);
        if ahead.is_empty() {
            ROOM.set(mem::take(ahead));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn all_is_read_in_order_and_the_end_is_seen() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        far.write_all(&sent).await.unwrap();
        far.shutdown().await.unwrap();
        let mut stream = ReadAhead::new(near);
        let mut read = Vec::new();
        for size in [1, 7, 4096, AHEAD, AHEAD * 2].into_iter().cycle() {
            let mut some = vec![0; size];
            match stream.read(&mut some).await.unwrap() {
                0 => break,
                count => read.extend_from_slice(&some[..count]),
            }
        }
        assert!(read == sent);
        assert_eq!(stream.ahead.capacity(), 0);
    }
}
