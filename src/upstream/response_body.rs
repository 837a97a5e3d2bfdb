//! The body of a response, which returns its place on the connection when it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::ConnectionError;
use super::http1::Http1Lease;
use super::http2_body::Http2Body;

/// The body of a response from the API server. Dropping it early resets the stream, or closes an
/// HTTP/1.1 connection.
pub struct UpstreamBody(Kind);

enum Kind {
    Http1 { incoming: Incoming, lease: Option<Http1Lease> },
    Http2(Http2Body),
}

impl UpstreamBody {
    /// Creates the body of an HTTP/1.1 response. `lease` is a connection that accepts another
    /// request after it.
    pub(super) fn http1(incoming: Incoming, lease: Option<Http1Lease>) -> UpstreamBody {
        let mut lease = lease;
        if incoming.is_end_stream() {
            give_back(&mut lease);
        }
        UpstreamBody(Kind::Http1 { incoming, lease })
    }

    pub(super) fn http2(body: Http2Body) -> UpstreamBody {
        UpstreamBody(Kind::Http2(body))
    }
}

fn give_back(lease: &mut Option<Http1Lease>) {
    if let Some(lease) = lease.take() {
        lease.give_back();
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ConnectionError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        match &mut self.get_mut().0 {
            Kind::Http1 { incoming, lease } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
                match &frame {
                    Some(Ok(_)) if !incoming.is_end_stream() => {}
                    Some(Ok(_)) | None => give_back(lease),
                    Some(Err(_)) => *lease = None,
                }
                Poll::Ready(frame.map(|frame| frame.map_err(ConnectionError::Http1)))
            }
            Kind::Http2(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http1 { incoming, .. } => incoming.is_end_stream(),
            Kind::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http1 { incoming, .. } => incoming.size_hint(),
            Kind::Http2(body) => body.size_hint(),
        }
    }
}
