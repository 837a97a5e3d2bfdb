//! Determines which rule applies to a request.
//!
//! kube-apiserver tries each rule in order. Here, four small indexes (by user, verb, resource and
//! namespace) first select the rules that can match, so that long policies are as fast as short
//! ones. Only these rules are compared completely. Evaluation does not allocate.

use super::attributes::{Attributes, Authenticated};
use super::index::{Index, Keys};
use super::mismatch::Mismatch;
use super::spec::{GroupResources, PolicyRule, PolicySpec};
use super::{Decision, Level};
use crate::request::RequestInfo;
use crate::user::UserInfo;

/// A compiled audit policy.
#[derive(Debug)]
pub struct Policy {
    rules: Box<[Rule]>,
    by_user: Index,
    by_verb: Index,
    by_resource: Index,
    by_namespace: Index,
    /// The rules that can match non-resource requests.
    non_resource: Index,
    otherwise: Decision,
}

/// Policies with fewer rules are evaluated faster without an index.
const WORTH_AN_INDEX: usize = 16;

impl Policy {
    /// Compiles a policy.
    pub fn new(spec: &PolicySpec) -> Policy {
        let rules = &spec.rules;
        Policy {
            by_user: Index::new(rules.iter().map(|rule| listed(&rule.users))),
            by_verb: Index::new(rules.iter().map(|rule| listed(&rule.verbs))),
            by_resource: Index::new(rules.iter().map(resource_keys)),
            by_namespace: Index::new(rules.iter().map(|rule| listed(&rule.namespaces))),
            non_resource: Index::new(rules.iter().map(|rule| {
                let about_objects = !rule.namespaces.is_empty() || !rule.resources.is_empty();
                if about_objects { Keys::Only(Vec::new()) } else { Keys::Any }
            })),
            rules: rules.iter().zip(0..).map(|(rule, at)| Rule::new(at, rule, spec)).collect(),
            otherwise: Decision {
                level: Level::None,
                omit_stages: spec.omit_stages,
                omit_managed_fields: spec.omit_managed_fields,
                rule: None,
            },
        }
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the number of rules.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Evaluates the policy for a request: the first matching rule decides; if none matches,
    /// nothing is recorded. `user` is the authenticated user (not an impersonated one), or `None`
    /// if authentication failed.
    pub fn evaluate(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Decision {
        self.decide(&Authenticated { user, info })
    }

    /// Like [`Policy::evaluate`], for any type with the attributes of a request, such as an event.
    pub fn decide(&self, request: &impl Attributes) -> Decision {
        let matches = |rule: &&Rule| rule.mismatch(request).is_none();
        let rule = if self.rules.len() < WORTH_AN_INDEX {
            self.rules.iter().find(matches)
        } else {
            self.candidates(request).find(matches)
        };
        rule.map_or(self.otherwise, |rule| rule.decision)
    }

    /// Returns the first condition of a rule that the request does not meet; `None` if the rule
    /// matches. [`Policy::decide`] uses the same function.
    ///
    /// # Panics
    /// Panics if there is no rule with this index.
    pub fn mismatch(&self, rule: usize, request: &impl Attributes) -> Option<Mismatch> {
        self.rules[rule].mismatch(request)
    }

    /// Returns the decision of a rule; with `None`, the decision if no rule matches.
    ///
    /// # Panics
    /// Panics if there is no rule with this index.
    pub fn decision_of(&self, rule: Option<usize>) -> Decision {
        rule.map_or(self.otherwise, |rule| self.rules[rule].decision)
    }

    /// Returns the rules that the indexes select, in order.
    fn candidates(&self, request: &impl Attributes) -> impl Iterator<Item = &Rule> {
        let users = match request.user() {
            Some(user) => self.by_user.of(user),
            None => self.by_user.of_other(),
        };
        let verbs = self.by_verb.of(request.verb());
        let (resources, namespaces) = if request.is_resource() {
            (self.by_resource.of(request.resource()), self.by_namespace.of(request.namespace()))
        } else {
            (self.non_resource.of_other(), self.non_resource.of_other())
        };
        let words = users.iter().zip(verbs).zip(resources).zip(namespaces);
        let words = words.map(|(((u, v), r), n)| u & v & r & n);
        let rules = &self.rules;
        words.enumerate().flat_map(move |(word, bits)| {
            Bits(bits).map(move |bit| &rules[word * u64::BITS as usize + bit])
        })
    }
}

/// Iterates over the positions of the set bits, lowest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit as usize)
    }
}

