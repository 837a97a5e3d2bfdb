//! One request on an HTTP/2 connection. All of it happens in the task that asks: no channel, and
//! no task of its own, except for a body that goes on after its answer has begun.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use tokio_util::task::AbortOnDropHandle;

use super::http2::Http2Lease;
use super::http2_body::Http2Body;
use super::request_body::{KEPT, Outgoing};

/// Why a request got no answer.
pub(super) struct NoAnswer {
    pub(super) error: h2::Error,
    /// Not a byte of it was written, because the connection takes no more requests.
    pub(super) unsent: bool,
    pub(super) stream: Http2Lease,
}

/// Sends `request` on `stream`, and returns the answer when its head has come. The body goes on
/// after that if need be. Dropping this, or the answer before its end, resets the stream.
pub(super) async fn send(
    stream: Http2Lease,
    request: Request<Outgoing>,
) -> Result<Response<Http2Body>, NoAnswer> {
    let (mut head, body) = request.into_parts();
    announce_length(&head.method, &mut head.headers, &body);
    let is_head = head.method == Method::HEAD;
    let without_body = body.is_end_stream();
    let mut sender = stream.sender();
    let sent = sender.send_request(Request::from_parts(head, ()), without_body);
    let (mut response, send_stream) = match sent {
        Ok(sent) => sent,
        Err(error) => {
            // Ready is what it is unless it has failed, or has no stream IDs left.
            let ready = poll_fn(|context| sender.poll_ready(context)).await;
            return Err(NoAnswer { error, unsent: ready.is_err(), stream });
        }
    };
    drop(sender);
    let mut upload = match (without_body, body) {
        (true, _) => None,
        (false, body) => Some(Upload { body, stream: send_stream, eager: KEPT, waiting: None }),
    };
    let answered = poll_fn(|context| {
        if let Some(running) = &mut upload
            && running.poll(context).is_ready()
        {
            upload = None;
        }
        Pin::new(&mut response).poll(context)
    })
    .await;
    match answered {
        Ok(answer) => {
            let upload = upload.map(|mut upload| {
                let lease = stream.again();
                AbortOnDropHandle::new(tokio::spawn(async move {
                    poll_fn(|context| upload.poll(context)).await;
                    drop(lease);
                }))
            });
            Ok(Http2Body::answer(answer, is_head, stream, upload))
        }
        Err(error) => Err(NoAnswer { error, unsent: false, stream }),
    }
}

/// Says how long the body is, if that is known and not said yet.
fn announce_length(method: &Method, headers: &mut HeaderMap, body: &Outgoing) {
    // For these no body and an empty one are the same (RFC 9110, 8.6).
    let needs_none = matches!(*method, Method::GET | Method::HEAD | Method::DELETE);
    if let Some(length) = body.size_hint().exact()
        && !(length == 0 && needs_none)
    {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

/// A request's body on its way into its stream.
struct Upload {
    body: Outgoing,
    stream: SendStream<Bytes>,
    /// How much may still be handed over without room for it at the server: most bodies are smaller,
    /// and of these nothing has to wait here. It is in memory anyway, to be sent again.
    eager: usize,
    /// Read, but without room at the server; and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl Upload {
    /// Sends what there is. Ready when the whole body was handed over, or the stream wants no more
    /// of it; how the request came out, only its answer says.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
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
                if self.stream.send_data(data, last).is_err() || last {
                    return Poll::Ready(());
                }
            }
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // Whoever waits for the client must also hear the server give up.
                    let _: Result<Reason, h2::Error> = ready!(self.stream.poll_reset(context));
                    return Poll::Ready(());
                }
            };
            match frame {
                Some(Ok(frame)) => {
                    // Trailers of requests are not passed on.
                    let Ok(data) = frame.into_data() else { continue };
                    let last = self.body.is_end_stream();
                    match self.eager.checked_sub(data.len()) {
                        Some(left) => {
                            self.eager = left;
                            if self.stream.send_data(data, last).is_err() || last {
                                return Poll::Ready(());
                            }
                        }
                        None => {
                            self.eager = 0;
                            // No more than that: room is shared with other streams, and there is
                            // enough of it for all that was read as soon as there is any.
                            self.stream.reserve_capacity(1);
                            self.waiting = Some((data, last));
                        }
                    }
                }
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                None => {
                    // It fails on a stream that has ended, which is as good.
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Waits until the server has room for more; `false` if it wants no more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }
}
