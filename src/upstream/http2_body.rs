//! The body of an answer on an HTTP/2 stream.

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

/// An answer's body. What is not read of it stops its stream, and no other.
pub(super) struct Http2Body {
    body: ReceiveBody,
    /// The rest of the request's body. Goes on after the answer's end, but not if that is broken
    /// off.
    upload: Option<AbortOnDropHandle<()>>,
    /// The place on the connection, until the end. Dropped after the stream.
    lease: Option<Http2Lease>,
}

impl Http2Body {
    /// Makes of what `h2` gives what the pool gives.
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
            // "No error" follows a complete answer, whose end is found before it (RFC 9113, 8.1).
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
