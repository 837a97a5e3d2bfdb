//! All changes of one object, with their differences.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::kinds::is_write;
use crate::event::Event;
use crate::filter::pattern::Pattern;
use crate::output::Field;
use crate::output::format::printable;
use crate::scan::{Place, Records, Visitor};

/// The short names that kubectl accepts.
const SHORT: [(&str, &str); 20] = [
    ("po", "pods"),
    ("deploy", "deployments"),
    ("svc", "services"),
    ("cm", "configmaps"),
    ("ns", "namespaces"),
    ("no", "nodes"),
    ("sa", "serviceaccounts"),
    ("ds", "daemonsets"),
    ("sts", "statefulsets"),
    ("rs", "replicasets"),
    ("ing", "ingresses"),
    ("pvc", "persistentvolumeclaims"),
    ("pv", "persistentvolumes"),
    ("cj", "cronjobs"),
    ("hpa", "horizontalpodautoscalers"),
    ("netpol", "networkpolicies"),
    ("pdb", "poddisruptionbudgets"),
    ("crd", "customresourcedefinitions"),
    ("sc", "storageclasses"),
    ("ep", "endpoints"),
];

/// The columns of the table.
pub(crate) const FIELDS: [Field; 8] = [
    Field::Time,
    Field::Who,
    Field::Verb,
    Field::Object,
    Field::Namespace,
    Field::Code,
    Field::SourceIp,
    Field::UserAgent,
];

/// The object, as `KIND/NAME`.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    resources: Vec<String>,
    name: Pattern,
}

impl Target {
    /// Parses `deployment/web`, `deploy/web`, or `deployments/web`.
    pub(crate) fn parse(text: &str) -> Option<Target> {
        let (kind, name) = text.split_once('/')?;
        let kind = kind.to_lowercase();
        if kind.is_empty() || name.is_empty() {
            return None;
        }
        let mut resources = vec![kind.clone(), format!("{kind}s"), format!("{kind}es")];
        resources.extend(kind.strip_suffix('y').map(|stem| format!("{stem}ies")));
        resources.extend(
            SHORT.iter().filter(|(short, _)| *short == kind).map(|(_, long)| (*long).to_owned()),
        );
        Some(Target { resources, name: Pattern::new(name) })
    }

    fn is(&self, event: &Event<'_>) -> bool {
        self.name.matches(event.object.name)
            && self.resources.iter().any(|resource| event.object.resource.is(resource.as_bytes()))
    }
}

/// Emits the cells of the row and the body of each change, each preceded by its length.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) target: Target,
    pub(crate) bodies: bool,
}

impl Visitor for History {
    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records) {
        if !is_write(event) || !self.target.is(event) {
            return;
        }
        records.push(|out| {
            let mut scratch = Vec::new();
            for field in &FIELDS {
                scratch.clear();
                let present = field.push(event, place, &mut scratch);
                let length = if present { scratch.len() as u32 + 1 } else { 0 };
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(if present { &scratch } else { &[] });
            }
            let succeeded = event.status.code.is_some_and(|code| code < 400);
            // The object after the change; for a patch, only the response contains it.
            let body = event.response_object.or(event.request_object);
            if let (Some(body), true, true) = (body, self.bodies, succeeded) {
                out.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
                out.extend_from_slice(body);
            } else {
                out.extend_from_slice(&0_u32.to_le_bytes());
            }
        });
    }
}

/// Returns the object after a change, one member per line, without members that every change
/// modifies.
pub(crate) fn lines(body: &str) -> Option<Vec<String>> {
    let mut object: Json = serde_json::from_str(body).ok()?;
    if object["kind"] == "Status" {
        return None;
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Json::as_object_mut) {
        for name in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(name);
        }
    }
    let text = serde_json::to_string_pretty(&object).ok()?;
    Some(text.lines().map(|line| printable(line.as_bytes()).into_owned()).collect())
}

/// Number of unchanged lines around a difference.
const CONTEXT: usize = 2;
/// Maximum number of lines of texts that are compared line by line.
const LONGEST: usize = 4000;

/// Returns the differing lines with context, like `diff -u`.
pub(crate) fn diff(old: &[String], new: &[String], colour: bool) -> String {
    let mut out = String::new();
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let end = old[start..]
        .iter()
        .rev()
        .zip(new[start..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (a, b) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut changes: Vec<(char, &str)> = Vec::new();
    changes.extend(old[..start].iter().map(|line| (' ', line.as_str())));
    if a.len() > LONGEST || b.len() > LONGEST {
        changes.extend(a.iter().map(|line| ('-', line.as_str())));
        changes.extend(b.iter().map(|line| ('+', line.as_str())));
    } else {
        compare(a, b, &mut changes);
    }
    changes.extend(old[old.len() - end..].iter().map(|line| (' ', line.as_str())));
    let is_near = |index: usize| {
        let near = &changes[index.saturating_sub(CONTEXT)..changes.len().min(index + CONTEXT + 1)];
        near.iter().any(|(mark, _)| *mark != ' ')
    };
    let mut skipped = false;
    for (index, (mark, line)) in changes.iter().enumerate() {
        if !is_near(index) {
            skipped = true;
            continue;
        }
        if std::mem::take(&mut skipped) {
            out.push_str("    ...\n");
        }
        let (on, off) = match (mark, colour) {
            ('-', true) => ("\x1b[31m", "\x1b[0m"),
            ('+', true) => ("\x1b[32m", "\x1b[0m"),
            _ => ("", ""),
        };
        let _ = writeln!(out, "  {on}{mark} {line}{off}");
    }
    out
}

/// Computes a longest common subsequence.
fn compare<'a>(a: &'a [String], b: &'a [String], changes: &mut Vec<(char, &'a str)>) {
    let width = b.len() + 1;
    let mut lengths = vec![0_u16; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i * width + j] = match a[i] == b[j] {
                true => lengths[(i + 1) * width + j + 1] + 1,
                false => lengths[(i + 1) * width + j].max(lengths[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            changes.push((' ', &a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len()
            || i < a.len() && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]
        {
            changes.push(('-', &a[i]));
            i += 1;
        } else {
            changes.push(('+', &b[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_with_kubectl() {
        let line = br#"{"auditID":"1","objectRef":{"resource":"networkpolicies","name":"web"}}"#;
        let event = Event::parse(line).unwrap();
        for (text, expected) in [
            ("networkpolicy/web", true),
            ("NetworkPolicy/web", true),
            ("netpol/w*", true),
            ("networkpolicies/web", true),
            ("netpol/db", false),
            ("pod/web", false),
        ] {
            assert_eq!(Target::parse(text).unwrap().is(&event), expected, "{text}");
        }
        assert!(Target::parse("web").is_none() && Target::parse("/web").is_none());
    }

    #[test]
    fn differences_are_shown_with_what_is_around_them() {
        let old =
            lines(r#"{"a":1,"b":{"c":2,"d":3,"e":4,"f":5},"metadata":{"resourceVersion":"1"}}"#);
        let new =
            lines(r#"{"a":1,"b":{"c":2,"d":3,"e":9,"f":5},"metadata":{"resourceVersion":"2"}}"#);
        let found = diff(&old.clone().unwrap(), &new.unwrap(), false);
        assert_eq!(
            found.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "    ...",
                "        \"c\": 2,",
                "        \"d\": 3,",
                "  -     \"e\": 4,",
                "  +     \"e\": 9,",
                "        \"f\": 5",
                "      },",
            ]
        );
        assert_eq!(diff(&old.clone().unwrap(), &old.unwrap(), true), "");
        assert_eq!(lines(r#"{"kind":"Status"}"#), None);
    }
}
