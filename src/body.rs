//! The bodies of requests that the proxy forwards.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::http2::RequestStream;

/// An error of a forwarded body; only the log uses its text.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way to the API server.
pub enum RequestBody {
    /// No body, or one that is known completely. Such a request can be sent again.
    Known(Option<Bytes>),
    /// The client's body, which is streamed.
    Client {
        /// The client's body.
        body: ClientBody,
        /// Receives each data frame, and the end.
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
    /// Creates the body of an HTTP/1.1 request.
    pub fn http1(body: Incoming) -> ClientBody {
        ClientBody(Source::Http1(body))
    }

    /// Creates the body of an HTTP/2 request.
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
                    // The response does not depend on the rest of the body (RFC 9113, 8.1).
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

/// Maximum duration of a recorded body, which uses memory that others may need. It is the time that
/// kube-apiserver allows for a whole request (`--request-timeout`).
pub(crate) const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// The client did not complete its body in time.
#[derive(Debug, thiserror::Error)]
#[error("the request body was not complete after {BODY_DEADLINE:?}")]
pub(crate) struct BodyTimeout;

/// Observes a body while it is forwarded. Must never delay or change it.
pub trait Tap: Send {
    /// Receives the next bytes of the body.
    fn data(&mut self, data: &Bytes);
    /// Called when the whole body has been received.
    fn end(&mut self);
    /// Called while the proxy waits for more of the body. Ready when that has taken too long; the
    /// body then fails.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// The deadline of a body. The time starts when the proxy first waits for more of it, because most
/// bodies are available immediately.
#[derive(Default)]
pub(crate) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timer = || Box::pin(tokio::time::sleep(BODY_DEADLINE));
        self.0.get_or_insert_with(timer).as_mut().poll(context)
    }
}

impl RequestBody {
    /// A request without a body.
    pub const EMPTY: RequestBody = RequestBody::Known(None);

    /// Returns a copy of the body, if it is known completely.
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
                let Poll::Ready(mut frame) = Pin::new(&mut *body).poll_frame(context) else {
                    let Some(waiting) = tap else { return Poll::Pending };
                    ready!(waiting.poll_deadline(context));
                    *tap = None;
                    return Poll::Ready(Some(Err(BodyTimeout.into())));
                };
                // Trailers are not validated like headers; Kubernetes has none in requests.
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
