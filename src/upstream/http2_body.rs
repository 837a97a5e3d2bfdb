//! The body of an answer on an HTTP/2 stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::error::ConnectionError;
use super::http2::Http2Lease;

/// An answer's body. What is not read of it stops its stream, and no other.
pub(super) struct Http2Body {
    stream: RecvStream,
    /// Bytes still to come, where the answer says how many.
    remaining: Option<u64>,
    /// All data has been read; trailers may follow.
    data_ended: bool,
    ended: bool,
    /// The rest of the request's body. Goes on after the answer's end, but not if that is broken off.
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
        let ended = stream.is_end_stream();
        let without_body =
            is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // h2 has checked that it is a number, and counts along.
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
        let remaining = match ended {
            true => Some(0),
            false => declared.map(|length| if without_body { 0 } else { length }),
        };
        let lease = Some(lease);
        let mut body = Http2Body { stream, remaining, data_ended: ended, ended, upload, lease };
        if ended {
            body.end();
        }
        Response::from_parts(head, body)
    }

    fn end(&mut self) {
        self.ended = true;
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
        if body.ended {
            return Poll::Ready(None);
        }
        if !body.data_ended {
            match ready!(body.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // It can only fail if more is released than came.
                    let _ = body.stream.flow_control().release_capacity(data.len());
                    body.remaining = body.remaining.map(|r| r.saturating_sub(data.len() as u64));
                    if body.stream.is_end_stream() {
                        body.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(body.broken_off(error)))),
                None => body.data_ended = true,
            }
        }
        let trailers = ready!(body.stream.poll_trailers(context));
        Poll::Ready(match trailers {
            Ok(trailers) => {
                body.end();
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(error) => Some(Err(body.broken_off(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
