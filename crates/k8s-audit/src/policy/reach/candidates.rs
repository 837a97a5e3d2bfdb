//! Computes the values to try for one rule in each dimension, with the earlier rules that match
//! them.

use std::collections::BTreeSet;

use super::bits::Bits;
use super::distinct;
use super::witness::is_path;
use crate::policy::matcher::{Policy, Rule, Scope};
use crate::policy::spec::{GroupResources, PolicyRule, PolicySpec};

/// The verbs of resource requests. HTTP methods without a Kubernetes verb result in an empty one.
const RESOURCE_VERBS: [&str; 10] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "",
    "proxy",
];

/// Maximum number of values in one dimension. If there are more, the policy is too large.
const MOST: usize = 300_000;

/// A value, and the earlier rules whose condition it meets.
pub(super) struct Valued<T> {
    pub(super) value: T,
    pub(super) rules: Bits,
}

/// A user with at most one group. More groups would only make more rules match.
pub(super) struct User {
    pub(super) name: String,
    pub(super) group: Option<String>,
}

/// The target of a request.
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) name: String,
}

/// The path of a non-resource request.
pub(super) struct Path {
    pub(super) path: String,
}

/// The values to try.
pub(super) struct Candidates {
    pub(super) users: Vec<Valued<User>>,
    pub(super) resource_verbs: Vec<Valued<String>>,
    pub(super) namespaces: Vec<Valued<String>>,
    pub(super) resources: Vec<Valued<Resource>>,
    pub(super) path_verbs: Vec<Valued<String>>,
    pub(super) paths: Vec<Valued<Path>>,
}

