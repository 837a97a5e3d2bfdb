//! A connection whose bytes wait for the audit log.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gate::WriteGate;
use super::sequence::CommitSequence;

/// Maximum number of slices considered in one write; hyper passes no more.
const SLICES: usize = 64;

/// A connection that holds back each write until all events are committed that were accepted before
/// it in the connection's [`CommitSequence`].
///
/// Must be placed above TLS, whose handshake reveals nothing about a request. After
/// [`Poll::Pending`], the next write must begin with the same bytes; more may follow them.
pub struct GatedIo<S> {
    stream: S,
    gate: WriteGate,
}

impl<S> GatedIo<S> {
    /// Wraps a connection of the worker that `sequence` belongs to.
    pub fn new(stream: S, sequence: CommitSequence) -> GatedIo<S> {
        GatedIo { stream, gate: WriteGate::new(sequence) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let writable = ready!(self.gate.poll_writable(bytes.len(), context));
        Pin::new(&mut self.stream).poll_write(context, &bytes[..writable])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        let writable = ready!(self.gate.poll_writable(bytes, context));
        if writable == bytes {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        let mut first = [IoSlice::new(&[]); SLICES];
        let count = first_bytes(slices, writable, &mut first);
        Pin::new(&mut self.stream).poll_write_vectored(context, &first[..count])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Bytes that are still to be flushed have passed the gate.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of the connection can be the end of a response.
        ready!(self.gate.poll_end(context));
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Copies the first `bytes` bytes of the slices into `first`, up to its length. Returns the number
/// of slices.
fn first_bytes<'a>(
    slices: &'a [IoSlice<'a>],
    mut bytes: usize,
    first: &mut [IoSlice<'a>; SLICES],
) -> usize {
    let mut count = 0;
    for (slice, place) in slices.iter().filter(|slice| !slice.is_empty()).zip(first) {
        if bytes == 0 {
            break;
        }
        let length = slice.len().min(bytes);
        *place = IoSlice::new(&slice[..length]);
        bytes -= length;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests;
