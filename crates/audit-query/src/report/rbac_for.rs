//! Roles that allow exactly what a user did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::render::Cell;
use crate::event::{Event, Text};
use crate::index::{Column, Columns};
use crate::scan::{Counting, Place, Records, Visitor};

/// Maximum number of distinct permissions per thread; more than any role should have.
const LARGEST: usize = 50_000;

/// The permission that a request needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Permission {
    /// Empty for cluster-scoped objects and for URLs.
    namespace: String,
    group: String,
    /// `pods/exec`, or a URL.
    resource: String,
    /// Empty if the verb cannot be limited to a name.
    name: String,
    verb: String,
    is_url: bool,
}

/// The permissions that one thread has found.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    set: BTreeSet<Permission>,
    truncated: bool,
}

impl Visitor for Permissions {
    fn columns(&self) -> Option<Columns> {
        Some(Columns::of(&[
            Column::Code,
            Column::Verb,
            Column::Resource,
            Column::ApiGroup,
            Column::Subresource,
            Column::Namespace,
            Column::Name,
            Column::Uri,
        ]))
    }

    fn counting(&self) -> Option<Counting> {
        Some(Counting::default())
    }

    fn class(&mut self, event: &Event<'_>, place: Place<'_>) -> Option<u32> {
        // Events with the same values need the same permission.
        self.visit(event, place, &mut Records::default());
        None
    }

    fn visit(&mut self, event: &Event<'_>, _: Place<'_>, _: &mut Records) {
        // Requests that were refused need no permission.
        if matches!(event.status.code, Some(401 | 403)) {
            return;
        }
        let text = |text: Text<'_>| text.decode().into_owned();
        let object = &event.object;
        let verb = text(event.verb);
        let permission = if object.resource.is_some() {
            let mut resource = text(object.resource);
            if object.subresource.is_some() {
                resource = resource + "/" + &object.subresource.decode();
            }
            let can_be_named = matches!(verb.as_str(), "get" | "update" | "patch" | "delete");
            Permission {
                namespace: match resource.as_str() {
                    // The namespace of a Namespace is its own name.
                    "namespaces" => String::new(),
                    _ => text(object.namespace),
                },
                group: text(object.api_group),
                name: if can_be_named { text(object.name) } else { String::new() },
                resource,
                verb,
                is_url: false,
            }
        } else {
            let uri = text(event.request_uri);
            let path = uri.split('?').next().unwrap_or_default().to_owned();
            let (namespace, group, name) = <(String, String, String)>::default();
            Permission { namespace, group, resource: path, name, verb, is_url: true }
        };
        match self.set.len() < LARGEST {
            true => {
                self.set.insert(permission);
            }
            false => self.truncated |= !self.set.contains(&permission),
        }
    }
}

impl Permissions {
    /// Returns all permissions, and whether the maximum was exceeded.
    pub(crate) fn merge(all: Vec<Permissions>) -> (BTreeSet<Permission>, bool) {
        let truncated = all.iter().any(|one| one.truncated);
        (all.into_iter().flat_map(|one| one.set).collect(), truncated)
    }
}

/// Returns the permissions as rows.
pub(crate) fn rows(permissions: &BTreeSet<Permission>) -> ([String; 5], Vec<Vec<Cell>>) {
    let names = ["namespace", "api-group", "resource", "name", "verb"].map(str::to_owned);
    let cell = |text: &String| Cell::text((!text.is_empty()).then(|| text.clone()));
    let row = |one: &Permission| {
        let Permission { namespace, group, resource, name, verb, .. } = one;
        [namespace, group, resource, name, verb].map(cell).to_vec()
    };
    (names, permissions.iter().map(row).collect())
}

/// Rules: resource and names, with their verbs.
type Rules = BTreeMap<(bool, String, String, BTreeSet<String>), BTreeSet<String>>;

/// Returns YAML with a Role for each namespace, a ClusterRole for the rest, and their bindings.
pub(crate) fn yaml(user: &str, permissions: &BTreeSet<Permission>) -> String {
    let mut namespaces: BTreeMap<&str, Vec<&Permission>> = BTreeMap::new();
    for permission in permissions {
        namespaces.entry(&permission.namespace).or_default().push(permission);
    }
    let mut out = String::new();
    let name = role_name(user);
    for (namespace, permissions) in namespaces {
        let prefix = if namespace.is_empty() { "Cluster" } else { "" };
        let metadata = match namespace {
            "" => format!("metadata:\n  name: {}\n", quoted(&name)),
            _ => format!(
                "metadata:\n  name: {}\n  namespace: {}\n",
                quoted(&name),
                quoted(namespace)
            ),
        };
        let _ = write!(
            out,
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {prefix}Role\n{metadata}rules:\n"
        );
        for ((is_url, group, resource, names), verbs) in rules(&permissions) {
            if is_url {
                let _ = writeln!(out, "- nonResourceURLs: [{}]", quoted(&resource));
            } else {
                let _ = writeln!(out, "- apiGroups: [{}]", quoted(&group));
                let _ = writeln!(out, "  resources: [{}]", quoted(&resource));
            }
            if !names.is_empty() {
                let _ = writeln!(out, "  resourceNames: [{}]", all_quoted(&names));
            }
            let _ = writeln!(out, "  verbs: [{}]", all_quoted(&verbs));
        }
        let _ = write!(
            out,
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {prefix}RoleBinding\n{metadata}\
             roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {prefix}Role\n  name: {}\nsubjects:\n{}",
            quoted(&name),
            subject(user)
        );
    }
    out
}

