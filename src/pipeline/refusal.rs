//! Answers of the proxy's own: refusals, and the end of their records.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response, StatusCode, header};

use super::ResponseBody;
use crate::audit::go_quote::quote;
use crate::audit::record::Record;
use crate::request::InfoError;
use crate::sink::Ack;
use crate::status::Status;
use crate::upstream::SendError;

/// Answers `status` to a request of nobody, with `shown` in its one event.
pub(super) async fn refuse_unauthenticated(
    record: Record,
    status: &Status,
    shown: Status,
) -> Response<ResponseBody> {
    let (strict, target) = (record.is_strict(), record.facts().target.clone());
    let ack = record.refused_unauthenticated(shown);
    match waited(strict, ack).await {
        Ok(()) => known(status),
        Err(NotStored) => unrecorded(&target),
    }
}

/// Ends the record with a refusal of our own, and answers with it.
pub(super) async fn refuse(mut record: Record, status: Status) -> Response<ResponseBody> {
    let response = known(&status);
    record.answered_here(status);
    finish(record, response).await
}

/// kube-apiserver's plain text for URLs that it cannot resolve, whose events have only the code.
pub(super) async fn refuse_unresolved(
    mut record: Record,
    error: InfoError,
) -> Response<ResponseBody> {
    let uri = quote(record.facts().target.as_str().as_bytes());
    let text = format!("Internal Server Error: {uri}: failed to create RequestInfo: {error}\n");
    record.answered(500, None);
    finish(record, plain_text(StatusCode::INTERNAL_SERVER_ERROR, text)).await
}

/// The request's first event could not be stored, and must be (`blocking-strict`).
pub(super) fn rejected(record: Record) -> Response<ResponseBody> {
    let response = unrecorded(&record.facts().target);
    record.rejected(500);
    response
}

/// What kube-apiserver says to a request that it may not record.
pub(super) fn unrecorded(target: &PathAndQuery) -> Response<ResponseBody> {
    let uri = quote(target.as_str().as_bytes());
    let text = format!("Internal Server Error: {uri}: failed to store audit event\n");
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    plain_text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

pub(super) async fn unreachable_upstream(
    record: Record,
    error: &SendError,
) -> Response<ResponseBody> {
    if error.is_clients_fault() {
        // The client broke off its body: it is gone, and so is its request.
        return finish(record, known(&Status::client_gone())).await;
    }
    tracing::warn!(%error, "the API server did not answer");
    let message = "the proxy cannot reach the API server";
    refuse(record, Status::service_unavailable(message)).await
}

/// Writes what is left of the record of an answer that is known in full; gives the answer.
pub(super) async fn finish(
    mut record: Record,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let (strict, target) = (record.is_strict(), record.facts().target.clone());
    let started = waited(strict, record.response_started()).await;
    match waited(strict, record.complete()).await.and(started) {
        Ok(()) => response,
        Err(NotStored) => unrecorded(&target),
    }
}

/// An event is not in the log, and must be (`blocking-strict`). That has been counted and logged.
#[derive(Debug)]
pub(super) struct NotStored;

/// Waits until an event is stored, if the mode is to wait.
pub(super) async fn stored(record: &Record, ack: Option<Ack>) -> Result<(), NotStored> {
    waited(record.is_strict(), ack).await
}

/// As [`stored`], where the record is gone.
pub(super) async fn waited(strict: bool, ack: Option<Ack>) -> Result<(), NotStored> {
    match ack {
        Some(ack) => ack.await.or(if strict { Err(NotStored) } else { Ok(()) }),
        None => Ok(()),
    }
}

pub(super) fn known(status: &Status) -> Response<ResponseBody> {
    status.to_response().map(ResponseBody::known)
}

pub(super) fn plain_text(code: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::known(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
