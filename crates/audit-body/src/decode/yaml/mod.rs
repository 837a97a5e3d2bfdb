//! YAML as `sigs.k8s.io/yaml` converts it to JSON, which is go-yaml v2 and then Go's JSON encoder.
//!
//! go-yaml v2 is a port of libyaml with additions of its own, and reads YAML 1.1. It differs from
//! the YAML crates in what it accepts (directives, tabs, simple keys, control characters), in its
//! types (`on`, `017`, `1_000`), and in keys: a merge key `<<` sets keys that are there already,
//! and of duplicate keys the last one counts. So the scanner and the grammar here are of our own
//! and follow it step by step. Only the first document is read, in time linear in its length.

mod json;
mod nodes;
mod parser;
mod properties;
mod reader;
mod scalars;
mod scanner;
mod value;

use super::ambiguity::{Ambiguities, Ambiguity};

/// Why go-yaml refuses a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("yaml: {0}")]
pub(super) struct Error(pub(super) &'static str);

/// Converts the first document of a YAML stream to JSON; a stream without one is `null`.
///
/// # Errors
/// kube-apiserver refuses the body, too.
pub(super) fn to_json(input: &[u8]) -> Result<(Vec<u8>, Ambiguities), Error> {
    let Some(document) = nodes::first_document(input)? else {
        return Ok((b"null".to_vec(), Ambiguities::default()));
    };
    let (mut values, root) = value::decode(&document)?;
    let json = json::to_json(&mut values, root)?;
    let mut ambiguities = values.ambiguities;
    if document.has_more {
        ambiguities.insert(Ambiguity::SeveralDocuments);
    }
    Ok((json, ambiguities))
}
