//! `apiVersion` and `kind` of a policy.

use crate::document::diagnostic::{Diagnostics, Help};
use crate::document::tree::{Entry, Node, Value};
use crate::go::quote;

const GROUP: &str = "audit.k8s.io";
const HELP: &str = "use \"apiVersion: audit.k8s.io/v1\"";

/// Kinds of audit.k8s.io/v1 that are not a policy.
const OTHER_KINDS: [&str; 10] = [
    "Event",
    "EventList",
    "PolicyList",
    "WatchEvent",
    "ListOptions",
    "GetOptions",
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
];

/// The versions of `Policy` that kube-apiserver decodes.
pub(super) enum Version {
    /// audit.k8s.io/v1.
    V1,
    /// No version, or the internal one. It is rejected only after decoding.
    Internal,
}

/// Returns the version of a policy document.
pub(super) fn of(root: &Node, errors: &mut Diagnostics) -> Option<Version> {
    match root.value {
        Value::Null => return Some(Version::Internal),
        Value::Map(_) => {}
        _ => {
            let kind = root.value.kind();
            let message = format!(
                "failed decoding: couldn't get version/kind; json parse error: json: cannot \
                 unmarshal {kind} into Go value of type struct {{ APIVersion string; Kind string }}"
            );
            errors.add(root.at, message, Some(format!("begin with {}", &HELP[4..])));
            return None;
        }
    }
    let api_version = header(root, "apiVersion", errors)?;
    let kind = header(root, "kind", errors)?;
    let at = |header: &Header<'_>| header.node.map_or(root.at, |node| node.at);

    let (group, version) = match api_version.text.split_once('/') {
        None => ("", api_version.text),
        Some((group, version)) if !version.contains('/') => (group, version),
        Some(_) => {
            let quoted = quote(api_version.text.as_bytes());
            let message = format!("failed decoding: unexpected GroupVersion string: {quoted}");
            errors.add(at(&api_version), message, Some(HELP.into()));
            return None;
        }
    };
    let is_internal = match (group, version) {
        (GROUP, "v1") => false,
        ("" | GROUP, "") | (GROUP, "__internal") => true,
        _ => {
            let message = unregistered(kind.text, api_version.text);
            errors.add(at(&api_version), message, Some(HELP.into()));
            return None;
        }
    };
    let help: Help = Some("use \"kind: Policy\"".into());
    match kind.text {
        "" | "Policy" if is_internal => Some(Version::Internal),
        "" | "Policy" => Some(Version::V1),
        other if OTHER_KINDS.contains(&other) => {
            let message = format!(
                "failed decoding: converting (v1.{other}) to (audit.Policy): unknown conversion"
            );
            errors.add(at(&kind), message, help);
            None
        }
        other => {
            let version = if is_internal { "audit.k8s.io/__internal" } else { "audit.k8s.io/v1" };
            errors.add(at(&kind), unregistered(other, version), help);
            None
        }
    }
}

/// Rejects a policy whose version is not `audit.k8s.io/v1`.
pub(super) fn refuse_internal(root: &Node, errors: &mut Diagnostics) {
    let message = "unknown group version field audit.k8s.io/__internal, Kind=Policy in policy";
    let help = match root.value {
        Value::Null => "the file is empty: write a policy, beginning with \"apiVersion: \
                        audit.k8s.io/v1\" and \"kind: Policy\""
            .to_owned(),
        _ => "add \"apiVersion: audit.k8s.io/v1\"".to_owned(),
    };
    let written = root.member("apiVersion").unwrap_or(root);
    errors.add(written.at, message.to_owned(), Some(help));
}

fn unregistered(kind: &str, version: &str) -> String {
    let kind = if kind.is_empty() { "Policy" } else { kind };
    format!(
        "failed decoding: no kind {} is registered for version {}",
        quote(kind.as_bytes()),
        quote(version.as_bytes())
    )
}

struct Header<'n> {
    text: &'n str,
    node: Option<&'n Node>,
}

/// Reads one of the two header fields. Go's JSON decoder reads them, and ignores the case of names.
fn header<'n>(root: &'n Node, name: &str, errors: &mut Diagnostics) -> Option<Header<'n>> {
    let mut entries: Vec<&Entry> =
        root.entries().iter().filter(|entry| folded(&entry.key) == folded(name)).collect();
    // kube-apiserver converts YAML to JSON with sorted keys.
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    let mut header = Header { text: "", node: None };
    for entry in entries {
        match &entry.node.value {
            Value::Null => {}
            Value::String(text) => header = Header { text, node: Some(&entry.node) },
            other => {
                let message = format!(
                    "{name}: failed decoding: couldn't get version/kind; json parse error: json: \
                     cannot unmarshal {} into Go struct field .{name} of type string",
                    other.kind()
                );
                errors.add(entry.node.at, message, Some(format!("write a text as {name}")));
                return None;
            }
        }
    }
    Some(header)
}

fn folded(text: &str) -> String {
    text.to_uppercase().to_lowercase()
}
