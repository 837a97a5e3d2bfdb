//! Authorization attributes, and the 403 that kube-apiserver sends when an authorizer denies them.

use crate::go::quote;
use crate::request::{RequestInfo, field_selector, label_selector, query};
use crate::status::{Details, Status};
use crate::user::UserInfo;

/// The input of an authorizer (Kubernetes' `authorizer.Attributes`).
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// The user who makes the request.
    pub user: &'a UserInfo,
    /// The verb.
    pub verb: &'a str,
    /// The object.
    pub object: Object<'a>,
}

/// The object of an authorization check.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    /// An API resource.
    Resource(Resource<'a>),
    /// The path of a non-resource URL.
    Path(&'a str),
}

/// An API resource. Fields that do not apply are empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resource<'a> {
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Resource, in the plural.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace; empty for the cluster scope.
    pub namespace: &'a str,
    /// Object name.
    pub name: &'a str,
    /// A valid `fieldSelector`.
    pub field_selector: &'a str,
    /// A valid `labelSelector`.
    pub label_selector: &'a str,
}

impl Attributes<'_> {
    /// Returns kube-apiserver's 403 (`responsewriters.ForbiddenStatusError`). `reason` is that of
    /// the authorizer and may be empty.
    pub fn forbidden(&self, reason: &str) -> Status {
        let about = match self.object {
            Object::Path(path) => format!("path {}", quote(path.as_bytes())),
            Object::Resource(about) => about.described(),
        };
        let user = quote(self.user.username.as_bytes());
        let inner = format!("User {user} cannot {} {about}", self.verb);
        let inner = inner.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let inner = if reason.is_empty() { inner } else { format!("{inner}: {reason}") };
        let Object::Resource(about) = self.object else {
            return Status::forbidden(format!("forbidden: {inner}"), Some(Box::default()));
        };
        let mut what = about.resource.to_owned();
        if !about.group.is_empty() {
            what = format!("{what}.{}", about.group);
        }
        let is_unnamed = what.is_empty();
        if !about.name.is_empty() {
            what = format!("{what} {}", quote(about.name.as_bytes()));
        }
        // A path like `/api/v1//namespaces` has no resource.
        let message = match is_unnamed {
            true => format!("forbidden: {inner}"),
            false => format!("{what} is forbidden: {inner}"),
        };
        let details = Details {
            name: about.name.into(),
            group: about.group.into(),
            kind: about.resource.into(),
            ..Details::default()
        };
        Status::forbidden(message, Some(Box::new(details)))
    }
}

impl Resource<'_> {
    fn described(&self) -> String {
        let mut resource = self.resource.to_owned();
        if !self.subresource.is_empty() {
            resource = format!("{resource}/{}", self.subresource);
        }
        let scope = match self.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {}", quote(namespace.as_bytes())),
        };
        let (resource, group) = (quote(resource.as_bytes()), quote(self.group.as_bytes()));
        format!("resource {resource} in API group {group} {scope}")
    }
}

/// The authorization attributes of a client's own request, without the user.
#[derive(Debug, Clone)]
pub struct RequestAttributes {
    verb: String,
    /// `None` for a non-resource request, which has only its path.
    resource: Option<Box<RequestResource>>,
    path: String,
    /// Whether all selectors could be parsed.
    understood: bool,
}

#[derive(Debug, Clone)]
struct RequestResource {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    field_selector: String,
    label_selector: String,
}

impl RequestAttributes {
    /// Creates them from the parsed URL and its query.
    pub fn new(info: &RequestInfo, query: Option<&str>) -> RequestAttributes {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut understood = true;
        let mut selector = |name: &str, is_valid: fn(&str) -> bool| {
            let given = query.filter(|_| info.has_selectors());
            let given = given.and_then(|query| query::first(query, name));
            let selector = given.map(|given| text(&given)).unwrap_or_default();
            // kube-apiserver omits a selector that it cannot parse.
            let valid = is_valid(&selector);
            understood &= valid;
            if valid { selector } else { String::new() }
        };
        let is_field_selector =
            |text: &str| field_selector::name_demanded(text.as_bytes()).is_some();
        let resource = info.is_resource().then(|| {
            Box::new(RequestResource {
                group: text(info.group()),
                version: text(info.version()),
                resource: text(info.resource()),
                subresource: text(info.subresource()),
                namespace: text(info.namespace()),
                name: text(info.name()),
                field_selector: selector("fieldSelector", is_field_selector),
                label_selector: selector("labelSelector", label_selector::is_valid),
            })
        });
        let (verb, path) = (info.verb().to_owned(), text(info.path()));
        RequestAttributes { verb, resource, path, understood }
    }

    /// Returns the 403 that kube-apiserver sends to `user` for this request if its authorizers give
    /// no reason.
    pub fn forbidden(&self, user: &UserInfo) -> Status {
        Attributes { user, verb: &self.verb, object: self.object() }.forbidden("")
    }

