//! From a policy file to a [`Policy`], with kube-apiserver's verdict on it: what it refuses is
//! refused, what it only warns of is warned of. Its messages are kept, and say in addition where
//! the problem is and what to write instead.

use std::io;
use std::path::{Path, PathBuf};

use super::matcher::Policy;
use super::spec::PolicySpec;
use super::version::{self, Version};
use super::{schema, validate};
use crate::document;
use crate::document::problem::{Problem, Problems, lines};
use crate::document::tree::SyntaxError;

/// A policy that was accepted.
#[derive(Debug)]
pub struct Loaded {
    /// Ready to be asked.
    pub policy: Policy,
    /// What was ignored in it: unknown members, and all but the last of duplicate keys.
    pub warnings: Vec<Problem>,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The path is empty.
    #[error("file path not specified; name the policy file with --audit-policy-file")]
    NoPath,
    /// The file could not be read.
    #[error("{}: failed to read file path: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file holds no valid policy.
    #[error("{}", lines(problems))]
    Invalid {
        /// All that is wrong, in the order of the file.
        problems: Vec<Problem>,
        /// What would have been ignored.
        warnings: Vec<Problem>,
    },
}

/// Reads a policy file.
///
/// # Errors
/// See [`LoadError`]; its text has one problem a line.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text = bytes(path, document::read_any)?;
    parse(&text, &path.display().to_string())
}

/// The bytes of a policy file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    bytes(path, document::read)
}

fn bytes(
    path: &Path,
    read: impl FnOnce(&Path, &str) -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, LoadError> {
    if path.as_os_str().is_empty() {
        return Err(LoadError::NoPath);
    }
    read(path, "policy").map_err(|error| LoadError::Unreadable { path: path.to_owned(), error })
}

/// Reads a policy from text, YAML or JSON. `source` names it in messages.
///
/// # Errors
/// [`LoadError::Invalid`] with all problems found.
pub fn parse(text: &[u8], source: &str) -> Result<Loaded, LoadError> {
    let (spec, warnings) = parse_spec(text, source)?;
    Ok(Loaded { policy: Policy::new(&spec), warnings })
}

/// As [`parse`], but the policy is as it was written.
///
/// # Errors
/// As [`parse`].
pub fn parse_spec(text: &[u8], source: &str) -> Result<(PolicySpec, Vec<Problem>), LoadError> {
    let mut problems = Problems::new(source);
    let mut warnings = Problems::new(source);
    let spec = decode(text, &mut problems, &mut warnings);
    let warnings = warnings.into_sorted();
    match spec {
        Some(spec) if problems.is_empty() => Ok((spec, warnings)),
        _ => Err(LoadError::Invalid { problems: problems.into_sorted(), warnings }),
    }
}

/// kube-apiserver's steps, each of which ends the matter if it finds problems: syntax, version and
/// kind, types, values. It warns only once the types are right.
fn decode(text: &[u8], problems: &mut Problems, warnings: &mut Problems) -> Option<PolicySpec> {
    let document = match document::parse(text) {
        Ok(document) => document,
        Err(SyntaxError { at, message, remedy }) => {
            problems.add(at, format!("failed decoding: {message}"), remedy);
            return None;
        }
    };
    let root = &document.root;
    let version = version::of(root, problems)?;
    match &version {
        Version::V1 => {
            schema::check(root, problems, warnings);
            if !problems.is_empty() {
                *warnings = Problems::new("");
                return None;
            }
        }
        Version::Internal => schema::check_internal(root, warnings),
    }
    for duplicate in &document.duplicates {
        let message = format!("key {:?} already set in map", &*duplicate.key);
        let remedy = format!("the one at {} is ignored, remove one of them", duplicate.first_at);
        warnings.add(duplicate.at, message, Some(remedy));
    }
    if let Version::Internal = version {
        version::refuse_internal(root, problems);
        return None;
    }
    Some(validate::build(root, problems))
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
