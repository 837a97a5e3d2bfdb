//! `metav1.Status`: the outcome of a request.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;

use crate::json::{push_number, push_string};

/// A `metav1.Status` without `kind`, `apiVersion` and `metadata`, which are constant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `Success` or `Failure`; may be empty.
    pub status: Cow<'static, str>,
    /// Description for humans.
    pub message: String,
    /// Machine-readable reason such as `NotFound` or `Forbidden`; may be empty.
    pub reason: Cow<'static, str>,
    /// Details that depend on the reason.
    pub details: Option<Box<Details>>,
    /// HTTP status code; 0 if unset.
    pub code: u16,
}

/// `metav1.StatusDetails`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Details {
    /// Object name.
    pub name: String,
    /// API group.
    pub group: String,
    /// Kind, or often the resource.
    pub kind: String,
    /// Object UID.
    pub uid: String,
    /// Invalid fields.
    pub causes: Vec<Cause>,
    /// Seconds to wait before a retry; 0 if unset.
    pub retry_after_seconds: i32,
}

/// `metav1.StatusCause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// Machine-readable reason.
    pub reason: String,
    /// Description for humans.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

impl Status {
    /// Returns a status with a code only.
    pub fn of_code(code: u16) -> Status {
        Status { code, ..Status::default() }
    }

    fn failure(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Status {
        Status {
            status: Cow::Borrowed("Failure"),
            message: message.into(),
            reason: Cow::Borrowed(reason),
            details: None,
            code: code.as_u16(),
        }
    }

    /// Returns a 400: the request is malformed.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// Returns the 401 that kube-apiserver sends for every failed authentication.
    pub fn unauthorized() -> Status {
        Status::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// Returns a 403.
    pub fn forbidden(message: impl Into<String>, details: Option<Box<Details>>) -> Status {
        let status = Status::failure(StatusCode::FORBIDDEN, "Forbidden", message);
        Status { details, ..status }
    }

    /// Returns a 404: the resource or object does not exist.
    pub fn not_found(message: impl Into<String>, details: Details) -> Status {
        let status = Status::failure(StatusCode::NOT_FOUND, "NotFound", message);
        Status { details: Some(Box::new(details)), ..status }
    }

    /// Returns a 405 with kube-apiserver's message.
    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource";
        let status = Status::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        Status { details: Some(Box::default()), ..status }
    }

    /// Returns a 500.
    pub fn internal_error(message: impl Into<String>) -> Status {
        Status::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// Returns a 503 with `retryAfterSeconds: 1`: the request was not processed and can be retried.
    pub fn service_unavailable(message: impl Into<String>) -> Status {
        let retry = Details { retry_after_seconds: 1, ..Details::default() };
        let status = Status::outcome_unknown(message);
        Status { details: Some(Box::new(retry)), ..status }
    }

    /// Returns a 503 without `retryAfterSeconds`, because the request may have been processed: with
    /// `retryAfterSeconds`, client-go would retry.
    pub fn outcome_unknown(message: impl Into<String>) -> Status {
        Status::failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// Returns the 413 that kube-apiserver sends for a body of more than `limit` bytes.
    pub fn too_large(limit: usize) -> Status {
        let message = format!("Request entity too large: limit is {limit}");
        Status::failure(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// Returns a 429 with `retryAfterSeconds`.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Status {
        let details = Details { retry_after_seconds, ..Details::default() };
        let status = Status::failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        Status { details: Some(Box::new(details)), ..status }
    }

    /// Returns a 504 in the form of kube-apiserver's timeout errors.
    pub fn timeout(message: &str) -> Status {
        let message = format!("Timeout: {message}");
        let status = Status::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        Status { details: Some(Box::default()), ..status }
    }

    /// Returns the 504 that kube-apiserver records if the client disconnects before the response
    /// starts.
    pub fn client_gone() -> Status {
        let message =
            "Timeout: request did not complete within requested timeout - context canceled";
        let status = Status::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        Status { details: Some(Box::default()), ..status }
    }

    /// Appends the members that an event's `responseStatus` and a Status object have in common,
    /// each with a leading comma. Empty ones are omitted.
    pub fn push_members(&self, out: &mut Vec<u8>) {
        push_member(out, "status", &self.status);
        push_member(out, "message", &self.message);
        push_member(out, "reason", &self.reason);
        if let Some(details) = &self.details {
            out.extend_from_slice(b",\"details\":");
            details.push(out);
        }
        if self.code != 0 {
            out.extend_from_slice(b",\"code\":");
            push_number(out, self.code);
        }
    }

    /// Returns the object as JSON, with a final newline like kube-apiserver's responses.
    pub fn to_json(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{}");
        self.push_members(&mut out);
        out.extend_from_slice(b"}\n");
        out.into()
    }

    /// Returns an HTTP response with the headers that kube-apiserver sets on such responses.
    pub fn to_response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.to_json());
        *response.status_mut() =
            StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if self.code == 403 {
            // kube-apiserver sets it in `responsewriters.Forbidden` and in plain text only.
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        let seconds = self.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        if seconds > 0 {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl Details {
    fn push(&self, out: &mut Vec<u8>) {
        let start = out.len();
        push_member(out, "name", &self.name);
        push_member(out, "group", &self.group);
        push_member(out, "kind", &self.kind);
        push_member(out, "uid", &self.uid);
        if !self.causes.is_empty() {
            out.extend_from_slice(b",\"causes\":[");
            for (index, cause) in self.causes.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                let start = out.len();
                push_member(out, "reason", &cause.reason);
                push_member(out, "message", &cause.message);
                push_member(out, "field", &cause.field);
                close_object(out, start);
            }
            out.push(b']');
        }
        if self.retry_after_seconds != 0 {
            out.extend_from_slice(b",\"retryAfterSeconds\":");
            out.extend_from_slice(self.retry_after_seconds.to_string().as_bytes());
        }
        close_object(out, start);
    }
}

/// Turns the members appended since `start`, each with a leading comma, into an object.
fn close_object(out: &mut Vec<u8>, start: usize) {
    if out.len() == start {
        out.push(b'{');
    } else {
        out[start] = b'{';
    }
    out.push(b'}');
}

fn push_member(out: &mut Vec<u8>, name: &str, value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        push_string(out, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_kube_apiserver_writes() {
        let details = Details { name: "read".into(), kind: "pods".into(), ..Details::default() };
        let status = Status::forbidden("no \"<p>\"", Some(Box::new(details)));
        let expected = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no \"\u003cp\u003e\"","reason":"Forbidden","details":{"name":"read","kind":"pods"},"code":403}"#;
        assert_eq!(status.to_json(), format!("{expected}\n"));
        let gone = Status::client_gone().to_json();
        assert!(gone.ends_with(b"\"reason\":\"Timeout\",\"details\":{},\"code\":504}\n"));
    }

    #[test]
    fn details_are_printed_in_the_order_of_the_type() {
        let details = Details {
            uid: "u".into(),
            causes: vec![
                Cause { reason: "r".into(), message: "m".into(), field: "f".into() },
                Cause::default(),
            ],
            retry_after_seconds: 3,
            ..Details::default()
        };
        let mut out = Vec::new();
        details.push(&mut out);
        let expected = r#"{"uid":"u","causes":[{"reason":"r","message":"m","field":"f"},{}],"retryAfterSeconds":3}"#;
        assert_eq!(out, expected.as_bytes());
    }
}