fn listed(names: &[String]) -> Keys<'_> {
    if names.is_empty() {
        Keys::Any
    } else {
        Keys::Only(names.iter().map(String::as_bytes).collect())
    }
}

/// Returns the resources that a rule can match in resource requests.
fn resource_keys(rule: &PolicyRule) -> Keys<'_> {
    if rule.resources.is_empty() {
        let of_paths = rule.namespaces.is_empty() && !rule.non_resource_urls.is_empty();
        return if of_paths { Keys::Only(Vec::new()) } else { Keys::Any };
    }
    let mut keys = Vec::new();
    for entry in &rule.resources {
        if entry.resources.is_empty() {
            return Keys::Any;
        }
        for pattern in &entry.resources {
            // A path segment has no slash, so the part before the first slash is the resource.
            match pattern.split('/').next() {
                Some("*") | None => return Keys::Any,
                Some(resource) => keys.push(resource.as_bytes()),
            }
        }
    }
    Keys::Only(keys)
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) users: Names,
    pub(super) user_groups: Names,
    pub(super) verbs: Names,
    pub(super) scope: Scope,
    decision: Decision,
}

#[derive(Debug)]
pub(super) enum Scope {
    Everything,
    Objects { namespaces: Names, resources: Box<[ResourceEntry]> },
    Paths(Box<[PathPattern]>),
}

impl Rule {
    fn new(index: u32, rule: &PolicyRule, policy: &PolicySpec) -> Rule {
        let scope = if !rule.namespaces.is_empty() || !rule.resources.is_empty() {
            Scope::Objects {
                namespaces: Names::new(&rule.namespaces),
                resources: rule.resources.iter().map(ResourceEntry::new).collect(),
            }
        } else if !rule.non_resource_urls.is_empty() {
            Scope::Paths(rule.non_resource_urls.iter().map(|url| PathPattern::new(url)).collect())
        } else {
            Scope::Everything
        };
        Rule {
            users: Names::new(&rule.users),
            user_groups: Names::new(&rule.user_groups),
            verbs: Names::new(&rule.verbs),
            scope,
            decision: Decision {
                level: rule.level,
                omit_stages: policy.omit_stages.union(rule.omit_stages),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(policy.omit_managed_fields),
                rule: Some(index),
            },
        }
    }

    /// Returns the first condition that the request does not meet. Conditions that are cheap to
    /// compare come first.
    #[inline]
    fn mismatch(&self, request: &impl Attributes) -> Option<Mismatch> {
        if !self.verbs.admit(request.verb()) {
            return Some(Mismatch::Verb);
        }
        if let Some(mismatch) = self.mismatch_of_user(request) {
            return Some(mismatch);
        }
        match &self.scope {
            Scope::Everything => None,
            Scope::Objects { .. } if !request.is_resource() => Some(Mismatch::NotResource),
            Scope::Objects { namespaces, .. } if !namespaces.admit(request.namespace()) => {
                Some(Mismatch::Namespace)
            }
            Scope::Objects { resources, .. } => mismatch_of_resource(resources, request),
            Scope::Paths(_) if request.is_resource() => Some(Mismatch::IsResource),
            Scope::Paths(patterns) if patterns.iter().any(|p| p.matches(request.path())) => None,
            Scope::Paths(_) => Some(Mismatch::Path),
        }
    }

    #[inline]
    fn mismatch_of_user(&self, request: &impl Attributes) -> Option<Mismatch> {
        if self.users.is_empty() && self.user_groups.is_empty() {
            return None;
        }
        let Some(user) = request.user() else { return Some(Mismatch::Unauthenticated) };
        if !self.users.admit(user) {
            return Some(Mismatch::User);
        }
        let is_member =
            self.user_groups.is_empty() || request.any_group(|group| self.user_groups.admit(group));
        (!is_member).then_some(Mismatch::UserGroup)
    }
}

