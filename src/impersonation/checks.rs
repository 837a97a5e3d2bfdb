//! The parts of an identity that are authorized one by one, in kube-apiserver's order.

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
/// From this number of groups or extra values on, authorization for all of them is tried first.
const MANY: usize = 4;
/// Maximum number of concurrent reviews for one identity.
const AT_A_TIME: usize = 8;

/// The authorization that one part of an identity requires.
pub(super) enum Check<'a> {
    /// One allowed review.
    One(Attributes<'a>),
    /// An allowed review of `all`, or else of each.
    Many { all: Attributes<'a>, each: Vec<Attributes<'a>> },
    /// Always denied.
    Never(Status),
}

/// Authorizes all of `checks`, several concurrently; returns the first denial in their order.
pub(super) async fn pass(
    reviews: &AccessReviews,
    rules: Rules,
    checks: &[Check<'_>],
) -> Result<(), Refusal> {
    let asked: Vec<_> = checks.iter().map(|check| check.pass(reviews, rules)).collect();
    stream::iter(asked).buffered(AT_A_TIME).try_collect().await
}

impl Check<'_> {
    async fn pass(&self, reviews: &AccessReviews, rules: Rules) -> Result<(), Refusal> {
        match self {
            Check::One(asked) => reviews.ask(rules, asked).await,
            Check::Never(status) => Err(Refusal::Forbidden(status.clone())),
            Check::Many { all, each } => {
                match reviews.ask(rules, all).await {
                    Ok(()) => return Ok(()),
                    Err(Refusal::Forbidden(_)) => {}
                    Err(unavailable) => return Err(unavailable),
                }
                let asked: Vec<_> = each.iter().map(|one| reviews.ask(rules, one)).collect();
                stream::iter(asked).buffered(AT_A_TIME).try_collect().await
            }
        }
    }
}

/// Returns the checks that `asker` must pass to be `wanted` by `mode`.
pub(super) fn of<'a>(
    mode: Mode,
    rules: Rules,
    asker: &'a UserInfo,
    wanted: &'a UserInfo,
) -> Vec<Check<'a>> {
    let ask = Ask { mode, asker };
    let user = [Check::One(ask.about(ask.user(wanted)))];
    let uid = (!wanted.uid.is_empty()).then(|| {
        let uid = Resource { resource: "uids", name: &wanted.uid, ..AUTHENTICATED };
        Check::One(ask.about(uid))
    });
    let (groups, extra) = (ask.groups(&wanted.groups), ask.extra(wanted));
    let mut checks: Vec<Check<'a>> = match rules {
        Rules::LegacyOnly => user.into_iter().chain(groups).chain(extra).chain(uid).collect(),
        Rules::Constrained => user.into_iter().chain(uid).chain(groups).chain(extra).collect(),
    };
    // Checks after a certain denial are not needed.
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
struct Ask<'a> {
    mode: Mode,
    asker: &'a UserInfo,
}

impl<'a> Ask<'a> {
    fn about(self, resource: Resource<'a>) -> Attributes<'a> {
        let object = Object::Resource(resource);
        Attributes { user: self.asker, verb: self.mode.verb(), object }
    }

    fn is_constrained(self) -> bool {
        self.mode != Mode::Legacy
    }

    /// Users and groups are in the core group for the old verb.
    fn base(self) -> Resource<'a> {
        let group = if self.is_constrained() { AUTHENTICATION } else { "" };
        Resource { group, ..AUTHENTICATED }
    }

    fn user(self, wanted: &'a UserInfo) -> Resource<'a> {
        if let Some((namespace, name)) = service_account(&wanted.username) {
            return Resource { resource: "serviceaccounts", namespace, name, ..self.base() };
        }
        match node(&wanted.username) {
            // The result must be valid for all nodes: see `Mode::asker`.
            Some(_) if self.mode == Mode::AssociatedNode => {
                Resource { resource: "nodes", name: "*", ..self.base() }
            }
            Some(name) if self.is_constrained() => {
                Resource { resource: "nodes", name, ..self.base() }
            }
            _ => Resource { resource: "users", name: &wanted.username, ..self.base() },
        }
    }

    fn groups(self, groups: &'a [String]) -> Vec<Check<'a>> {
        let about = |name| self.about(Resource { resource: "groups", name, ..self.base() });
        let wants = |group: &str| groups.iter().any(|wanted| wanted == group);
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

    fn extra(self, wanted: &'a UserInfo) -> Vec<Check<'a>> {
        let about = |subresource, name| {
            let extra = Resource { resource: "userextras", subresource, name, ..AUTHENTICATED };
            self.about(extra)
        };
        if self.is_constrained() {
            let bad = wanted.extra.iter().find_map(|(key, values)| fault(key, values));
            if let Some(why) = bad {
                return vec![Check::Never(about("", "").forbidden(&why))];
            }
        }
        let pairs = wanted
            .extra
            .iter()
            .flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let each = pairs.map(|(key, value)| about(key, value));
        let values: usize = wanted.extra.values().map(Vec::len).sum();
        if self.is_constrained() && (wanted.extra.len() >= MANY || values >= MANY) {
            return vec![Check::Many { all: about("*", "*"), each: each.collect() }];
        }
        each.map(Check::One).collect()
    }
}

/// Returns why a constrained mode never grants this extra.
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
