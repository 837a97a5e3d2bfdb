//! The answer's body, which gives its place on the connection back when it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1::Http1Lease;
use super::http2::Http2Lease;

/// The body of an answer from the API server. Dropping it early resets the stream, or closes an
/// HTTP/1.1 connection.
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

/// What a request holds of its connection until its answer has ended.
pub(super) enum Lease {
    Http2 { stream: Http2Lease },
    Http1(Http1Lease),
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>) -> UpstreamBody {
        let mut body = UpstreamBody { incoming, lease };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    fn release(&mut self) {
        if let Some(Lease::Http1(lease)) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = self.get_mut();
        let frame = ready!(Pin::new(&mut body.incoming).poll_frame(context));
        match &frame {
            Some(Ok(_)) if !body.incoming.is_end_stream() => {}
            Some(Ok(_)) | None => body.release(),
            Some(Err(_)) => body.lease = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
