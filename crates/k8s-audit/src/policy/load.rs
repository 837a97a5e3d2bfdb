//! From a policy file to a [`Policy`], with kube-apiserver's verdict on it: what it refuses is
//! refused, what it only warns of is warned of. Its messages are kept, and say in addition where
//! the problem is and what to write instead.

use super::matcher::Policy;
use super::spec::PolicySpec;
use super::version::{self, Version};
use super::{schema, validate};
use crate::document;
use crate::document::diagnostic::{Diagnostic, Diagnostics, lines};
use crate::document::tree::SyntaxError;

/// A policy that was accepted.
#[derive(Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// The policy as it was written.
    pub spec: PolicySpec,
    /// Ignored members: unknown ones, and all but the last of duplicate keys.
    pub warnings: Vec<Diagnostic>,
}

/// A text that holds no valid policy. Displayed with one problem per line.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(errors))]
pub struct InvalidPolicy {
    /// All errors, in the order of the file.
    pub errors: Vec<Diagnostic>,
    /// The members that would be ignored if the policy were valid.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a policy from text, YAML or JSON. `source` names it in messages.
///
/// # Errors
/// Returns [`InvalidPolicy`] with all errors found, at most 100.
pub fn parse(text: &[u8], source: &str) -> Result<Loaded, InvalidPolicy> {
    let (spec, warnings) = parse_spec(text, source)?;
    Ok(Loaded { policy: Policy::new(&spec), spec, warnings })
}

/// As [`parse`], but the policy is as it was written.
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

/// kube-apiserver's steps, each of which ends the matter if it finds errors: syntax, version and
/// kind, types, values. It warns only once the types are right.
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
