//! What a request body is, and whether kube-apiserver records it.

use k8s_audit::request::RequestInfo;
use k8s_audit::status::Status;

/// What kube-apiserver expects in the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBodyKind {
    /// The object to create or to update to.
    Object,
    /// A patch, of any kind.
    Patch,
    /// `DeleteOptions`
    DeleteOptions,
}

/// Messages of a 400 response that kube-apiserver sends before it has an object to record: it could
/// not be decoded, or the query or an impersonation header is invalid. With any other message it
/// has decoded the object.
const REFUSED_UNREAD: [&str; 8] = [
    "the object provided is unrecognized",
    "cannot be handled as a",
    "strict decoding error",
    "the API version in the data",
    "Object 'Kind' is missing in ",
    "Object 'apiVersion' is missing in ",
    "strconv.",
    " without impersonating a user",
];

impl RequestBodyKind {
    /// Returns what the body of a request is; `None` if kube-apiserver does not record it.
    pub fn of(info: &RequestInfo) -> Option<RequestBodyKind> {
        let connects =
            matches!(info.subresource(), b"exec" | b"attach" | b"portforward" | b"proxy");
        if !info.is_resource() || connects {
            return None;
        }
        match info.verb() {
            "create" | "update" => Some(RequestBodyKind::Object),
            "patch" => Some(RequestBodyKind::Patch),
            "delete" | "deletecollection" => Some(RequestBodyKind::DeleteOptions),
            _ => None,
        }
    }

    /// Whether kube-apiserver has decoded the body before it sent this response.
    pub fn was_read(self, answer: &Status) -> bool {
        let message = answer.message.as_str();
        match answer.code {
            200..=399 => true,
            400 => match self {
                RequestBodyKind::Object => {
                    !message.is_empty() && !REFUSED_UNREAD.iter().any(|text| message.contains(text))
                }
                // kube-apiserver loses the event of a malformed patch; the proxy records it.
                RequestBodyKind::Patch => !message.is_empty(),
                // The storage rejects this after the options have been read.
                RequestBodyKind::DeleteOptions => message.starts_with("Name parameter invalid: "),
            },
            // Messages of authorization contain "cannot"; those of admission are arbitrary.
            403 => !message.is_empty() && !message.contains("\" cannot "),
            404 => {
                !message.is_empty() && !message.contains("could not find the requested resource")
            }
            422 => {
                let of_options =
                    answer.details.as_ref().is_some_and(|d| d.kind.ends_with("Options"));
                !of_options || self == RequestBodyKind::DeleteOptions
            }
            // Only these messages of content negotiation come after the request has been processed.
            406 => message.starts_with("you requested ") || message.starts_with("no "),
            409 | 429 | 500 | 503 | 504 => !message.is_empty(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn info(method: Method, path: &'static str) -> RequestInfo {
        RequestInfo::new(&method, &PathAndQuery::from_static(path)).unwrap()
    }

    #[test]
    fn an_unacceptable_response_can_hide_a_completed_request() {
        let answer = |message: &str| Status { message: message.into(), ..Status::of_code(406) };
        let before = "only the following media types are accepted: application/json";
        let behind = "you requested PartialObjectMetadata, but the requested object is a list";
        assert!(!RequestBodyKind::DeleteOptions.was_read(&answer(before)));
        assert!(RequestBodyKind::DeleteOptions.was_read(&answer(behind)));
    }

    #[test]
    fn the_storage_refuses_names_after_the_options_have_been_read() {
        let answer = |message: &str| Status { message: message.into(), ..Status::of_code(400) };
        let by_storage = r#"Name parameter invalid: ".": may not be '.'"#;
        assert!(RequestBodyKind::DeleteOptions.was_read(&answer(by_storage)));
        let unread = "json: cannot unmarshal array into Go value of type v1.DeleteOptions";
        assert!(!RequestBodyKind::DeleteOptions.was_read(&answer(unread)));
    }

    #[test]
    fn requests_that_have_an_object() {
        use RequestBodyKind::{DeleteOptions, Object, Patch};
        let pod = "/api/v1/namespaces/a/pods/x";
        assert_eq!(RequestBodyKind::of(&info(Method::PUT, pod)), Some(Object));
        assert_eq!(RequestBodyKind::of(&info(Method::PATCH, pod)), Some(Patch));
        assert_eq!(
            RequestBodyKind::of(&info(Method::DELETE, "/api/v1/nodes")),
            Some(DeleteOptions)
        );
        assert_eq!(RequestBodyKind::of(&info(Method::GET, pod)), None);
        let exec = "/api/v1/namespaces/a/pods/x/exec";
        assert_eq!(RequestBodyKind::of(&info(Method::POST, exec)), None);
        assert_eq!(RequestBodyKind::of(&info(Method::POST, "/version")), None);
    }
}
