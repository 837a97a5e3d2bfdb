//! Coalesces the frames of several streams into one TLS record and one system call.
//!
//! `h2` flushes after each DATA frame of 256 bytes or more. So its writes are buffered here and its
//! flushes ignored; the task that drives the connection sends the buffer when `h2` has nothing more
//! to write ([`CoalescedWrites::send`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum size of the buffer: the content of a TLS record.
const FULL: usize = 16 << 10;
/// Writes of at least this size are not copied.
const LONG: usize = 8 << 10;
/// Initial capacity of the buffer. It is kept after a small write, and a larger buffer is freed.
const ROOM: usize = 4 << 10;

/// The stream from which `h2` reads and to which it writes.
pub(crate) struct CoalescingIo<S> {
    collected: Arc<Mutex<Collected<S>>>,
    activity: Arc<AtomicBool>,
}

/// The writes of `h2` that are buffered.
pub(crate) struct CoalescedWrites<S> {
    collected: Arc<Mutex<Collected<S>>>,
    activity: Arc<AtomicBool>,
}

struct Collected<S> {
    stream: S,
    bytes: BytesMut,
    /// The error of the last attempt to send, until `h2` reads it.
    failed: Option<io::Error>,
}

/// Wraps `stream`. [`CoalescedWrites::send`] must be called in the task that polls `h2`.
pub(crate) fn coalesce<S>(stream: S) -> (CoalescingIo<S>, CoalescedWrites<S>) {
    let collected =
        Arc::new(Mutex::new(Collected { stream, bytes: BytesMut::new(), failed: None }));
    let activity: Arc<AtomicBool> = Arc::default();
    let io = CoalescingIo { collected: Arc::clone(&collected), activity: Arc::clone(&activity) };
    (io, CoalescedWrites { collected, activity })
}

/// Both halves are used by one task, so this lock is never contended.
fn lock<S>(collected: &Mutex<Collected<S>>) -> MutexGuard<'_, Collected<S>> {
    collected.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> CoalescedWrites<S> {
    /// Returns a flag that is set whenever bytes arrive.
    pub(crate) fn activity(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.activity)
    }

    /// Whether there are bytes that the peer does not accept yet.
    pub(crate) fn is_waiting(&self) -> bool {
        !lock(&self.collected).bytes.is_empty()
    }
}

impl<S: AsyncWrite + Unpin> CoalescedWrites<S> {
    /// Sends as much as the peer accepts; must be called after each poll of `h2`. An error is
    /// returned when `h2` reads next.
    pub(crate) fn send(&self, context: &mut Context<'_>) {
        let mut collected = lock(&self.collected);
        if collected.bytes.is_empty() {
            return;
        }
        if let Poll::Ready(Err(error)) = collected.poll_send(context) {
            collected.failed = Some(error);
            context.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> Collected<S> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(written);
        }
        match self.bytes.capacity() > ROOM {
            true => self.bytes = BytesMut::new(),
            false => self.bytes.clear(),
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the buffer can take `length` more bytes, or is empty.
    fn poll_room(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<()>> {
        if self.bytes.len() + length > FULL {
            ready!(self.poll_drain(context))?;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(ROOM);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CoalescingIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut collected = lock(&self.collected);
        if let Some(error) = collected.failed.take() {
            return Poll::Ready(Err(error));
        }
        let read = Pin::new(&mut collected.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.activity.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CoalescingIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut collected = lock(&self.collected);
        ready!(collected.poll_room(context, data.len()))?;
        if data.len() >= LONG {
            ready!(collected.poll_drain(context))?;
            return Pin::new(&mut collected.stream).poll_write(context, data);
        }
        collected.bytes.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        let mut collected = lock(&self.collected);
        ready!(collected.poll_room(context, length))?;
        if length >= LONG {
            ready!(collected.poll_drain(context))?;
            return Pin::new(&mut collected.stream).poll_write_vectored(context, data);
        }
        data.iter().for_each(|part| collected.bytes.extend_from_slice(part));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing; see [`CoalescedWrites::send`].
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut collected = lock(&self.collected);
        ready!(collected.poll_drain(context))?;
        Pin::new(&mut collected.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A stream that counts writes and accepts `takes` bytes.
    #[derive(Default)]
    struct Counting {
        written: Vec<Vec<u8>>,
        takes: usize,
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            let length = data.len().min(self.takes);
            if length == 0 {
                return Poll::Pending;
            }
            self.takes -= length;
            self.written.push(data[..length].to_vec());
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(io: &mut CoalescingIo<Counting>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(io).poll_write(&mut Context::from_waker(Waker::noop()), data)
    }

    /// Returns whether everything was sent.
    fn send(writes: &CoalescedWrites<Counting>) -> bool {
        writes.send(&mut Context::from_waker(Waker::noop()));
        lock(&writes.collected).bytes.is_empty()
    }

    #[test]
    fn short_writes_are_sent_together_and_long_ones_behind_them_as_they_are() {
        let (mut io, writes) = coalesce(Counting { takes: usize::MAX, ..Counting::default() });
        for part in [&b"head"[..], b"and", b"body"] {
            assert!(matches!(write(&mut io, part), Poll::Ready(Ok(n)) if n == part.len()));
        }
        assert!(lock(&writes.collected).stream.written.is_empty());
        assert!(send(&writes));
        assert_eq!(lock(&writes.collected).stream.written, [b"headandbody"]);
        assert!(write(&mut io, b"before").is_ready());
        let long = vec![7; LONG];
        assert!(matches!(write(&mut io, &long), Poll::Ready(Ok(LONG))));
        assert_eq!(lock(&writes.collected).stream.written[1..], [b"before".to_vec(), long]);
    }

    #[test]
    fn a_stream_without_capacity_stops_the_writer() {
        let (mut io, writes) = coalesce(Counting { takes: 5, ..Counting::default() });
        let part = vec![1; FULL / 4];
        (0..4).for_each(|_| assert!(write(&mut io, &part).is_ready()));
        assert!(write(&mut io, &part).is_pending());
        assert!(!send(&writes));
        assert_eq!(lock(&writes.collected).bytes.len(), FULL - 5);
        lock(&writes.collected).stream.takes = usize::MAX;
        assert!(send(&writes) && write(&mut io, &part).is_ready());
    }

    #[tokio::test]
    async fn a_reader_receives_the_error_of_a_failed_send() {
        let (near, far) = tokio::io::duplex(64);
        let (mut io, writes) = super::coalesce(near);
        io.write_all(b"anybody?").await.unwrap();
        drop(far);
        writes.send(&mut Context::from_waker(Waker::noop()));
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn all_is_sent_before_the_end() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut io, _writes) = super::coalesce(near);
        io.write_all(b"goodbye").await.unwrap();
        io.shutdown().await.unwrap();
        let mut said = String::new();
        far.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "goodbye");
    }
}
