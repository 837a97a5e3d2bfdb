//! The body that goes out on a stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// A body on its way into its stream. Ready when all of it was handed over, when the peer wants no
/// more of it, or when it broke off, which resets the stream.
pub(crate) struct SendBody<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// How much may still be handed over without room for it at the peer.
    eager: usize,
    /// Says to the peer that the body broke off.
    broken_off: Reason,
    /// Read, but without room at the peer; and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl<B> SendBody<B> {
    /// Sends `body` on `stream`; its first `eager` bytes without waiting for room at the peer, as
    /// most bodies are shorter. If it breaks off, the stream is reset for this reason.
    pub(crate) fn new(
        body: B,
        stream: SendStream<Bytes>,
        eager: usize,
        broken_off: Reason,
    ) -> SendBody<B> {
        SendBody { body, stream, eager, broken_off, waiting: None }
    }

    /// Waits until the peer has room for more; `false` if it wants no more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    /// Hands `data` over; whether more is to follow.
    fn send(&mut self, data: Bytes, last: bool) -> bool {
        self.stream.send_data(data, last).is_ok() && !last
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for SendBody<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some((data, last)) = self.waiting.take() {
                match self.poll_room(context) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => {
                        self.waiting = Some((data, last));
                        return Poll::Pending;
                    }
                }
                if !self.send(data, last) {
                    return Poll::Ready(());
                }
            }
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // Whoever waits for the body must also hear the peer give up.
                    let _: Result<Reason, h2::Error> = ready!(self.stream.poll_reset(context));
                    return Poll::Ready(());
                }
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    let reason = self.broken_off;
                    self.stream.send_reset(reason);
                    return Poll::Ready(());
                }
                None => {
                    // It fails on a stream that has ended, which is as good.
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = self.stream.send_trailers(trailers);
                    }
                    return Poll::Ready(());
                }
            };
            let last = self.body.is_end_stream();
            match self.eager.checked_sub(data.len()) {
                Some(left) => {
                    self.eager = left;
                    if !self.send(data, last) {
                        return Poll::Ready(());
                    }
                }
                None => {
                    self.eager = 0;
                    // No more than that: room is shared with other streams, and there is enough of
                    // it for all that was read as soon as there is any.
                    self.stream.reserve_capacity(1);
                    self.waiting = Some((data, last));
                }
            }
        }
    }
}
