//! Responses of the proxy itself: each refuses a request and ends its record. Their futures are
//! boxed, since they are rare and requests are copied when they become tasks.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response, StatusCode, header};
use k8s_audit::go::quote;

use super::ResponseBody;
use crate::audit::record::AuditContext;
use crate::filters::cors::SkipCors;
use crate::upstream::SendError;
use crate::upstream::access::{Access, Denial};
use k8s_audit::request::InfoError;
use k8s_audit::status::Status;

const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, private");

/// Delay after which a client may repeat a request whose outcome is unknown.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Responds with `status` to an unauthenticated request, whose only event has the Status `shown`.
pub(super) fn refuse_unauthenticated(
    record: Box<AuditContext>,
    status: &Status,
    shown: Status,
) -> BoxFuture<'static, Response<ResponseBody>> {
    let response = known(status);
    let target = record.facts().target.clone();
    let commit = record.refused_unauthenticated(shown);
    async move {
        match commit.await {
            Ok(()) => response,
            Err(_) => unrecorded(&target),
        }
    }
    .boxed()
}

/// Responds 503 to a request whose token cannot be authenticated now.
pub(super) fn refuse_unavailable(
    mut record: Box<AuditContext>,
    denial: Option<Denial>,
) -> BoxFuture<'static, Response<ResponseBody>> {
    let message = match denial {
        Some(denial) => denial.message(Access::TokenReview),
        None => "token authentication is temporarily unavailable",
    };
    if denial.is_some() {
        record.access_denied(message);
    }
    let status = Status::service_unavailable(message);
    refuse_unauthenticated(record, &status, status.clone())
}

/// Refuses the request with `status`, and ends its record.
pub(super) fn refuse(
    mut record: Box<AuditContext>,
    status: Status,
) -> BoxFuture<'static, Response<ResponseBody>> {
    let response = known(&status);
    record.responded_by_proxy(status);
    finish(record, response)
}

/// Responds with kube-apiserver's plain text for URLs that it cannot resolve. The event has only
/// the code.
pub(super) fn refuse_unresolved(
    mut record: Box<AuditContext>,
    error: InfoError,
) -> BoxFuture<'static, Response<ResponseBody>> {
    let target = record.facts().target.as_str();
    let uri = quote(target.as_bytes());
    let text =
        format!("Internal Server Error: {uri}: failed to create RequestInfo: {error}, {target}\n");
    record.answered(500, None);
    finish(record, plain_text(StatusCode::INTERNAL_SERVER_ERROR, text))
}

/// Refuses a request whose first event could not be stored (`blocking-strict`).
pub(super) fn rejected(record: Box<AuditContext>) -> Response<ResponseBody> {
    let response = unrecorded(&record.facts().target);
    record.rejected(500);
    response
}

/// Returns kube-apiserver's response to a request that it cannot record.
pub(super) fn unrecorded(target: &PathAndQuery) -> Response<ResponseBody> {
    let uri = quote(target.as_str().as_bytes());
    let text = format!("Internal Server Error: {uri}: failed to store audit event\n");
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    plain_text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

pub(super) fn unreachable_upstream(
    record: Box<AuditContext>,
    error: &SendError,
) -> BoxFuture<'static, Response<ResponseBody>> {
    if error.is_clients_fault() {
        // The client aborted the request body, so it does not wait for a response.
        return finish(record, known(&Status::client_gone()));
    }
    tracing::warn!(%error, "the API server did not respond");
    if error.is_outcome_unknown() {
        return outcome_unknown(record, error);
    }
    let message = "the proxy cannot reach the API server";
    refuse(record, Status::service_unavailable(message))
}

