//! Reconstructs the Status of an error response to HEAD. kube-apiserver records it, but does not
//! send it.

use audit_body::MediaType;
use http::{HeaderMap, header};

use crate::impersonation::RequestAttributes;
use k8s_audit::request::RequestInfo;
use k8s_audit::status::{Details, Status};
use kube_authn::UserInfo;

/// Returns the Status that kube-apiserver records for a HEAD request with this response; `None` if
/// that is uncertain.
///
/// The API server's `Content-Length` is that of the Status it would have sent to a GET, so a
/// reconstructed Status is used only if it has that length in the response's encoding. For a 405
/// there is only one possible Status, so that it needs no such check if the encoding is not JSON.
pub(super) fn status(
    code: u16,
    response: &HeaderMap,
    pretty: bool,
    info: &RequestInfo,
    user: Option<&UserInfo>,
    impersonated: Option<&UserInfo>,
) -> Option<Status> {
    let media_type = match response.get(header::CONTENT_TYPE) {
        Some(_) => MediaType::of(response),
        None => MediaType::Other,
    };
    if media_type != MediaType::Json {
        return (code == 405 && media_type != MediaType::Other).then(Status::method_not_allowed);
    }
    let length = response.get(header::CONTENT_LENGTH);
    let length: Option<usize> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let mut found = candidates(code, info, user, impersonated).into_iter().filter(|status| {
        let json = status.to_json();
        match length {
            Some(length) if pretty => length == indented_length(json.trim_ascii_end()),
            Some(length) => length == json.len(),
            None => code == 405,
        }
    });
    let first = found.next();
    // Two Statuses with the same length are ambiguous.
    first.filter(|_| found.next().is_none())
}

/// Returns the Statuses that kube-apiserver may have recorded for such a response.
fn candidates(
    code: u16,
    info: &RequestInfo,
    user: Option<&UserInfo>,
    impersonated: Option<&UserInfo>,
) -> Vec<Status> {
    match code {
        401 => vec![Status::unauthorized()],
        403 => {
            let asked = RequestAttributes::new(info, None);
            let Some(user) = user else { return Vec::new() };
            let Some(other) = impersonated else { return vec![asked.forbidden(user)] };
            vec![asked.forbidden(other), asked.impersonation_forbidden(user, other)]
        }
        404 => {
            let nowhere = "the server could not find the requested resource";
            let mut candidates = vec![Status::not_found(nowhere, Details::default())];
            // Custom resources support HEAD, too.
            candidates.extend((!info.name().is_empty()).then(|| no_such_object(info)));
            candidates
        }
        405 => vec![Status::method_not_allowed()],
        _ => Vec::new(),
    }
}

fn no_such_object(info: &RequestInfo) -> Status {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (name, group, resource) = (text(info.name()), text(info.group()), text(info.resource()));
    let what = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
    let message = format!("{what} {} not found", k8s_audit::go::quote(name.as_bytes()));
    Status::not_found(message, Details { name, group, kind: resource, ..Details::default() })
}

/// Returns the length of compact JSON after Go's `json.MarshalIndent` has indented it by two
/// spaces.
fn indented_length(json: &[u8]) -> usize {
    let (mut length, mut depth) = (0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for (index, byte) in json.iter().enumerate() {
        length += 1;
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        let line_break = |depth: usize| 1 + 2 * depth;
        match byte {
            b'"' => in_string = true,
            b':' => length += 1,
            b',' => length += line_break(depth),
            b'{' | b'[' => {
                depth += 1;
                if !matches!(json.get(index + 1), Some(b'}' | b']')) {
                    length += line_break(depth);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                if !matches!(json[index - 1], b'{' | b'[') {
                    length += line_break(depth);
                }
            }
            _ => {}
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn found(code: u16, media_type: &str, length: &str, path: &'static str) -> Option<Status> {
        let info = RequestInfo::new(&Method::HEAD, &PathAndQuery::from_static(path)).unwrap();
        let mut response = HeaderMap::new();
        response.insert(header::CONTENT_TYPE, media_type.parse().unwrap());
        if !length.is_empty() {
            response.insert(header::CONTENT_LENGTH, length.parse().unwrap());
        }
        let user = UserInfo { username: "alice".into(), ..UserInfo::default() };
        let is_pretty = length == "229";
        status(code, &response, is_pretty, &info, Some(&user), None)
    }

    // The response and the audit event of kube-apiserver 1.36.
    #[test]
    fn the_status_of_a_real_response_is_parsed() {
        const POD: &str = "/api/v1/namespaces/default/pods/x";
        const JSON: &str = "application/json";
        for length in ["197", "229", ""] {
            assert_eq!(found(405, JSON, length, POD), Some(Status::method_not_allowed()));
        }
        let protobuf = "application/vnd.kubernetes.protobuf";
        assert_eq!(found(405, protobuf, "139", POD), Some(Status::method_not_allowed()));
        let forbidden = found(403, JSON, "266", POD).unwrap();
        let expected = r#"pods "x" is forbidden: User "alice" cannot get resource "pods" in API group "" in the namespace "default""#;
        assert_eq!(forbidden.message, expected);
        assert!(found(403, JSON, "270", "/api/v1/namespaces/default/pods/x/log").is_some());
        let nowhere = found(404, JSON, "174", "/api/v1/nonexist").unwrap();
        assert_eq!(nowhere.message, "the server could not find the requested resource");
    }

    #[test]
    fn a_denied_impersonation_is_distinguished_from_a_denied_request() {
        let target = PathAndQuery::from_static("/api/v1/pods");
        let info = RequestInfo::new(&Method::HEAD, &target).unwrap();
        let [bob, jane] =
            ["bob", "jane"].map(|name| UserInfo { username: name.into(), ..UserInfo::default() });
        let asked = RequestAttributes::new(&info, None);
        for expected in [asked.forbidden(&jane), asked.impersonation_forbidden(&bob, &jane)] {
            let mut response = HeaderMap::new();
            response.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
            response.insert(header::CONTENT_LENGTH, expected.to_json().len().into());
            let found = status(403, &response, false, &info, Some(&bob), Some(&jane));
            assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn what_is_uncertain_is_left_out() {
        const POD: &str = "/api/v1/namespaces/default/pods/x";
        assert_eq!(found(403, "application/json", "300", POD), None, "there was a reason");
        assert_eq!(found(403, "application/json", "", POD), None);
        assert_eq!(found(403, "application/yaml", "266", POD), None);
        assert_eq!(found(405, "text/plain; charset=utf-8", "19", POD), None);
        assert_eq!(found(500, "application/json", "197", POD), None);
    }

    #[test]
    fn indented_json_has_the_length_that_go_gives_it() {
        let json = r#"{"a":{},"b":[],"c":[1,{"d":"e\",{"}],"f":null}"#;
        let indented = "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"e\\\",{\"\n    }\n  ],\n  \"f\": null\n}";
        assert_eq!(indented_length(json.as_bytes()), indented.len());
    }
}
