//! Closes connections so that the client can still read the last response.
//!
//! A response can precede the end of the request's body, such as a 403 to a large object. Closing a
//! socket with unread bytes resets the connection, and the client loses a response that it has not
//! read yet. So the remaining bytes are read and discarded for a while; Go's server, and so
//! kube-apiserver, waits 500 ms there (`rstAvoidanceDelay`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::pipeline::Connection;

/// Maximum time for which the client may continue to send.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is read to its end, within limits, when it is shut down; unless it was
/// upgraded, since the client may continue to send then.
pub(super) struct Lingering<S> {
    stream: S,
    connection: Arc<Connection>,
    state: State,
}

enum State {
    Open,
    /// Nothing more is written; bytes that are read are discarded.
    Draining(Pin<Box<Sleep>>),
    Closed,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>) -> Lingering<S> {
        Lingering { stream, connection, state: State::Open }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lingering<S> {
    /// Returns ready when the client has sent everything.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Open => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                    this.state = match this.connection.is_upgraded() {
                        true => State::Closed,
                        false => State::Draining(Box::pin(tokio::time::sleep(PATIENCE))),
                    };
                }
                State::Draining(patience) => {
                    if patience.as_mut().poll(context).is_pending() {
                        ready!(this.poll_drain(context));
                    }
                    this.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}
