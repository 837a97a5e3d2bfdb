//! The bodies that pass through the proxy.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::http2::RequestStream;

/// Errors of bodies in transit; what they are matters only to the log.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way to the API server.
pub enum RequestBody {
    /// No body, or one that is known: these requests can be sent again.
    Known(Option<Bytes>),
    /// The client's body, streamed, and looked at in passing if `tap` is there.
    Client {
        /// The client's body.
        body: ClientBody,
        /// Sees each data frame, and the end.
        tap: Option<Box<dyn Tap>>,
    },
}

/// The body of a client's request.
pub struct ClientBody(Source);

enum Source {
    Http1(Incoming),
    Http2(RequestStream),
}

impl ClientBody {
    /// Of a request that hyper has read.
    pub fn http1(body: Incoming) -> ClientBody {
        ClientBody(Source::Http1(body))
    }

    /// Of an HTTP/2 stream.
    pub(crate) fn http2(body: RequestStream) -> ClientBody {
        ClientBody(Source::Http2(body))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Source::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Source::Http2(body) => {
                Poll::Ready(match ready!(Pin::new(body).poll_frame(context)) {
                    // The client needs the answer only, and no more of its own body
                    // (RFC 9113, 8.1).
                    Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => None,
                    frame => frame.map(|frame| frame.map_err(Into::into)),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
        }
    }
}

/// Looks at a body while it passes. Must never delay or change it.
pub trait Tap: Send {
    /// The next bytes of the body.
    fn data(&mut self, data: &Bytes);
    /// The body has ended, with all its bytes seen.
    fn end(&mut self);
}

impl RequestBody {
    /// A request without a body.
    pub const EMPTY: RequestBody = RequestBody::Known(None);

    /// The same body once more, if it is known in full.
    pub fn try_clone(&self) -> Option<RequestBody> {
        match self {
            RequestBody::Known(bytes) => Some(RequestBody::Known(bytes.clone())),
            RequestBody::Client { .. } => None,
        }
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> RequestBody {
        RequestBody::Known((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Known(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            RequestBody::Client { body, tap } => {
                let mut frame = ready!(Pin::new(&mut *body).poll_frame(context));
                // A trailer is a header that nobody has looked at; Kubernetes has none in requests.
                if matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) {
                    frame = None;
                }
                match &frame {
                    Some(Ok(frame)) => {
                        if let (Some(data), Some(tap)) = (frame.data_ref(), tap.as_mut()) {
                            tap.data(data);
                        }
                        if body.is_end_stream()
                            && let Some(mut tap) = tap.take()
                        {
                            tap.end();
                        }
                    }
                    None => {
                        if let Some(mut tap) = tap.take() {
                            tap.end();
                        }
                    }
                    Some(Err(_)) => *tap = None,
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Known(bytes) => bytes.is_none(),
            RequestBody::Client { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Known(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            RequestBody::Client { body, .. } => body.size_hint(),
        }
    }
}
