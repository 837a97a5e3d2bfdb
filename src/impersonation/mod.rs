//! Impersonation with `Impersonate-*` headers: parsing, authorization, and the resulting user.

mod access_review;
mod authorizer;
mod cache;
mod checks;
mod mode;
mod rules;

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use k8s_audit::go;

pub use k8s_audit::authorizer::RequestAttributes;
pub use k8s_audit::request::extra_key;

pub use access_review::Refusal;
pub(crate) use access_review::review_access;
pub use authorizer::{ImpersonatedUser, ImpersonationAuthorizer};
pub(crate) use cache::{Key, key_of_request};
pub use rules::{ConstrainedImpersonation, Rules};

use crate::request::headers::{
    IMPERSONATE_EXTRA_PREFIX, IMPERSONATE_GROUP, IMPERSONATE_UID, IMPERSONATE_USER,
};
use k8s_audit::request::label_selector::{is_dns_label, is_dns_subdomain};
use k8s_audit::request::query::{self, Plus};
use k8s_audit::status::Status;
use kube_authn::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

/// The user that a client requests to impersonate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImpersonationRequest(UserInfo);

/// Why impersonation headers are invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImpersonationError {
    /// A header is not UTF-8.
    #[error("an impersonation header is not valid UTF-8")]
    NotUtf8,
    /// There is a UID, group or extra, but no user name.
    #[error("impersonation without a user name")]
    NoUserName(Box<UserInfo>),
}

/// Parses the impersonation headers; `None` if there are none.
///
/// # Errors
/// See [`ImpersonationError`].
pub fn parse_headers(
    headers: &HeaderMap,
) -> Result<Option<ImpersonationRequest>, ImpersonationError> {
    let first = |name| headers.get(name).map_or(Ok(String::new()), text);
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(IMPERSONATE_EXTRA_PREFIX) {
            extra.entry(extra_key(key)).or_default().push(text(value)?);
        }
    }
    let user = UserInfo {
        username: first(IMPERSONATE_USER)?,
        uid: first(IMPERSONATE_UID)?,
        groups: headers.get_all(IMPERSONATE_GROUP).iter().map(text).collect::<Result<_, _>>()?,
        extra,
    };
    match user {
        user if user == UserInfo::default() => Ok(None),
        user if user.username.is_empty() => Err(ImpersonationError::NoUserName(Box::new(user))),
        user => Ok(Some(ImpersonationRequest(user))),
    }
}

fn text(value: &HeaderValue) -> Result<String, ImpersonationError> {
    String::from_utf8(value.as_bytes().to_vec()).map_err(|_| ImpersonationError::NotUtf8)
}

impl ImpersonationError {
    /// Returns the 400 for the client, with the message of an API server that has these rules.
    pub fn status(&self, rules: Rules) -> Status {
        match (self, rules) {
            (ImpersonationError::NotUtf8, _) => Status::bad_request(self.to_string()),
            (ImpersonationError::NoUserName(user), Rules::Constrained) => {
                let uid = go::quote(user.uid.as_bytes());
                let (groups, extra) =
                    (go::string_list(&user.groups), go::string_lists(&user.extra));
                Status::bad_request(format!(
                    "requested &user.DefaultInfo{{Name:\"\", UID:{uid}, Groups:{groups}, Extra:{extra}}} without impersonating a user name"
                ))
            }
            (ImpersonationError::NoUserName(user), Rules::LegacyOnly) => {
                // Each is formatted like an ObjectReference in Go: kind, namespace, name, UID, API
                // version, resource version and field path.
                let groups = user.groups.iter().map(|group| format!("{{Group  {group}    }}"));
                let extra = user.extra.iter().flat_map(|(key, values)| {
                    let version = "authentication.k8s.io/v1";
                    let item = move |value| format!("{{UserExtra  {value}  {version}  {key}}}");
                    values.iter().map(item)
                });
                let uid = (!user.uid.is_empty())
                    .then(|| format!("{{UID  {}  authentication.k8s.io/v1  }}", user.uid));
                let all: Vec<String> = groups.chain(extra).chain(uid).collect();
                let all = all.join(" ");
                Status::bad_request(format!("requested [{all}] without impersonating a user"))
            }
        }
    }
}

/// Returns the key after `Impersonate-Extra-`: lower case, percent-decoded if possible.
fn extra_key(name: &str) -> String {
    // Header names are lower case already.
    query::decode(name, Plus::IsPlus)
        .and_then(|key| String::from_utf8(key.into_owned()).ok())
        .unwrap_or_else(|| name.to_owned())
}

impl ImpersonationRequest {
    /// Returns the user as requested in the headers.
    pub fn requested_user(&self) -> &UserInfo {
        &self.0
    }

    /// Returns the impersonated user, with the groups that Kubernetes adds. For nodes in a
    /// constrained mode see `into_node`.
    pub fn into_user(self) -> UserInfo {
        let mut user = self.0;
        if user.groups.is_empty()
            && let Some((namespace, _)) = service_account(&user.username)
        {
            user.groups = vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
            ];
        }
        with_everyones_group(user)
    }

    /// Returns the user for a node in a constrained mode.
    fn into_node(self) -> UserInfo {
        with_everyones_group(UserInfo { groups: vec!["system:nodes".into()], ..self.0 })
    }
}

fn with_everyones_group(mut user: UserInfo) -> UserInfo {
    let has = |group: &str| user.groups.iter().any(|g| g == group);
    let added = if user.username == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !has(UNAUTHENTICATED) && !has(added) {
        user.groups.push(added.into());
    }
    user
}

/// Returns namespace and name if `username` is that of a ServiceAccount.
fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (is_dns_label(namespace) && is_dns_subdomain(name)).then_some((namespace, name))
}

/// Returns whether the Status of a response means that the API server denied the impersonation to
/// `caller`, rather than the request to the impersonated user.
pub fn was_refused(status: &Status, caller: &UserInfo) -> bool {
    let quoted = go::quote(caller.username.as_bytes());
    let quoted = quoted.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let refused = format!("User {quoted} cannot impersonate");
    let behind = |at: usize| status.message.as_bytes().get(at + refused.len());
    (status.code == 403
        && status.message.find(&refused).and_then(behind).is_some_and(|byte| b" :-".contains(byte)))
        || (status.code == 400 && status.message.contains(" without impersonating a user"))
        || (status.code == 403
            && status.message.contains("impersonating the system:masters group is not allowed"))
}

#[cfg(test)]
mod tests;
