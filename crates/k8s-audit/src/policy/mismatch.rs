//! Explains why a rule does not match a request.

use std::fmt::Write;

use super::attributes::Attributes;
use super::spec::PolicyRule;

/// The condition of a rule that a request does not meet. Among the last three, a later one means
/// that more of an entry in `resources` matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mismatch {
    /// `verbs`
    Verb,
    /// `users` or `userGroups`, because authentication failed.
    Unauthenticated,
    /// `users`
    User,
    /// `userGroups`
    UserGroup,
    /// `resources` or `namespaces`, because the URL does not name a resource.
    NotResource,
    /// `nonResourceURLs`, because the URL names a resource.
    IsResource,
    /// `nonResourceURLs`
    Path,
    /// `namespaces`
    Namespace,
    /// `resources[].group`
    ApiGroup,
    /// `resources[].resources`
    Resource,
    /// `resources[].resourceNames`
    ResourceName,
}

/// Maximum number of values of a list in messages.
const SHOWN: usize = 6;

impl Mismatch {
    /// Describes the mismatch in a sentence with the field, the request's value, and the accepted
    /// values.
    pub fn describe(self, rule: &PolicyRule, request: &impl Attributes) -> String {
        match self {
            Mismatch::Verb => one_of("verbs", "", request.verb(), &rule.verbs),
            Mismatch::User => one_of("users", "", request.user().unwrap_or_default(), &rule.users),
            Mismatch::Unauthenticated => {
                let field = if rule.users.is_empty() { "userGroups" } else { "users" };
                format!("{field}: the request has no user, since authentication failed")
            }
            Mismatch::UserGroup => {
                let mut groups = Vec::new();
                request.any_group(|group| {
                    groups.push(group.to_vec());
                    false
                });
                let groups: Vec<&[u8]> = groups.iter().map(Vec::as_slice).collect();
                let accepted = list(rule.user_groups.iter().map(String::as_bytes));
                match groups.is_empty() {
                    true => format!("userGroups: the user has no groups; accepted are {accepted}"),
                    false => format!(
                        "userGroups: the user is in {}, and not in {accepted}",
                        list(groups.into_iter())
                    ),
                }
            }
            Mismatch::NotResource => {
                let field = if rule.resources.is_empty() { "namespaces" } else { "resources" };
                format!("{field}: {} is not the URL of a resource", quoted(request.path()))
            }
            Mismatch::IsResource => format!(
                "nonResourceURLs: the request is for a resource ({})",
                String::from_utf8_lossy(&resource_of(request))
            ),
            Mismatch::Path => {
                one_of("nonResourceURLs", "", request.path(), &rule.non_resource_urls)
            }
            Mismatch::Namespace => one_of("namespaces", "", request.namespace(), &rule.namespaces),
            Mismatch::ApiGroup => {
                let groups: Vec<String> =
                    rule.resources.iter().map(|entry| entry.group.clone()).collect();
                one_of("resources", "group ", request.group(), &groups)
            }
            Mismatch::Resource | Mismatch::ResourceName => {
                let of_group = rule.resources.iter().filter(|entry| {
                    entry.group == "*" || entry.group.as_bytes() == request.group()
                });
                if self == Mismatch::Resource {
                    let resources: Vec<String> =
                        of_group.flat_map(|entry| entry.resources.clone()).collect();
                    one_of("resources", "", &resource_of(request), &resources)
                } else {
                    let names: Vec<String> =
                        of_group.flat_map(|entry| entry.resource_names.clone()).collect();
                    one_of("resources", "resourceNames ", request.name(), &names)
                }
            }
        }
    }
}

/// Returns `pods` or `pods/log`.
fn resource_of(request: &impl Attributes) -> Vec<u8> {
    let mut text = request.resource().to_vec();
    if !request.subresource().is_empty() {
        text.push(b'/');
        text.extend_from_slice(request.subresource());
    }
    text
}

fn one_of(field: &str, what: &str, value: &[u8], accepted: &[String]) -> String {
    let accepted_list = list(accepted.iter().map(String::as_bytes));
    let value = quoted(value);
    match accepted {
        [_] => format!("{field}: {what}{value} is not {accepted_list}"),
        _ => format!("{field}: {what}{value} is not one of {accepted_list}"),
    }
}

fn list<'v>(values: impl ExactSizeIterator<Item = &'v [u8]>) -> String {
    let more = values.len().saturating_sub(SHOWN);
    let mut text = String::new();
    for (index, value) in values.take(SHOWN).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&quoted(value));
    }
    if more > 0 {
        let _ = write!(text, ", and {more} more");
    }
    text
}

/// Quotes a value. Clients choose paths and names, so control characters are escaped.
fn quoted(value: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(value))
}
