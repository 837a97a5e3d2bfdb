//! The body that is received on a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

/// The body of a stream. Dropping it resets this stream only.
pub(crate) struct ReceiveBody {
    stream: RecvStream,
    /// The number of bytes still to come, if there is a `Content-Length`.
    remaining: Option<u64>,
    /// All data was received; trailers may follow.
    data_ended: bool,
    ended: bool,
}

impl ReceiveBody {
    /// Creates the body after `headers`. `none`: the status or the method implies that there is no
    /// body, whatever the headers contain.
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap, none: bool) -> ReceiveBody {
        let ended = stream.is_end_stream();
        // h2 has validated the header, and checks the length.
        let declared = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let remaining = match ended || none {
            true => Some(0),
            false => declared(),
        };
        ReceiveBody { stream, remaining, data_ended: ended, ended }
    }
}

impl Body for ReceiveBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.data_ended {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // This fails only if more is released than was received.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.remaining = self.remaining.map(|r| r.saturating_sub(data.len() as u64));
                    self.ended = self.stream.is_end_stream();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context));
        self.ended = trailers.is_ok();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