/// Groups verbs by resource and names, then names with the same verbs.
fn rules(permissions: &[&Permission]) -> Rules {
    let mut by_name: BTreeMap<(bool, &str, &str, &str), BTreeSet<String>> = BTreeMap::new();
    for one in permissions {
        let key = (one.is_url, one.group.as_str(), one.resource.as_str(), one.name.as_str());
        by_name.entry(key).or_default().insert(one.verb.clone());
    }
    type ByVerbs<'a> = BTreeMap<(bool, &'a str, &'a str, bool, BTreeSet<String>), BTreeSet<String>>;
    let mut by_verbs = ByVerbs::new();
    for ((is_url, group, resource, name), verbs) in by_name {
        let names = by_verbs.entry((is_url, group, resource, name.is_empty(), verbs)).or_default();
        names.extend((!name.is_empty()).then(|| name.to_owned()));
    }
    let mut rules = Rules::new();
    for ((is_url, group, resource, _, verbs), names) in by_verbs {
        rules.insert((is_url, group.to_owned(), resource.to_owned(), names), verbs);
    }
    rules
}

fn subject(user: &str) -> String {
    match user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':')) {
        Some((namespace, name)) => format!(
            "- kind: ServiceAccount\n  name: {}\n  namespace: {}\n",
            quoted(name),
            quoted(namespace)
        ),
        None => format!(
            "- apiGroup: rbac.authorization.k8s.io\n  kind: User\n  name: {}\n",
            quoted(user)
        ),
    }
}

/// Returns a name that Kubernetes accepts.
fn role_name(user: &str) -> String {
    let valid =
        |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '-' };
    let name: String = user.chars().map(valid).take(50).collect();
    format!("audit-{}", name.trim_matches('-'))
}

fn quoted(text: &str) -> String {
    // JSON strings are YAML; strings can always be serialized.
    serde_json::to_string(text).unwrap_or_default()
}

fn all_quoted(texts: &BTreeSet<String>) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_was_done() {
        let mut permissions = Permissions::default();
        let mut records = Records::default();
        for line in [
            r#"{"auditID":"1","verb":"get","objectRef":{"resource":"secrets","namespace":"prod","name":"a"},"responseStatus":{"code":200}}"#,
            r#"{"auditID":"1","verb":"get","objectRef":{"resource":"secrets","namespace":"prod","name":"b"},"responseStatus":{"code":404}}"#,
            r#"{"auditID":"1","verb":"get","objectRef":{"resource":"secrets","namespace":"prod","name":"c"},"responseStatus":{"code":403}}"#,
            r#"{"auditID":"1","verb":"create","objectRef":{"resource":"pods","subresource":"exec","namespace":"prod","name":"p"}}"#,
            r#"{"auditID":"1","verb":"list","objectRef":{"resource":"nodes"}}"#,
            r#"{"auditID":"1","verb":"get","objectRef":{"resource":"namespaces","namespace":"prod","name":"prod"}}"#,
            r#"{"auditID":"1","verb":"get","requestURI":"/version?timeout=1s"}"#,
        ] {
            let place = Place { path: std::path::Path::new("a"), offset: 0 };
            permissions.visit(&Event::parse(line.as_bytes()).unwrap(), place, &mut records);
        }
        let (set, truncated) = Permissions::merge(vec![permissions]);
        assert!(!truncated);
        let text = yaml("system:serviceaccount:ci:deployer", &set);
        for part in [
            "kind: ClusterRole\n",
            "- nonResourceURLs: [\"/version\"]\n  verbs: [\"get\"]\n",
            "  resources: [\"nodes\"]\n  verbs: [\"list\"]\n",
            "  resources: [\"namespaces\"]\n  resourceNames: [\"prod\"]\n  verbs: [\"get\"]\n",
            "kind: Role\nmetadata:\n  name: \"audit-system-serviceaccount-ci-deployer\"\n  namespace: \"prod\"\n",
            "  resources: [\"secrets\"]\n  resourceNames: [\"a\", \"b\"]\n  verbs: [\"get\"]\n",
            "  resources: [\"pods/exec\"]\n  verbs: [\"create\"]\n",
            "- kind: ServiceAccount\n  name: \"deployer\"\n  namespace: \"ci\"\n",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }
}
