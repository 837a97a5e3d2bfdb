//! `Impersonate-*` headers: what a client wants to be, whether it may, and who it is then.

mod review;

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};

pub use review::{Refusal, Reviewer};

use crate::authn::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use crate::request::headers::{
    IMPERSONATE_EXTRA_PREFIX, IMPERSONATE_GROUP, IMPERSONATE_PREFIX, IMPERSONATE_UID,
    IMPERSONATE_USER,
};
use crate::request::label_selector::{is_dns_label, is_dns_subdomain};
use crate::request::query::{self, Plus};
use crate::status::{Status, go_string_list, go_string_lists};

/// Who a client wants to be, as its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted(UserInfo);

/// Reads the impersonation headers; `None` where there are none.
///
/// # Errors
/// The 400 to answer with: a UID, group or extra without a user name, or text that is no UTF-8.
pub fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, Box<Status>> {
    // Most requests have none of them; one look at the names says so.
    if !headers.keys().any(|name| name.as_str().starts_with(IMPERSONATE_PREFIX)) {
        return Ok(None);
    }
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
    if user == UserInfo::default() {
        return Ok(None);
    }
    if user.username.is_empty() {
        let quote = |text: &str| crate::audit::go_quote::quote(text.as_bytes());
        return Err(Box::new(Status::bad_request(format!(
            "requested &user.DefaultInfo{{Name:\"\", UID:{}, Groups:{}, Extra:{}}} without impersonating a user name",
            quote(&user.uid),
            go_string_list(&user.groups),
            go_string_lists(&user.extra),
        ))));
    }
    Ok(Some(Wanted(user)))
}

fn text(value: &HeaderValue) -> Result<String, Box<Status>> {
    String::from_utf8(value.as_bytes().to_vec())
        .map_err(|_| Box::new(Status::bad_request("an impersonation header is not valid UTF-8")))
}

/// The key behind `Impersonate-Extra-`: lower case, percent-decoded if that is possible.
fn extra_key(name: &str) -> String {
    // Header names are lower case already.
    query::decode(name, Plus::IsPlus)
        .and_then(|key| String::from_utf8(key.into_owned()).ok())
        .unwrap_or_else(|| name.to_owned())
}

impl Wanted {
    /// Exactly what the headers ask for.
    pub fn as_asked(&self) -> &UserInfo {
        &self.0
    }

    /// The user that impersonation yields, with the groups that Kubernetes adds.
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
        let has = |user: &UserInfo, group: &str| user.groups.iter().any(|g| g == group);
        let added = if user.username == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !has(&user, UNAUTHENTICATED) && !has(&user, added) {
            user.groups.push(added.into());
        }
        user
    }
}

/// Namespace and name, if `username` is a service account's.
fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (is_dns_label(namespace) && is_dns_subdomain(name)).then_some((namespace, name))
}

/// Whether an answer's Status says that the API server refused `caller` the impersonation, rather
/// than the impersonated user the request itself.
pub fn was_refused(status: &Status, caller: &UserInfo) -> bool {
    let quoted = crate::audit::go_quote::quote(caller.username.as_bytes());
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
#[path = "impersonation_tests.rs"]
mod tests;
