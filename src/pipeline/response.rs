//! Relays responses to the client, and ends the record with them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use super::refusal::{panicked, unrecorded};
use crate::audit::record::{AuditContext, ResponseCaptures};
use crate::body::BodyError;
use crate::filters::{Deadline, Expired};
use crate::request::headers;
use crate::upstream::{ConnectionError, UpstreamBody};
use audit_body::CreatedTap;
use audit_body::StatusTap;
use audit_log::Commit;

/// Maximum time to read ahead in the error response to a long-running request before it is relayed.
const READ_AHEAD: Duration = Duration::from_secs(1);

/// The body of a response.
pub struct ResponseBody(Source);

enum Source {
    /// A complete body. Its record has ended.
    Known(Option<Bytes>),
    /// A body that arrives from the API server.
    Relayed(Box<Relayed>),
}

/// A body that is relayed from the API server to the client frame by frame. The record ends with
/// the body: the last frame is sent only when the record's last event is committed or, if the
/// socket waits for that, accepted.
struct Relayed {
    body: UpstreamBody,
    /// Frames that were read before the response started, and the error that ended reading.
    ahead: VecDeque<Frame<Bytes>>,
    broken: Option<ConnectionError>,
    /// Bytes still to come, if the response declares its length.
    remaining: Option<u64>,
    tap: Option<StatusTap>,
    capture: Option<ResponseCaptures>,
    created: Option<CreatedTap>,
    code: u16,
    record: Option<Box<AuditContext>>,
    /// The record, while its bodies are converted on another thread.
    digesting: Option<Digesting>,
    /// The commit of the record's last event, until it is done.
    committing: Option<Commit>,
    /// The last frame, held until the commit is done.
    held: Option<Frame<Bytes>>,
    /// Set for long-running requests, which end at shutdown or at their timeout.
    ending: Option<Ending>,
    /// Set for requests that are not long-running.
    deadline: Option<Deadline>,
    ended: bool,
}

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;
type Digesting = Pin<Box<dyn Future<Output = Option<Box<AuditContext>>> + Send>>;

/// Causes for ending a response before its body is complete.
pub(super) struct EndConditions {
    /// Cancelled at shutdown; used for long-running requests.
    pub process: CancellationToken,
    /// Maximum duration of a watch, if the proxy limits it.
    pub watch_timeout: Option<Duration>,
    /// The deadline of requests that are not long-running.
    pub deadline: Option<Deadline>,
}

impl EndConditions {
    fn long_running(process: CancellationToken, watch_timeout: Option<Duration>) -> Ending {
        match watch_timeout {
            None => Box::pin(process.cancelled_owned()),
            Some(timeout) => Box::pin(async move {
                let _ = tokio::time::timeout(timeout, process.cancelled_owned()).await;
            }),
        }
    }
}

/// Turns the API server's response into the client's. `is_head` means that the method is HEAD;
/// `pretty` that the client requested indented JSON.
pub(super) async fn relay(
    answer: Response<UpstreamBody>,
    mut record: Box<AuditContext>,
    (is_head, pretty): (bool, bool),
    ends: EndConditions,
) -> Response<ResponseBody> {
    let (mut parts, mut body) = answer.into_parts();
    headers::strip_response(&mut parts.headers);
    let code = parts.status.as_u16();
    let mut tap = StatusTap::new(&parts.headers, pretty);
    let mut capture = record.capture_response(code, &parts.headers);

    // If a long-running request failed, `ResponseStarted` already has the Status.
    let mut ahead = VecDeque::new();
    let mut broken = None;
    if record.is_long_running() {
        let mut status = None;
        if let Some(tap) = tap.as_mut().filter(|_| code >= 400) {
            // The API server sends a Status immediately, so a slow body is not a Status.
            let reading = read_ahead(&mut body, tap, &mut ahead);
            match Box::pin(tokio::time::timeout(READ_AHEAD, reading)).await {
                Ok(Ok(())) => status = tap.finish(),
                Ok(Err(error)) => broken = Some(error),
                Err(_) => {}
            }
            if let Some(mut capture) =
                capture.take().filter(|_| status.as_ref().is_some_and(|s| s.recorded))
            {
                ahead.iter().filter_map(Frame::data_ref).for_each(|data| capture.push(data));
                record.response_captured(capture, true);
            }
        }
        tap = None;
        if !(is_head && record.responded_to_head(code, &parts.headers, pretty)) {
            record.answered(code, status);
        }
        if record.response_started().await.is_err() {
            // Dropping the record ends it.
            return unrecorded(&record.facts().target);
        }
    }

    let relayed = if ahead.is_empty() && broken.is_none() && body.is_end_stream() {
        let is_told = record.is_long_running()
            || is_head && record.responded_to_head(code, &parts.headers, pretty);
        if !is_told {
            record.answered(code, None);
        }
        let target = record.facts().target.clone();
        if record.is_heavy() {
            match Box::pin(record.digested()).await {
                Some(digested) => record = digested,
                None => return panicked(),
            }
        }
        if record.complete().await.is_err() {
            return unrecorded(&target);
        }
        ResponseBody(Source::Known(None))
    } else {
        let EndConditions { process, watch_timeout, deadline } = ends;
        let ending =
            record.is_long_running().then(|| EndConditions::long_running(process, watch_timeout));
        let remaining = if ahead.is_empty() { body.size_hint().exact() } else { None };
        ResponseBody(Source::Relayed(Box::new(Relayed {
            body,
            ahead,
            broken,
            remaining,
            tap,
            capture,
            created: record.created_tap(code, &parts.headers),
            code,
            record: Some(record),
            digesting: None,
            committing: None,
            held: None,
            ending,
            deadline,
            ended: false,
        })))
    };
    Response::from_parts(parts, relayed)
}

