//! The description of a request on the command line or in a test case.

use http::Method;
use http::uri::PathAndQuery;
use serde::Deserialize;

use crate::policy::Attributes;
use k8s_audit::request::RequestInfo;

/// A description of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestSpec {
    /// The authenticated user. Without user and groups, authentication has failed.
    pub(super) user: Option<String>,
    /// The user's groups; by default those that kube-apiserver adds to every user
    /// ([`default_groups`]).
    pub(super) groups: Option<Vec<String>>,
    /// The verb; the HTTP method in lower case for a path. `get` by default.
    pub(super) verb: Option<String>,
    /// `RESOURCE[.GROUP][/SUBRESOURCE]`
    pub(super) resource: Option<String>,
    /// Namespace.
    pub(super) namespace: Option<String>,
    /// Name of the object.
    pub(super) name: Option<String>,
    /// Path and query, instead of a resource.
    pub(super) url: Option<String>,
}

/// Why a description is not one of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    /// Neither a resource nor a URL.
    #[error("the request has neither a resource nor a url")]
    NoTarget,
    /// Both.
    #[error("a request has either a url or a resource with namespace and name, not both")]
    Both,
    /// A namespace or a name alone.
    #[error("namespace and name need a resource")]
    NoResource,
    /// Such as `.apps`.
    #[error("resource {0:?}: write it like pods, deployments.apps, or pods/log")]
    BadResource(String),
    /// Not beginning with a slash, or with characters that URLs do not have.
    #[error("url {0:?}: not the path of a URL; write it like /healthz or /api/v1/pods?limit=1")]
    BadUrl(String),
    /// Not a token.
    #[error("verb {0:?}: no HTTP method has this verb")]
    BadVerb(String),
}

/// A request that was described.
#[derive(Debug)]
pub(super) struct SpecifiedRequest {
    user: Option<String>,
    groups: Vec<String>,
    verb: String,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Object { group: String, resource: String, subresource: String, namespace: String, name: String },
    Url(Box<RequestInfo>),
}

impl RequestSpec {
    /// Resolves the description.
    ///
    /// # Errors
    /// It does not describe a request.
    pub(super) fn resolve(&self) -> Result<SpecifiedRequest, RequestError> {
        let verb = self.verb.as_deref().unwrap_or("get");
        let has_object = self.namespace.is_some() || self.name.is_some();
        let (verb, target) = match (&self.resource, &self.url) {
            (Some(resource), None) => (verb.to_owned(), self.object(resource)?),
            (None, Some(url)) if !has_object => {
                let info = resolve_url(verb, url)?;
                // `get` of a collection is `list`.
                (info.verb().to_owned(), Target::Url(Box::new(info)))
            }
            (None, None) if !has_object => return Err(RequestError::NoTarget),
            (None, None) => return Err(RequestError::NoResource),
            (_, Some(_)) => return Err(RequestError::Both),
        };
        let (user, groups) = match (&self.user, &self.groups) {
            (Some(user), None) => (Some(user.clone()), default_groups(user)),
            (user, Some(groups)) if user.is_some() || !groups.is_empty() => {
                (Some(user.clone().unwrap_or_default()), groups.clone())
            }
            (_, _) => (None, Vec::new()),
        };
        Ok(SpecifiedRequest { user, groups, verb, target })
    }

    fn object(&self, written: &str) -> Result<Target, RequestError> {
        let (resource, subresource) = written.split_once('/').unwrap_or((written, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        if resource.is_empty() || written.ends_with(['.', '/']) {
            return Err(RequestError::BadResource(written.to_owned()));
        }
        Ok(Target::Object {
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
        })
    }
}

/// Returns the groups that kube-apiserver adds to a user: `system:authenticated` or
/// `system:unauthenticated`, and those of a ServiceAccount.
fn default_groups(user: &str) -> Vec<String> {
    if user == "system:anonymous" {
        return vec!["system:unauthenticated".to_owned()];
    }
    let mut groups = Vec::new();
    let account = user.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
    if let Some((namespace, _)) = account {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups.push("system:authenticated".to_owned());
    groups
}

fn resolve_url(verb: &str, url: &str) -> Result<RequestInfo, RequestError> {
    let target = PathAndQuery::try_from(url).ok().filter(|_| url.starts_with('/'));
    let target = target.ok_or_else(|| RequestError::BadUrl(url.to_owned()))?;
    let method = match verb {
        "list" | "watch" => Method::GET,
        "create" => Method::POST,
        "update" => Method::PUT,
        "deletecollection" => Method::DELETE,
        method => Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| RequestError::BadVerb(verb.to_owned()))?,
    };
    let info = RequestInfo::new(&method, &target);
    Ok(info.unwrap_or_else(|_| RequestInfo::unresolved(&method, &target)))
}

macro_rules! parts {
    ($($name:ident)*) => {
        $(fn $name(&self) -> &[u8] {
            match &self.target {
                Target::Object { $name, .. } => $name.as_bytes(),
                Target::Url(info) => info.$name(),
            }
        })*
    };
}

impl Attributes for SpecifiedRequest {
    fn user(&self) -> Option<&[u8]> {
        self.user.as_ref().map(String::as_bytes)
    }

    fn any_group(&self, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        self.groups.iter().any(|group| matches(group.as_bytes()))
    }

    fn verb(&self) -> &[u8] {
        self.verb.as_bytes()
    }

    fn is_resource(&self) -> bool {
        match &self.target {
            Target::Object { .. } => true,
            Target::Url(info) => info.is_resource(),
        }
    }

    parts!(namespace group resource subresource name);

    fn path(&self) -> &[u8] {
        match &self.target {
            Target::Object { .. } => b"",
            Target::Url(info) => info.path(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_groups_has_those_that_kube_apiserver_adds() {
        let resolved = |user: Option<&str>, groups: Option<&[&str]>| {
            let groups = groups.map(|groups| groups.iter().map(|&group| group.into()).collect());
            let spec = RequestSpec {
                user: user.map(str::to_owned),
                groups,
                url: Some("/healthz".to_owned()),
                ..RequestSpec::default()
            };
            let request = spec.resolve().unwrap();
            (request.user.is_some(), request.groups)
        };
        let known =
            |groups: &[&str]| (true, groups.iter().map(|&group| group.to_owned()).collect());
        assert_eq!(resolved(Some("jane"), None), known(&["system:authenticated"]));
        assert_eq!(
            resolved(Some("system:serviceaccount:ci:runner"), None),
            known(&["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"])
        );
        assert_eq!(resolved(Some("system:anonymous"), None), known(&["system:unauthenticated"]));
        assert_eq!(resolved(Some("jane"), Some(&["dev"])), known(&["dev"]));
        assert_eq!(resolved(Some("jane"), Some(&[])), known(&[]));
        assert_eq!(resolved(None, Some(&["dev"])), known(&["dev"]));
        assert_eq!(resolved(None, None), (false, Vec::new()));
    }
}
