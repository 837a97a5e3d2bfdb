//! Loads a policy file like kube-apiserver: with the same errors and warnings. Messages are those
//! of kube-apiserver, with a position and a remedy added.

use super::matcher::Policy;
use super::spec::PolicySpec;
use super::version::{self, Version};
use super::{schema, validate};
use crate::document;
use crate::document::diagnostic::{Diagnostic, Diagnostics, lines};
use crate::document::tree::SyntaxError;

/// A valid policy.
#[derive(Debug)]
pub struct Loaded {
    /// The compiled policy.
    pub policy: Policy,
    /// The policy before compilation.
    pub spec: PolicySpec,
    /// Ignored members: unknown ones, and all but the last of duplicate keys.
    pub warnings: Vec<Diagnostic>,
}

/// The errors of an invalid policy. Displayed with one problem per line.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(errors))]
pub struct InvalidPolicy {
    /// All errors, in the order of the file.
    pub errors: Vec<Diagnostic>,
    /// Members that would be ignored if the policy were valid.
    pub warnings: Vec<Diagnostic>,
}

/// Parses a policy in YAML or JSON. `source` is its name in messages.
///
/// # Errors
/// Returns [`InvalidPolicy`] with all errors found, at most 100.
pub fn parse(text: &[u8], source: &str) -> Result<Loaded, InvalidPolicy> {
    let (spec, warnings) = parse_spec(text, source)?;
    Ok(Loaded { policy: Policy::new(&spec), spec, warnings })
}

/// Like [`parse`], but does not compile the policy.
///
/// # Errors
/// See [`parse`].
pub fn parse_spec(
    text: &[u8],
    source: &str,
) -> Result<(PolicySpec, Vec<Diagnostic>), InvalidPolicy> {
    let mut errors = Diagnostics::new(source);
    let mut warnings = Diagnostics::new(source);
    let spec = decode(text, &mut errors, &mut warnings);
    let warnings = warnings.into_sorted();
    match spec {
        Some(spec) if errors.is_empty() => Ok((spec, warnings)),
        _ => Err(InvalidPolicy { errors: errors.into_sorted(), warnings }),
    }
}

/// Checks syntax, version and kind, types, and values, in this order like kube-apiserver; stops
/// after the first step that finds errors. Warnings are only added if the types are correct.
fn decode(text: &[u8], errors: &mut Diagnostics, warnings: &mut Diagnostics) -> Option<PolicySpec> {
    let document = match document::parse(text) {
        Ok(document) => document,
        Err(SyntaxError { at, message, help }) => {
            errors.add(at, format!("failed decoding: {message}"), help);
            return None;
        }
    };
    let root = &document.root;
    let version = version::of(root, errors)?;
    match &version {
        Version::V1 => {
            schema::check(root, errors, warnings);
            if !errors.is_empty() {
                *warnings = Diagnostics::new("");
                return None;
            }
        }
        Version::Internal => schema::check_internal(root, warnings),
    }
    for duplicate in &document.duplicates {
        let message = format!("key {:?} already set in map", &*duplicate.key);
        let help = format!("the one at {} is ignored, remove one of them", duplicate.first_at);
        warnings.add(duplicate.at, message, Some(help));
    }
    if let Version::Internal = version {
        version::refuse_internal(root, errors);
        return None;
    }
    Some(validate::build(root, errors))
}

#[cfg(test)]
mod tests;
