//! What the body of a request is, and whether kube-apiserver records it.

use k8s_audit::request::RequestInfo;
use k8s_audit::status::Status;

/// What a request's body is to kube-apiserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBodyKind {
    /// The object to create or to update to.
    Object,
    /// A patch, of any kind.
    Patch,
    /// `DeleteOptions`
    DeleteOptions,
}

/// What kube-apiserver says, with a 400, of an object that it did not get as far as to record: it
/// could not be decoded, or the query or an impersonation header was wrong. All else that it
/// refuses so, it has read.
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
    /// What the body of such a request is; `None` where kube-apiserver records none.
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

    /// Whether kube-apiserver got as far as reading the body before it gave this answer.
    pub fn was_read(self, answer: &Status) -> bool {
        let message = answer.message.as_str();
        match answer.code {
            200..=399 => true,
            400 => match self {
                RequestBodyKind::Object => {
                    !message.is_empty() && !REFUSED_UNREAD.iter().any(|text| message.contains(text))
                }
                // kube-apiserver loses the event of a malformed patch; here it is.
                RequestBodyKind::Patch => !message.is_empty(),
                // What the storage refuses, it refuses after the options have been read.
                RequestBodyKind::DeleteOptions => message.starts_with("Name parameter invalid: "),
            },
            // Authorization refuses with "… cannot …"; admission in its own words.
            403 => !message.is_empty() && !message.contains("\" cannot "),
            404 => {
                !message.is_empty() && !message.contains("could not find the requested resource")
            }
            422 => {
                let of_options =
                    answer.details.as_ref().is_some_and(|d| d.kind.ends_with("Options"));
                !of_options || self == RequestBodyKind::DeleteOptions
            }
            // Of those of negotiation only the ones that come when the work has been done.
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
