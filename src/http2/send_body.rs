//! The body that is sent on a stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// Sends a body. Ready when h2 has all of it, when the peer accepts no more of it, or when the body
/// failed, which resets the stream.
pub(crate) struct SendBody<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// How many bytes may still be sent before the peer's flow-control window allows it.
    eager: usize,
    /// The reason with which the stream is reset if the body fails.
    broken_off: Reason,
    /// Data that waits for the flow-control window, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl<B> SendBody<B> {
    /// Sends `body` on `stream`. The first `eager` bytes are passed to h2 without waiting for the
    /// flow-control window, because most bodies are shorter. If the body fails, the stream is reset
    /// with the reason `broken_off`.
    pub(crate) fn new(
        body: B,
        stream: SendStream<Bytes>,
        eager: usize,
        broken_off: Reason,
    ) -> SendBody<B> {
        SendBody { body, stream, eager, broken_off, waiting: None }
    }

    /// Waits until the flow-control window is open; `false` if the peer accepts no more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    /// Passes `data` to h2. Returns whether more data can follow.
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
                    // While the body has no data, detect that the peer resets the stream.
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
                    // This fails only if the stream has ended already.
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
                    // Reserves only 1 byte: capacity is shared with other streams, and h2 buffers
                    // whatever is sent once there is any.
                    self.stream.reserve_capacity(1);
                    self.waiting = Some((data, last));
                }
            }
        }
    }
}