async fn read_ahead(
    body: &mut UpstreamBody,
    tap: &mut StatusTap,
    ahead: &mut VecDeque<Frame<Bytes>>,
) -> Result<(), ConnectionError> {
    while tap.is_collecting() {
        let Some(frame) = body.frame().await.transpose()? else { break };
        if let Some(data) = frame.data_ref() {
            tap.data(data);
        }
        ahead.push_back(frame);
    }
    Ok(())
}

impl ResponseBody {
    /// Returns a complete body whose record has ended.
    pub fn known(bytes: Bytes) -> ResponseBody {
        ResponseBody(Source::Known((!bytes.is_empty()).then_some(bytes)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Source::Known(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Source::Relayed(relayed) => relayed.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Known(bytes) => bytes.is_none(),
            Source::Relayed(relayed) => relayed.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Known(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Source::Relayed(relayed) if relayed.ahead.is_empty() && relayed.held.is_none() => {
                relayed.body.size_hint()
            }
            Source::Relayed(_) => SizeHint::default(),
        }
    }
}

impl Relayed {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.digesting.is_some() || self.committing.is_some() {
            return self.poll_committed(context);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(frame) = self.ahead.pop_front() {
            return self.pass(frame, context);
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(self.broken_off(error))));
        }
        if let Some(ending) = &mut self.ending
            && ending.as_mut().poll(context).is_ready()
        {
            return self.end(None, context);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => self.pass(frame, context),
            Poll::Ready(None) => self.end(None, context),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.broken_off(error)))),
            Poll::Pending => {
                let Some(deadline) = &self.deadline else { return Poll::Pending };
                let expired = ready!(deadline.poll_expired(context));
                Poll::Ready(Some(Err(self.timed_out(expired))))
            }
        }
    }

    /// Aborts the response because the deadline has passed. Like in kube-apiserver, the event has
    /// the code that was sent.
    fn timed_out(&mut self, expired: Expired) -> BodyError {
        if let Some(deadline) = self.deadline.take() {
            deadline.metrics().timeouts_in_response.inc();
        }
        self.break_off("the response was not complete when the request timed out");
        expired.into()
    }

    /// Aborts the client's response because the API server aborted it: a partial response must not
    /// look complete.
    fn broken_off(&mut self, error: ConnectionError) -> BodyError {
        self.break_off("the API server closed the connection before the end of the response");
        error.into()
    }

    fn break_off(&mut self, why: &str) {
        if let Some(mut record) = self.record.take() {
            record.response_incomplete(why);
            self.answered(&mut record, false);
            record.abandon();
        }
        self.ended = true;
    }

    /// Relays a frame. The last one is held until the record's last event is committed.
    fn pass(
        &mut self,
        frame: Frame<Bytes>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = frame.data_ref() {
            if let Some(tap) = &mut self.tap {
                tap.data(data);
            }
            if let Some(capture) = &mut self.capture {
                capture.push(data);
            }
            if let Some(created) = &mut self.created {
                created.data(data);
            }
            if let Some(remaining) = &mut self.remaining {
                *remaining = remaining.saturating_sub(data.len() as u64);
            }
        }
        // An HTTP/1.1 client has the whole response when it has all declared bytes, and the body is
        // not polled again.
        let last = self.ahead.is_empty()
            && self.broken.is_none()
            && (self.body.is_end_stream() || self.remaining == Some(0));
        if last && self.record.is_some() {
            return self.end(Some(frame), context);
        }
        // The deadline also applies to a body whose frames are always ready.
        if self.deadline.as_ref().is_some_and(Deadline::is_expired) {
            return Poll::Ready(Some(Err(self.timed_out(Expired))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn end(
        &mut self,
        last: Option<Frame<Bytes>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Trailers may follow after all declared bytes.
        self.ended = last.is_none() || self.body.is_end_stream();
        self.held = last;
        if let Some(mut record) = self.record.take() {
            self.answered(&mut record, true);
            match record.is_heavy() {
                true if record.is_awaited() => self.digesting = Some(Box::pin(record.digested())),
                true => record.abandon(),
                false => self.committing = Some(record.complete()),
            }
        }
        self.poll_committed(context)
    }

    /// Passes the captured body to the record.
    fn answered(&mut self, record: &mut AuditContext, all: bool) {
        if !record.is_long_running() {
            let status = self.tap.as_ref().and_then(StatusTap::finish);
            let is_status = status.as_ref().is_some_and(|said| said.recorded);
            record.answered(self.code, status);
            // For errors only a Status is recorded, like in kube-apiserver.
            let capture = self.capture.take().filter(|_| self.code < 400 || is_status);
            if let Some(capture) = capture {
                record.response_captured(capture, all);
            }
            if let Some(created) = self.created.take() {
                record.created(created.finish());
            }
        }
    }

    fn poll_committed(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(digesting) = &mut self.digesting {
            let digested = ready!(digesting.as_mut().poll(context));
            self.digesting = None;
            let Some(record) = digested else {
                self.ended = true;
                self.held = None;
                return Poll::Ready(Some(Err("converting a body panicked".into())));
            };
            self.committing = Some(record.complete());
        }
        if let Some(commit) = &mut self.committing {
            let committed = ready!(Pin::new(commit).poll(context));
            self.committing = None;
            if let Err(error) = committed {
                // The response is in progress, so it can only be aborted.
                self.ended = true;
                self.held = None;
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        Poll::Ready(self.held.take().map(Ok))
    }
}

impl Drop for Relayed {
    /// Ends the record if the client disconnects before the end of the response.
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            self.answered(&mut record, false);
            record.abandon();
        }
    }
}