impl Candidates {
    /// Returns the values with which a request can match the rule; `None` if there are too many.
    pub(super) fn new(spec: &PolicySpec, policy: &Policy, rule: usize) -> Option<Candidates> {
        let (earlier, written) = (&spec.rules[..rule], &spec.rules[rule]);
        let compiled = &policy.rules()[..rule];
        let matched = |matches: &dyn Fn(&Rule) -> bool| -> Bits {
            let bits = compiled.iter().enumerate().filter(|(_, rule)| matches(rule));
            let mut bits: Vec<usize> = bits.map(|(index, _)| index).collect();
            bits.sort_unstable();
            bits.into_iter().collect()
        };
        let valued = |value: String, matches: &dyn Fn(&Rule, &[u8]) -> bool| {
            let rules = matched(&|rule| matches(rule, value.as_bytes()));
            Valued { value, rules }
        };

        let names = own_or_any(&written.users, earlier, |rule| &rule.users, "someone");
        let groups: Vec<Option<String>> = match written.user_groups.is_empty() {
            true => vec![None],
            false => written.user_groups.iter().cloned().map(Some).collect(),
        };
        let mut users = Vec::new();
        for name in &names {
            for group in &groups {
                let rules = matched(&|rule: &Rule| {
                    rule.users.admit(name.as_bytes())
                        && (rule.user_groups.is_empty()
                            || group.as_ref().is_some_and(|g| rule.user_groups.admit(g.as_bytes())))
                });
                users.push(Valued {
                    value: User { name: name.clone(), group: group.clone() },
                    rules,
                });
            }
        }

        let verb = |verb: String| valued(verb, &|rule, verb| rule.verbs.admit(verb));
        let verbs_of = |verbs: Vec<String>| verbs.into_iter().map(verb).collect::<Vec<_>>();
        let resource_verbs = RESOURCE_VERBS
            .into_iter()
            .filter(|verb| written.verbs.is_empty() || written.verbs.iter().any(|v| v == verb));
        let resource_verbs = verbs_of(resource_verbs.map(str::to_owned).collect());
        // A method is any HTTP token; its verb is in lower case.
        let mut path_verbs = vec!["get".to_owned(), "head".to_owned(), "post".to_owned()];
        path_verbs.extend(own_or_any(&written.verbs, earlier, |rule| &rule.verbs, "purge"));
        path_verbs.retain(|verb| {
            (written.verbs.is_empty() || written.verbs.contains(verb)) && is_method(verb)
        });
        let path_verbs = verbs_of(path_verbs);

        let objects = !written.namespaces.is_empty() || !written.resources.is_empty();
        let only_paths = !objects && !written.non_resource_urls.is_empty();
        let (mut namespaces, mut resources, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        if !only_paths {
            let own =
                own_or_any(&written.namespaces, earlier, |rule| &rule.namespaces, "elsewhere");
            namespaces = segments(own, written.namespaces.is_empty())
                .into_iter()
                .map(|namespace| {
                    valued(namespace, &|rule, namespace| match &rule.scope {
                        Scope::Everything => true,
                        Scope::Objects { namespaces, .. } => namespaces.admit(namespace),
                        Scope::Paths(_) => false,
                    })
                })
                .collect();
            for resource in all_resources(written, earlier)? {
                let rules = matched(&|rule| match &rule.scope {
                    Scope::Everything => true,
                    Scope::Objects { resources, .. } => {
                        resources.is_empty() || resources.iter().any(|e| admits(e, &resource))
                    }
                    Scope::Paths(_) => false,
                });
                resources.push(Valued { value: resource, rules });
            }
        }
        if !objects {
            for path in all_paths(written, earlier).into_iter().filter(|path| is_path(path)) {
                let rules = matched(&|rule| match &rule.scope {
                    Scope::Everything => true,
                    Scope::Objects { .. } => false,
                    Scope::Paths(patterns) => patterns.iter().any(|p| p.matches(path.as_bytes())),
                });
                paths.push(Valued { value: Path { path }, rules });
            }
        }
        Some(Candidates {
            users: distinct(users, |_| ()),
            resource_verbs: distinct(resource_verbs, |verb| verb_class(verb)),
            namespaces: distinct(namespaces, String::is_empty),
            resources: distinct(resources, resource_class),
            path_verbs: distinct(path_verbs, |_| ()),
            paths: distinct(paths, |_| ()),
        })
    }
}

/// Returns which conditions of [`super::can_be`] concern the verb.
fn verb_class(verb: &str) -> u8 {
    match verb {
        "get" | "delete" => 0,
        "deletecollection" => 1,
        "list" => 2,
        "proxy" => 3,
        _ => 4,
    }
}

fn resource_class(resource: &Resource) -> (bool, bool, bool, bool, bool) {
    let name = &resource.name;
    let part = matches!(&resource.resource[..], "status" | "finalize");
    let unselectable = matches!(&name[..], "." | "..") || name.contains('%');
    let empty = resource.resource.is_empty();
    (name.is_empty(), unselectable, resource.subresource.is_empty(), part, empty)
}

fn admits(entry: &crate::policy::matcher::ResourceEntry, request: &Resource) -> bool {
    let Resource { group, resource, subresource, name } = request;
    entry.group.as_ref().is_none_or(|admitted| **admitted == *group.as_bytes())
        && (entry.resources.is_empty()
            || entry.names.admit(name.as_bytes())
                && entry
                    .resources
                    .iter()
                    .any(|p| p.matches(resource.as_bytes(), subresource.as_bytes())))
}

/// Returns the rule's own values. If it has none, returns a value that no earlier rule has, then
/// those of the earlier rules.
fn own_or_any<'r>(
    own: &[String],
    earlier: &'r [PolicyRule],
    values: impl Fn(&'r PolicyRule) -> &'r [String],
    fresh: &str,
) -> Vec<String> {
    if !own.is_empty() {
        return own.to_vec();
    }
    let known: BTreeSet<&String> = earlier.iter().flat_map(values).collect();
    let known = known.into_iter().cloned().collect::<BTreeSet<_>>();
    std::iter::once(unlike(fresh, &known)).chain(known.iter().cloned()).collect()
}

/// Returns a value that is not in `known`.
fn unlike(fresh: &str, known: &BTreeSet<String>) -> String {
    let mut value = fresh.to_owned();
    while known.contains(&value) {
        value.push('x');
    }
    value
}

/// Returns the values that can be a segment of a path, and the empty one.
fn segments(mut values: Vec<String>, with_empty: bool) -> Vec<String> {
    if with_empty {
        values.push(String::new());
    }
    values.retain(|value| !value.contains('/'));
    values
}

fn is_method(verb: &str) -> bool {
    !verb.bytes().any(|byte| byte.is_ascii_uppercase())
        && http::Method::from_bytes(verb.to_ascii_uppercase().as_bytes()).is_ok()
}

/// The values in the `resources` of the rule and of earlier rules.
struct Named {
    groups: BTreeSet<String>,
    resources: BTreeSet<String>,
    subresources: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Named {
    fn of(rules: &[PolicyRule], own: &PolicyRule) -> Named {
        let entries = || rules.iter().chain([own]).flat_map(|rule| &rule.resources);
        let patterns = || entries().flat_map(|entry| &entry.resources);
        let usable = |value: &&str| !value.is_empty() && *value != "*" && !value.contains('/');
        let part = |of: fn(&str) -> &str| -> BTreeSet<String> {
            patterns().map(|p| of(p)).filter(usable).map(str::to_owned).collect()
        };
        Named {
            groups: entries()
                .map(|e| &e.group[..])
                .filter(|g| *g != "*")
                .map(str::to_owned)
                .collect(),
            resources: part(|pattern| {
                pattern.split_once('/').map_or(pattern, |(resource, _)| resource)
            }),
            subresources: part(|pattern| pattern.split_once('/').map_or("", |(_, sub)| sub)),
            names: entries()
                .flat_map(|e| &e.resource_names)
                .filter(|n| !n.contains('/'))
                .cloned()
                .collect(),
        }
    }
}

/// Returns a new value, the values that rules name, and the empty one.
fn any_of(named: &BTreeSet<String>, fresh: &str, with_empty: bool) -> Vec<String> {
    let mut values = vec![unlike(fresh, named)];
    values.extend(with_empty.then(String::new));
    values.extend(named.iter().filter(|value| !value.is_empty()).cloned());
    values
}

fn all_resources(rule: &PolicyRule, earlier: &[PolicyRule]) -> Option<Vec<Resource>> {
    let named = Named::of(earlier, rule);
    let everything = [GroupResources { group: "*".to_owned(), ..GroupResources::default() }];
    let entries = if rule.resources.is_empty() { &everything[..] } else { &rule.resources[..] };
    let mut all = Vec::new();
    for entry in entries {
        let groups = match &entry.group[..] {
            "*" => {
                let mut groups = named.groups.clone();
                groups.insert(String::new());
                any_of(&groups, "example.com", true)
            }
            group => vec![group.to_owned()],
        };
        // Without resources, kube-apiserver ignores the names.
        let names = match entry.resource_names.is_empty() || entry.resources.is_empty() {
            true => any_of(&named.names, "something", true),
            false => segments(entry.resource_names.clone(), false),
        };
        let pairs = pairs(entry, &named);
        if all.len() + groups.len() * names.len() * pairs.len() > MOST {
            return None;
        }
        for group in &groups {
            for (resource, subresource) in &pairs {
                for name in &names {
                    all.push(Resource {
                        group: group.clone(),
                        resource: resource.clone(),
                        subresource: subresource.clone(),
                        name: name.clone(),
                    });
                }
            }
        }
    }
    Some(all)
}

/// Returns pairs of resource and subresource that the entry matches.
fn pairs(entry: &GroupResources, named: &Named) -> Vec<(String, String)> {
    let resources = || any_of(&named.resources, "things", true);
    let subresources = || any_of(&named.subresources, "part", true);
    let all = || {
        let pair =
            |resource: String| subresources().into_iter().map(move |s| (resource.clone(), s));
        resources().into_iter().flat_map(pair).collect::<Vec<_>>()
    };
    if entry.resources.is_empty() {
        return all();
    }
    let mut pairs = Vec::new();
    for pattern in &entry.resources {
        if pattern == "*" {
            pairs.extend(all());
        } else if let Some(subresource) = pattern.strip_prefix("*/") {
            pairs.extend(resources().into_iter().map(|r| (r, subresource.to_owned())));
        }
        if let Some(resource) = pattern.strip_suffix("/*") {
            pairs.extend(subresources().into_iter().map(|s| (resource.to_owned(), s)));
        }
        let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        pairs.push((resource.to_owned(), subresource.to_owned()));
    }
    let admitted = crate::policy::matcher::ResourceEntry::new(entry);
    pairs.retain(|(resource, subresource)| {
        !resource.contains('/')
            && !subresource.contains('/')
            && admitted
                .resources
                .iter()
                .any(|p| p.matches(resource.as_bytes(), subresource.as_bytes()))
    });
    pairs
}

/// Returns paths that the rule matches. For a prefix, these are paths that no longer pattern of an
/// earlier rule matches.
fn all_paths(rule: &PolicyRule, earlier: &[PolicyRule]) -> Vec<String> {
    let any = ["*".to_owned()];
    let patterns =
        if rule.non_resource_urls.is_empty() { &any[..] } else { &rule.non_resource_urls[..] };
    let others = earlier.iter().flat_map(|rule| &rule.non_resource_urls);
    let others: BTreeSet<&str> = others.map(|url| url.trim_end_matches('*')).collect();
    let mut paths = Vec::new();
    for pattern in patterns {
        if !pattern.ends_with('*') {
            paths.push(pattern.clone());
            continue;
        }
        let prefix = pattern.trim_end_matches('*');
        let prefix = if prefix.is_empty() { "/" } else { prefix };
        // Extends the prefix by a character with which no longer pattern continues.
        let mut chars = ('a'..='z').chain('0'..='9').chain('\u{c0}'..='\u{10000}');
        let fresh = chars.find_map(|char| {
            let fresh = format!("{prefix}{char}");
            let is_taken = others.iter().any(|other| other.starts_with(&fresh));
            (!is_taken).then_some(fresh)
        });
        let fresh = fresh.unwrap_or_else(|| prefix.to_owned());
        // The last one is an invalid URL, which is never a resource request.
        paths.extend([
            fresh.clone(),
            prefix.to_owned(),
            format!("{prefix}/"),
            format!("{fresh}%zz"),
        ]);
    }
    paths
}