    /// Returns the 403 that kube-apiserver sends to `user` for this request if `user` may not
    /// impersonate `other`.
    pub fn impersonation_forbidden(&self, user: &UserInfo, other: &UserInfo) -> Status {
        let mode = match other.username.as_str() {
            name if name.starts_with("system:serviceaccount:") => "serviceaccount",
            name if name.starts_with("system:node:") => "arbitrary-node",
            _ => "user-info",
        };
        let verb = format!("impersonate-on:{mode}:{}", self.verb);
        Attributes { user, verb: &verb, object: self.object() }.forbidden("")
    }

    /// Returns the verb.
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// Returns the object.
    pub fn object(&self) -> Object<'_> {
        match self.resource.as_deref() {
            None => Object::Path(&self.path),
            Some(asked) => Object::Resource(Resource {
                group: &asked.group,
                version: &asked.version,
                resource: &asked.resource,
                subresource: &asked.subresource,
                namespace: &asked.namespace,
                name: &asked.name,
                field_selector: &asked.field_selector,
                label_selector: &asked.label_selector,
            }),
        }
    }

    /// Returns whether all selectors could be parsed. If not, an authorizer's decision must not be
    /// cached.
    pub fn is_understood(&self) -> bool {
        self.understood
    }

    /// Returns all attributes, as a key for caches.
    pub fn parts(&self) -> Vec<&str> {
        let mut parts = vec![self.verb.as_str(), &self.path];
        if let Some(asked) = self.resource.as_deref() {
            parts.extend([
                asked.group.as_str(),
                &asked.version,
                &asked.resource,
                &asked.subresource,
                &asked.namespace,
                &asked.name,
                &asked.field_selector,
                &asked.label_selector,
            ]);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn of(method: &Method, target: &str) -> RequestAttributes {
        let target: http::uri::PathAndQuery = target.parse().unwrap();
        RequestAttributes::new(&RequestInfo::new(method, &target).unwrap(), target.query())
    }

    fn refusal(verb: &str, object: Object<'_>) -> Status {
        let user = UserInfo { username: "o<p>s".into(), ..UserInfo::default() };
        Attributes { user: &user, verb, object }.forbidden("no")
    }

    #[test]
    fn denials_have_kube_apiservers_messages() {
        let extra = Resource {
            group: "authentication.k8s.io",
            resource: "userextras",
            subresource: "scopes",
            name: "read",
            ..Resource::default()
        };
        let status = refusal("impersonate", Object::Resource(extra));
        assert_eq!(
            status.message,
            r#"userextras.authentication.k8s.io "read" is forbidden: User "o&lt;p&gt;s" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope: no"#
        );
        let details = status.details.unwrap();
        assert_eq!((details.name.as_str(), details.kind.as_str()), ("read", "userextras"));
        assert_eq!(
            refusal("impersonate-on:user-info:get", of(&Method::GET, "/healthz?x=1").object())
                .message,
            r#"forbidden: User "o&lt;p&gt;s" cannot impersonate-on:user-info:get path "/healthz": no"#
        );
        let unnamed = Resource { subresource: "a", name: "namespaces", ..Resource::default() };
        let status = refusal("get", Object::Resource(unnamed));
        assert_eq!(
            status.message,
            r#"forbidden: User "o&lt;p&gt;s" cannot get resource "/a" in API group "" at the cluster scope: no"#
        );
        assert_eq!(status.details.unwrap().name, "namespaces");
        let pods = of(&Method::POST, "/api/v1/namespaces/a/pods");
        assert_eq!(
            refusal("impersonate-on:user-info:create", pods.object()).message,
            r#"pods is forbidden: User "o&lt;p&gt;s" cannot impersonate-on:user-info:create resource "pods" in API group "" in the namespace "a": no"#
        );
    }

    #[test]
    fn selectors_count_for_collections_if_they_can_be_read() {
        let selectors = |method: &Method, target: &str| {
            let asked = of(method, target);
            let Object::Resource(object) = asked.object() else { panic!("a resource") };
            let texts = format!("{}|{}", object.field_selector, object.label_selector);
            (texts, asked.is_understood())
        };
        let query = "fieldSelector=spec.a%3Db&labelSelector=x%20in%20(y)";
        let list = format!("/api/v1/pods?{query}");
        assert_eq!(selectors(&Method::GET, &list), ("spec.a=b|x in (y)".into(), true));
        assert_eq!(selectors(&Method::DELETE, &list), ("spec.a=b|x in (y)".into(), true));
        assert_eq!(selectors(&Method::POST, &list), ("|".into(), true));
        let one = format!("/api/v1/namespaces/a/pods/b?{query}");
        assert_eq!(selectors(&Method::GET, &one), ("|".into(), true));
        let watch = format!("/api/v1/watch/pods?{query}");
        assert_eq!(selectors(&Method::GET, &watch), ("|".into(), true));
        let bad = "/api/v1/pods?fieldSelector=a&labelSelector=b";
        assert_eq!(selectors(&Method::GET, bad), ("|b".into(), false));
    }
}