/// Returns the mismatch of the entry that comes closest to matching.
#[inline]
fn mismatch_of_resource(entries: &[ResourceEntry], request: &impl Attributes) -> Option<Mismatch> {
    let mut closest = None;
    for entry in entries {
        closest = closest.max(Some(entry.mismatch(request)?));
    }
    closest
}

/// A sorted set of names.
#[derive(Debug)]
pub(super) struct Names(Box<[Box<[u8]>]>);

impl Names {
    fn new(names: &[String]) -> Names {
        let mut names: Vec<Box<[u8]>> = names.iter().map(|n| n.as_bytes().into()).collect();
        names.sort_unstable();
        names.dedup();
        Names(names.into())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `name` is in the set. An empty set contains all names.
    pub(super) fn admit(&self, name: &[u8]) -> bool {
        self.is_empty() || self.0.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }
}

#[derive(Debug)]
pub(super) struct ResourceEntry {
    /// `None` matches every group.
    pub(super) group: Option<Box<[u8]>>,
    pub(super) resources: Box<[ResourcePattern]>,
    pub(super) names: Names,
}

impl ResourceEntry {
    pub(super) fn new(entry: &GroupResources) -> ResourceEntry {
        ResourceEntry {
            group: (entry.group != "*").then(|| entry.group.as_bytes().into()),
            resources: entry.resources.iter().map(|r| ResourcePattern::new(r)).collect(),
            names: Names::new(&entry.resource_names),
        }
    }

    #[inline]
    fn mismatch(&self, request: &impl Attributes) -> Option<Mismatch> {
        if self.group.as_ref().is_some_and(|group| **group != *request.group()) {
            return Some(Mismatch::ApiGroup);
        }
        if self.resources.is_empty() {
            return None;
        }
        let (resource, subresource) = (request.resource(), request.subresource());
        if !self.resources.iter().any(|r| r.matches(resource, subresource)) {
            return Some(Mismatch::Resource);
        }
        (!self.names.admit(request.name())).then_some(Mismatch::ResourceName)
    }
}

/// A resource pattern: `pods`, `pods/log`, `*`, `pods/*` or `*/scale`. kube-apiserver accepts any
/// text, and an invalid one can match in several ways, so this is not an enum.
#[derive(Debug)]
pub(super) struct ResourcePattern {
    text: Box<[u8]>,
    /// The text after `*/`.
    of_any_resource: Option<Box<[u8]>>,
    /// The text before `/*`.
    any_subresource_of: Option<Box<[u8]>>,
}

impl ResourcePattern {
    fn new(text: &str) -> ResourcePattern {
        let boxed = |part: &str| Box::from(part.as_bytes());
        ResourcePattern {
            text: boxed(text),
            of_any_resource: text.strip_prefix("*/").map(boxed),
            any_subresource_of: text.strip_suffix("/*").map(boxed),
        }
    }

    pub(super) fn matches(&self, resource: &[u8], subresource: &[u8]) -> bool {
        &*self.text == b"*"
            || is_joined(&self.text, resource, subresource)
            || (!subresource.is_empty() && self.of_any_resource.as_deref() == Some(subresource))
            || self.any_subresource_of.as_deref() == Some(resource)
    }
}

/// Returns whether `text` is `resource`, or `resource/subresource` if there is a subresource.
fn is_joined(text: &[u8], resource: &[u8], subresource: &[u8]) -> bool {
    match text.strip_prefix(resource) {
        Some(rest) if subresource.is_empty() => rest.is_empty(),
        Some(rest) => rest.strip_prefix(b"/") == Some(subresource),
        None => false,
    }
}

#[derive(Debug)]
pub(super) enum PathPattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
}

impl PathPattern {
    fn new(text: &str) -> PathPattern {
        if text.ends_with('*') {
            PathPattern::Prefix(text.trim_end_matches('*').as_bytes().into())
        } else {
            PathPattern::Exact(text.as_bytes().into())
        }
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            PathPattern::Exact(text) => **text == *path,
            PathPattern::Prefix(prefix) => path.starts_with(prefix),
        }
    }
}

#[cfg(test)]
mod tests;
