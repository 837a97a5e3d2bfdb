//! Errors of the demo API, with kube-apiserver's messages.

use http::StatusCode;
use serde_json::{Value, json};

use super::kinds::Kind;
use k8s_audit::status::Status;

/// An error that is returned as a `metav1.Status`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    /// HTTP status.
    pub code: StatusCode,
    /// `Status.reason`.
    pub reason: &'static str,
    /// `Status.message`.
    pub message: String,
    /// `Status.details`; null if there are none.
    pub details: Value,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: String, details: Value) -> ApiError {
        ApiError { code, reason, message, details }
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "BadRequest", message.into(), Value::Null)
    }

    /// 401.
    pub(crate) fn unauthorized() -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized".into(), Value::Null)
    }

    /// 403, from the status that kube-apiserver sends.
    pub(crate) fn forbidden(status: Status) -> ApiError {
        let mut details = json!({});
        if let Some(about) = status.details {
            let members = [("name", about.name), ("group", about.group), ("kind", about.kind)];
            for (key, value) in members.into_iter().filter(|(_, value)| !value.is_empty()) {
                details[key] = value.into();
            }
        }
        ApiError::new(StatusCode::FORBIDDEN, "Forbidden", status.message, details)
    }

    /// 404 for an object.
    pub(crate) fn not_found(kind: &Kind, name: &str) -> ApiError {
        let message = format!("{} {name:?} not found", kind.resource());
        ApiError::new(StatusCode::NOT_FOUND, "NotFound", message, details(kind, name))
    }

    /// 404 for a path or a resource that is not served.
    pub(crate) fn no_such_resource() -> ApiError {
        let message = "the server could not find the requested resource".into();
        ApiError::new(StatusCode::NOT_FOUND, "NotFound", message, json!({}))
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> ApiError {
        let message = "the server does not allow this method on the requested resource".into();
        let code = StatusCode::METHOD_NOT_ALLOWED;
        ApiError::new(code, "MethodNotAllowed", message, json!({}))
    }

    /// 409 on create.
    pub(crate) fn already_exists(kind: &Kind, name: &str) -> ApiError {
        let message = format!("{} {name:?} already exists", kind.resource());
        ApiError::new(StatusCode::CONFLICT, "AlreadyExists", message, details(kind, name))
    }

    /// 409 on update and delete.
    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> ApiError {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        ApiError::new(StatusCode::CONFLICT, "Conflict", message, details(kind, name))
    }

    /// 410: the history does not reach back to the requested version.
    pub(crate) fn expired(asked: u64, oldest: u64) -> ApiError {
        let message = format!("too old resource version: {asked} ({oldest})");
        ApiError::new(StatusCode::GONE, "Expired", message, Value::Null)
    }

    /// 415.
    pub(crate) fn unsupported_media_type(accepted: &str) -> ApiError {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {accepted}"
        );
        let code = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        ApiError::new(code, "UnsupportedMediaType", message, Value::Null)
    }

    /// 422 for one field of an object; `cause` is `Invalid value: …` or `Required value…`.
    pub(crate) fn invalid(kind: (&str, &str), name: &str, field: &str, cause: &str) -> ApiError {
        let (group, kind) = kind;
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let reason =
            if cause.starts_with("Required") { "FieldValueRequired" } else { "FieldValueInvalid" };
        let mut details = json!({
            "kind": kind,
            "causes": [{"reason": reason, "message": cause, "field": field}],
        });
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        let message = format!("{qualified} {name:?} is invalid: {field}: {cause}");
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message, details)
    }

    /// Returns the `metav1.Status` for the response.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

/// `Status.details` of an object.
pub(crate) fn details(kind: &Kind, name: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind.plural});
    if !kind.group.is_empty() {
        details["group"] = kind.group.as_str().into();
    }
    details
}
