//! A connection whose bytes wait for the log.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::barrier::{Barrier, Gate};

/// Pieces of one write that are looked at; hyper gives no more.
const PIECES: usize = 64;

/// Passes on what is written when the [`Barrier`] lets it. To be put above TLS, whose handshake says
/// nothing of a request. After [`Poll::Pending`], a write must begin with the same bytes; there may be
/// more of them.
pub(crate) struct Gated<S> {
    stream: S,
    gate: Gate,
}

impl<S> Gated<S> {
    pub(crate) fn new(stream: S, barrier: Barrier) -> Gated<S> {
        Gated { stream, gate: Gate::new(barrier) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let passed = ready!(self.gate.poll_pass(bytes.len(), context));
        Pin::new(&mut self.stream).poll_write(context, &bytes[..passed])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        let passed = ready!(self.gate.poll_pass(bytes, context));
        if passed == bytes {
            return Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        }
        let mut first = [IoSlice::new(&[]); PIECES];
        let count = cut(pieces, passed, &mut first);
        Pin::new(&mut self.stream).poll_write_vectored(context, &first[..count])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// What is still to be flushed has passed.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of some answers the end of the connection is the end.
        ready!(self.gate.poll_end(context));
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Puts the first `bytes` of the pieces into `first`, as far as there is room; says how many pieces
/// these are.
fn cut<'a>(
    pieces: &'a [IoSlice<'a>],
    mut bytes: usize,
    first: &mut [IoSlice<'a>; PIECES],
) -> usize {
    let mut count = 0;
    for (piece, place) in pieces.iter().filter(|piece| !piece.is_empty()).zip(first) {
        if bytes == 0 {
            break;
        }
        let length = piece.len().min(bytes);
        *place = IoSlice::new(&piece[..length]);
        bytes -= length;
        count += 1;
    }
    count
}

#[cfg(test)]
#[path = "gated_tests.rs"]
mod tests;
