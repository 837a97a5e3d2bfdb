//! One request on an HTTP/2 connection. It runs in the calling task: no channel and no separate
//! task are needed, except for a body that continues after its response has started.

use std::future::{Future, poll_fn};
use std::pin::Pin;

use h2::Reason;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use tokio_util::task::AbortOnDropHandle;

use super::http2::Http2Lease;
use super::http2_body::Http2Body;
use super::request_body::{KEPT, Outgoing};
use crate::http2::SendBody;

/// Why a request got no response.
pub(super) struct SendFailure {
    pub(super) error: h2::Error,
    /// No byte was written, because the connection accepts no more requests.
    pub(super) unsent: bool,
    pub(super) stream: Http2Lease,
}

/// Sends `request` on `stream`, and returns the response when its head has arrived. If necessary,
/// the body is sent on after that. Dropping this future, or the response before its end, resets the
/// stream.
pub(super) async fn send(
    stream: Http2Lease,
    request: Request<Outgoing>,
) -> Result<Response<Http2Body>, SendFailure> {
    let (mut head, body) = request.into_parts();
    announce_length(&head.method, &mut head.headers, &body);
    let is_head = head.method == Method::HEAD;
    let without_body = body.is_end_stream();
    let mut sender = stream.sender();
    let sent = sender.send_request(Request::from_parts(head, ()), without_body);
    let (mut response, send_stream) = match sent {
        Ok(sent) => sent,
        Err(error) => {
            // Always ready unless the connection has failed or has no stream IDs left.
            let ready = poll_fn(|context| sender.poll_ready(context)).await;
            return Err(SendFailure { error, unsent: ready.is_err(), stream });
        }
    };
    drop(sender);
    let mut upload = match (without_body, body) {
        (true, _) => None,
        // A kept body is in memory anyway.
        (false, body) => Some(SendBody::new(body, send_stream, KEPT, Reason::CANCEL)),
    };
    let answered = poll_fn(|context| {
        if let Some(running) = &mut upload
            && Pin::new(running).poll(context).is_ready()
        {
            upload = None;
        }
        Pin::new(&mut response).poll(context)
    })
    .await;
    match answered {
        Ok(answer) => {
            let upload = upload.map(|upload| {
                let lease = stream.again();
                AbortOnDropHandle::new(tokio::spawn(async move {
                    upload.await;
                    drop(lease);
                }))
            });
            Ok(Http2Body::answer(answer, is_head, stream, upload))
        }
        Err(error) => Err(SendFailure { error, unsent: false, stream }),
    }
}

/// Sets the content length of the body, if it is known and not set yet.
fn announce_length(method: &Method, headers: &mut HeaderMap, body: &Outgoing) {
    // For these methods, no body and an empty one are equivalent (RFC 9110, 8.6).
    let needs_none = matches!(*method, Method::GET | Method::HEAD | Method::DELETE);
    if let Some(length) = body.size_hint().exact()
        && !(length == 0 && needs_none)
    {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}
