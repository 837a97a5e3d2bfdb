//! Builds the authorization checks for the parts of an identity, in kube-apiserver's order.

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_audit::authorizer::{Attributes, Object, Resource};
use k8s_audit::request::extra_key::domain_prefixed_path;

use super::access_review::{AccessReviews, Refusal};
use super::mode::{Mode, node};
use super::{Rules, service_account};
use k8s_audit::status::Status;
use kube_authn::UserInfo;

const AUTHENTICATION: &str = "authentication.k8s.io";
const VERSION: &str = "v1";
/// If there are at least this many groups or extra values, a wildcard for all of them is checked
/// first.
const MANY: usize = 4;
/// Maximum number of concurrent reviews for one identity.
const AT_A_TIME: usize = 8;

/// The authorization that one part of an identity requires.
pub(super) enum Check<'a> {
    /// A review must be allowed.
    One(Attributes<'a>),
    /// A review of the wildcard `all` must be allowed, or reviews of each value.
    Many { all: Attributes<'a>, each: Vec<Attributes<'a>> },
    /// Always denied.
    Never(Status),
}

/// Performs all `checks`, several concurrently. Returns the first denial in their order.
pub(super) async fn pass(
    reviews: &AccessReviews,
    rules: Rules,
    checks: &[Check<'_>],
) -> Result<(), Refusal> {
    let pending: Vec<_> = checks.iter().map(|check| check.pass(reviews, rules)).collect();
    stream::iter(pending).buffered(AT_A_TIME).try_collect().await
}

impl Check<'_> {
    async fn pass(&self, reviews: &AccessReviews, rules: Rules) -> Result<(), Refusal> {
        match self {
            Check::One(action) => reviews.review(rules, action).await,
            Check::Never(status) => Err(Refusal::Forbidden(status.clone())),
            Check::Many { all, each } => {
                match reviews.review(rules, all).await {
                    Ok(()) => return Ok(()),
                    Err(Refusal::Forbidden(_)) => {}
                    Err(unavailable) => return Err(unavailable),
                }
                let pending: Vec<_> = each.iter().map(|one| reviews.review(rules, one)).collect();
                stream::iter(pending).buffered(AT_A_TIME).try_collect().await
            }
        }
    }
}

/// Returns the checks that `requester` must pass to impersonate `requested` in `mode`.
pub(super) fn of<'a>(
    mode: Mode,
    rules: Rules,
    requester: &'a UserInfo,
    requested: &'a UserInfo,
) -> Vec<Check<'a>> {
    let builder = CheckBuilder { mode, requester };
    let user = [Check::One(builder.about(builder.user(requested)))];
    let uid = (!requested.uid.is_empty()).then(|| {
        let uid = Resource { resource: "uids", name: &requested.uid, ..AUTHENTICATED };
        Check::One(builder.about(uid))
    });
    let (groups, extra) = (builder.groups(&requested.groups), builder.extra(requested));
    let mut checks: Vec<Check<'a>> = match rules {
        Rules::LegacyOnly => user.into_iter().chain(groups).chain(extra).chain(uid).collect(),
        Rules::Constrained => user.into_iter().chain(uid).chain(groups).chain(extra).collect(),
    };
    // Checks after a certain denial are redundant.
    let never = checks.iter().position(|check| matches!(check, Check::Never(_)));
    checks.truncate(never.map_or(checks.len(), |at| at + 1));
    checks
}

const AUTHENTICATED: Resource<'static> = Resource {
    group: AUTHENTICATION,
    version: VERSION,
    resource: "",
    subresource: "",
    namespace: "",
    name: "",
    field_selector: "",
    label_selector: "",
};

#[derive(Clone, Copy)]
struct CheckBuilder<'a> {
    mode: Mode,
    requester: &'a UserInfo,
}

impl<'a> CheckBuilder<'a> {
    fn about(self, resource: Resource<'a>) -> Attributes<'a> {
        let object = Object::Resource(resource);
        Attributes { user: self.requester, verb: self.mode.verb(), object }
    }

    fn is_constrained(self) -> bool {
        self.mode != Mode::Legacy
    }

    /// With the verb `impersonate`, users and groups are in the core group.
    fn base(self) -> Resource<'a> {
        let group = if self.is_constrained() { AUTHENTICATION } else { "" };
        Resource { group, ..AUTHENTICATED }
    }

    fn user(self, requested: &'a UserInfo) -> Resource<'a> {
        if let Some((namespace, name)) = service_account(&requested.username) {
            return Resource { resource: "serviceaccounts", namespace, name, ..self.base() };
        }
        match node(&requested.username) {
            // Must be valid for all nodes, because the result is cached for all of them: see
            // `Mode::requester`.
            Some(_) if self.mode == Mode::AssociatedNode => {
                Resource { resource: "nodes", name: "*", ..self.base() }
            }
            Some(name) if self.is_constrained() => {
                Resource { resource: "nodes", name, ..self.base() }
            }
            _ => Resource { resource: "users", name: &requested.username, ..self.base() },
        }
    }

    fn groups(self, groups: &'a [String]) -> Vec<Check<'a>> {
        let about = |name| self.about(Resource { resource: "groups", name, ..self.base() });
        let wants = |group: &str| groups.iter().any(|requested| requested == group);
        if self.is_constrained() && wants("") {
            let why = "impersonating the empty string group is not allowed";
            return vec![Check::Never(about("").forbidden(why))];
        }
        if self.is_constrained() && wants("system:masters") {
            let why = "impersonating the system:masters group is not allowed";
            return vec![Check::Never(about("system:masters").forbidden(why))];
        }
        let each = groups.iter().map(|group| about(group));
        if self.is_constrained() && groups.len() >= MANY {
            return vec![Check::Many { all: about("*"), each: each.collect() }];
        }
        each.map(Check::One).collect()
    }

    fn extra(self, requested: &'a UserInfo) -> Vec<Check<'a>> {
        let about = |subresource, name| {
            let extra = Resource { resource: "userextras", subresource, name, ..AUTHENTICATED };
            self.about(extra)
        };
        if self.is_constrained() {
            let bad = requested.extra.iter().find_map(|(key, values)| fault(key, values));
            if let Some(why) = bad {
                return vec![Check::Never(about("", "").forbidden(&why))];
            }
        }
        let pairs = requested
            .extra
            .iter()
            .flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let each = pairs.map(|(key, value)| about(key, value));
        let values: usize = requested.extra.values().map(Vec::len).sum();
        if self.is_constrained() && (requested.extra.len() >= MANY || values >= MANY) {
            return vec![Check::Many { all: about("*", "*"), each: each.collect() }];
        }
        each.map(Check::One).collect()
    }
}

/// Returns why the constrained modes always deny this extra.
fn fault(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    if let Err(error) = domain_prefixed_path(key) {
        return Some(format!("impersonating an invalid key in extra is not allowed: {error}"));
    }
    if key.chars().any(char::is_uppercase) {
        let key = k8s_audit::go::quote(key.as_bytes());
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key}"));
    }
    if values.is_empty() {
        return Some("impersonating empty values in extra is not allowed".into());
    }
    let has_empty = values.iter().any(String::is_empty);
    has_empty.then(|| "impersonating the empty string value in extra is not allowed".into())
}

#[cfg(test)]
mod tests;
