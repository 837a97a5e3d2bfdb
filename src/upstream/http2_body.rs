//! The body of a response on an HTTP/2 stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::error::ConnectionError;
use super::http2::Http2Lease;
use crate::http2::ReceiveBody;

/// The body of a response. Unread data blocks its own stream only.
pub(super) struct Http2Body {
    body: ReceiveBody,
    /// The task that sends the rest of the request's body. It continues after the end of the
    /// response, but is aborted if the response is dropped early.
    upload: Option<AbortOnDropHandle<()>>,
    /// The lease of the stream, until the end of the body. Dropped after the stream.
    lease: Option<Http2Lease>,
}

impl Http2Body {
    /// Converts a response of `h2` into one of the pool.
    pub(super) fn answer(
        answer: Response<RecvStream>,
        is_head: bool,
        lease: Http2Lease,
        upload: Option<AbortOnDropHandle<()>>,
    ) -> Response<Http2Body> {
        let (head, stream) = answer.into_parts();
        let without_body =
            is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = ReceiveBody::new(stream, &head.headers, without_body);
        let mut body = Http2Body { body, lease: Some(lease), upload };
        if body.is_end_stream() {
            body.end();
        }
        Response::from_parts(head, body)
    }

    fn end(&mut self) {
        self.lease = None;
        if let Some(upload) = self.upload.take() {
            drop(upload.detach());
        }
    }

    fn broken_off(&mut self, error: h2::Error) -> ConnectionError {
        let error = match &self.lease {
            // NO_ERROR may follow a complete response, whose end is detected first (RFC 9113, 8.1).
            _ if error.reason() == Some(Reason::NO_ERROR) => ConnectionError::Unfinished,
            Some(lease) => lease.connection().explain(error),
            None => ConnectionError::Http2(error),
        };
        self.lease = None;
        error
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = ConnectionError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        let body = self.get_mut();
        let frame = ready!(Pin::new(&mut body.body).poll_frame(context));
        if body.is_end_stream() {
            body.end();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| body.broken_off(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
