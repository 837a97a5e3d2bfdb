//! Converts values to a request.

use std::fmt;

use http::Method;
use http::uri::PathAndQuery;

use super::candidates::Resource;
use super::{Assignment, Target};
use crate::RequestInfo;
use crate::UserInfo;
use crate::policy::matcher::Policy;

/// A request that reaches a rule.
#[derive(Debug, Clone)]
pub struct Witness {
    /// The user who sends it.
    pub user: UserInfo,
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
}

impl Witness {
    /// Returns the request with these values if it reaches the rule.
    pub(super) fn new(chosen: Assignment<'_>, policy: &Policy, rule: usize) -> Option<Witness> {
        let user = UserInfo {
            username: chosen.user.name.clone(),
            groups: chosen.user.group.iter().cloned().collect(),
            ..UserInfo::default()
        };
        let reaches = |witness: &Witness| {
            let decision = policy.evaluate(Some(&witness.user), &witness.info());
            decision.rule == Some(rule as u32)
        };
        let (method, targets) = match chosen.target {
            Target::Resource(namespace, resource) => resource_url(chosen.verb, namespace, resource),
            Target::Path(path) => {
                let path = &path.path;
                (chosen.verb.to_ascii_uppercase(), vec![encoded(path, b"/"), path.clone()])
            }
        };
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let witness = |target: String| {
            let target = PathAndQuery::try_from(target).ok()?;
            Some(Witness { user: user.clone(), method: method.clone(), target })
        };
        targets.into_iter().filter_map(witness).find(reaches)
    }

    /// Returns the attributes of the request.
    pub fn info(&self) -> RequestInfo {
        RequestInfo::new(&self.method, &self.target)
            .unwrap_or_else(|_| RequestInfo::unresolved(&self.method, &self.target))
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} by {:?}", self.method, self.target, self.user.username)?;
        match self.user.groups.first() {
            Some(group) => write!(f, " in {group:?}"),
            None => Ok(()),
        }
    }
}

/// Returns whether a request with this path can be a non-resource request.
pub(super) fn is_path(path: &str) -> bool {
    let info = |target: String| {
        let target = PathAndQuery::try_from(target).ok()?;
        Some(RequestInfo::new(&Method::GET, &target))
    };
    let is_resolved = matches!(info(encoded(path, b"/")), Some(Ok(info)) if !info.is_resource());
    is_resolved || matches!(info(path.to_owned()), Some(Err(_)))
}

/// Returns the method and possible URLs of a resource request, the usual one first.
fn resource_url(
    verb: &str,
    namespace: &str,
    resource_of_request: &Resource,
) -> (String, Vec<String>) {
    let Resource { group, resource, subresource, name } = resource_of_request;
    let is_selected = super::can_be("list", "", resource_of_request) && !name.is_empty();
    let selector = format!("fieldSelector={}", encoded(&format!("metadata.name={name}"), b""));
    let (method, query) = match verb {
        "list" if is_selected => ("GET", format!("?{selector}")),
        "watch" if is_selected && !resource.is_empty() => {
            ("GET", format!("?watch=true&{selector}"))
        }
        "get" | "list" => ("GET", String::new()),
        "watch" if name.is_empty() => ("GET", "?watch=true".to_owned()),
        "create" => ("POST", String::new()),
        "update" => ("PUT", String::new()),
        "patch" => ("PATCH", String::new()),
        "delete" | "deletecollection" => ("DELETE", String::new()),
        "" => ("OPTIONS", String::new()),
        _ => ("GET", String::new()),
    };
    let in_query = verb == "list" || verb == "watch" && is_selected && !resource.is_empty();
    let in_path = if in_query { "" } else { &name[..] };
    let root = match group.is_empty() {
        true => "/api/v1".to_owned(),
        false => format!("/apis/{}/v1", encoded(group, b"")),
    };
    let root = match verb {
        "proxy" => root + "/proxy",
        "watch" if !in_path.is_empty() => root + "/watch",
        _ => root,
    };
    let object = [resource, in_path, subresource].map(|part| encoded(part, b"")).join("/");
    let object = object.trim_end_matches('/');
    let of_namespace =
        |name: &str| format!("{root}/namespaces/{}/{name}{query}", encoded(namespace, b""));
    let mut urls = Vec::new();
    if namespace.is_empty() {
        urls.push(format!("{root}/{object}{query}"));
    }
    if resource == "namespaces" && namespace == in_path {
        urls.push(of_namespace(&encoded(subresource, b"")).replace("/?", "?"));
    }
    urls.push(of_namespace(object));
    (method.to_owned(), urls)
}

/// Percent-encodes all characters except unreserved ones and `kept`.
fn encoded(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(byte.into());
            }
            kept_byte if kept.contains(&kept_byte) => out.push(kept_byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