/// Responds 503 to a request that the API server may have processed; the event has an annotation.
///
/// `Retry-After` is a date here. client-go ignores that form, which is intended: given seconds, it
/// sends the request again by itself, whatever its method is.
fn outcome_unknown(
    mut record: Box<AuditContext>,
    error: &SendError,
) -> BoxFuture<'static, Response<ResponseBody>> {
    let (why, message) = match error {
        SendError::Unreadable { .. } => (
            "the API server's response cannot be parsed; the request may have been processed",
            "the API server sent a response that the proxy cannot parse; the request may have been processed",
        ),
        _ => (
            "the connection to the API server was lost before its response; the request may have been processed",
            "the proxy lost the connection to the API server before its response; the request may have been processed",
        ),
    };
    record.outcome_unknown(why);
    let status = Status::outcome_unknown(message);
    let mut response = known(&status);
    let retry_at = httpdate::fmt_http_date(SystemTime::now() + RETRY_AFTER);
    if let Ok(retry_at) = HeaderValue::from_str(&retry_at) {
        response.headers_mut().insert(header::RETRY_AFTER, retry_at);
    }
    record.responded_by_proxy(status);
    finish(record, response)
}

/// Responds 504 to a request that exceeded its deadline, in the form of kube-apiserver: a Status
/// without kind and version, as plain text and without CORS headers. The event has the differently
/// worded Status of kube-apiserver's handler. With `outcome_unknown`, the API server may have
/// processed the request.
pub(super) fn timed_out(
    mut record: Box<AuditContext>,
    outcome_unknown: bool,
) -> BoxFuture<'static, Response<ResponseBody>> {
    if outcome_unknown {
        record.outcome_unknown(
            "the API server had not responded when the request timed out; the request may have been processed",
        );
    }
    let mut text = Vec::from(b"{\"metadata\":{}");
    Status::timeout("request did not complete within the allotted timeout").push_members(&mut text);
    text.extend_from_slice(b"}\n");
    let mut response = Response::new(ResponseBody::known(Bytes::from(text)));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.extensions_mut().insert(SkipCors);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PLAIN_TEXT);
    headers.insert(header::CACHE_CONTROL, NO_CACHE);
    let message = "request did not complete within requested timeout - context deadline exceeded";
    record.responded_by_proxy(Status::timeout(message));
    finish(record, response)
}

/// Responds 429 because too many requests are in flight. Like in kube-apiserver, the event has only
/// the code.
pub(super) fn too_many_requests(
    mut record: Box<AuditContext>,
) -> BoxFuture<'static, Response<ResponseBody>> {
    let text = "Too many requests, please try again later.\n".to_owned();
    let mut response = plain_text(StatusCode::TOO_MANY_REQUESTS, text);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(header::CACHE_CONTROL, NO_CACHE);
    record.answered(StatusCode::TOO_MANY_REQUESTS.as_u16(), None);
    finish(record, response)
}

/// Responds 503 because the API server denied the proxy's own access.
pub(super) fn access_denied(
    mut record: Box<AuditContext>,
    access: Access,
    denial: Denial,
) -> BoxFuture<'static, Response<ResponseBody>> {
    let message = denial.message(access);
    record.access_denied(message);
    refuse(record, Status::service_unavailable(message))
}

/// Completes the record of a request whose whole response is known, and returns the response.
pub(super) fn finish(
    mut record: Box<AuditContext>,
    response: Response<ResponseBody>,
) -> BoxFuture<'static, Response<ResponseBody>> {
    async move {
        let target = record.facts().target.clone();
        let started = record.response_started().await;
        if record.is_heavy() {
            match record.digested().await {
                Some(digested) => record = digested,
                // The `Panic` event has been written; the client gets the response to any panic.
                None => return panicked(),
            }
        }
        match record.complete().await.and(started) {
            Ok(()) => response,
            Err(_) => unrecorded(&target),
        }
    }
    .boxed()
}

/// Returns kube-apiserver's response to a request whose handler panicked.
pub(super) fn panicked() -> Response<ResponseBody> {
    let text = "This request caused apiserver to panic. Look in the logs for details.";
    plain_text(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}\n"))
}

pub(super) fn known(status: &Status) -> Response<ResponseBody> {
    status.to_response().map(ResponseBody::known)
}

pub(super) fn plain_text(code: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::known(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PLAIN_TEXT);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
