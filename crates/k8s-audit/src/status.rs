//! `metav1.Status`: how Kubernetes says what went wrong, and right.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;

use crate::json::{push_number, push_string};

/// A `metav1.Status`, less `kind`, `apiVersion` and `metadata`, which never vary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `Success` or `Failure`; may be empty.
    pub status: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// For machines: `NotFound`, `Forbidden`, …; may be empty.
    pub reason: Cow<'static, str>,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// HTTP status code; 0 where there is none.
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
    /// What is wrong with which field.
    pub causes: Vec<Cause>,
    /// Seconds until a new try is worthwhile; 0 where it is not said.
    pub retry_after_seconds: i32,
}

/// `metav1.StatusCause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// For machines.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

impl Status {
    /// A code of which nothing more is said.
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

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401, in the words that kube-apiserver uses for every failed authentication.
    pub fn unauthorized() -> Status {
        Status::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>, details: Option<Box<Details>>) -> Status {
        let status = Status::failure(StatusCode::FORBIDDEN, "Forbidden", message);
        Status { details, ..status }
    }

    /// 404 for a URL that no resource has, or for an object that does not exist.
    pub fn not_found(message: impl Into<String>, details: Details) -> Status {
        let status = Status::failure(StatusCode::NOT_FOUND, "NotFound", message);
        Status { details: Some(Box::new(details)), ..status }
    }

    /// 405, with kube-apiserver's message.
    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource";
        let status = Status::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        Status { details: Some(Box::default()), ..status }
    }

    /// 500: the proxy's own fault.
    pub fn internal_error(message: impl Into<String>) -> Status {
        Status::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 503: the request was not processed, and may be sent again after a second.
    pub fn service_unavailable(message: impl Into<String>) -> Status {
        let retry = Details { retry_after_seconds: 1, ..Details::default() };
        let status = Status::outcome_unknown(message);
        Status { details: Some(Box::new(retry)), ..status }
    }

    /// 503: it is not known whether the request was processed. Without `retryAfterSeconds`, which
    /// would make client-go send the request again.
    pub fn outcome_unknown(message: impl Into<String>) -> Status {
        Status::failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 413, in the words that kube-apiserver uses for a body of more than `limit` bytes.
    pub fn too_large(limit: usize) -> Status {
        let message = format!("Request entity too large: limit is {limit}");
        Status::failure(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 429: the client can try again after so many seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Status {
        let details = Details { retry_after_seconds, ..Details::default() };
        let status = Status::failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        Status { details: Some(Box::new(details)), ..status }
    }

    /// 504, in the form of kube-apiserver's timeout errors.
    pub fn timeout(message: &str) -> Status {
        let message = format!("Timeout: {message}");
        let status = Status::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        Status { details: Some(Box::default()), ..status }
    }

    /// What kube-apiserver records for a request whose client went away before the answer: a 504
    /// that nobody receives.
    pub fn client_gone() -> Status {
        let message =
            "Timeout: request did not complete within requested timeout - context canceled";
        let status = Status::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        Status { details: Some(Box::default()), ..status }
    }

    /// Appends the members that `responseStatus` and a Status object share, each with a leading
    /// comma, empty ones left out.
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

    /// The whole object as JSON with the newline that kube-apiserver ends its answers with.
    pub fn to_json(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{}");
        self.push_members(&mut out);
        out.extend_from_slice(b"}\n");
        out.into()
    }

    /// An HTTP answer of it, with the headers that kube-apiserver gives such answers.
    pub fn to_response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.to_json());
        *response.status_mut() =
            StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
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

/// Makes an object of the members appended since `start`, each of which has a leading comma.
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
