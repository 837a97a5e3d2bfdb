//! Loads an [`AuthenticationConfiguration`] from a file, as strictly as kube-apiserver: unknown
//! members and duplicate keys are errors. Messages are those of kube-apiserver, with a position and
//! a remedy added.

use std::io;
use std::path::{Path, PathBuf};

use k8s_audit::go::quote;

use super::{schema, validate};
use crate::anonymous::Anonymous;
use crate::oidc::JwtSettings;
use k8s_audit::document;
use k8s_audit::document::diagnostic::{Diagnostic, Diagnostics, lines};
use k8s_audit::document::tree::{Node, SyntaxError, Value};
use watched_files::config_file;

const GROUP: &str = "apiserver.config.k8s.io/";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const KIND: &str = "AuthenticationConfiguration";

/// The content of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuthenticationConfiguration {
    /// `jwt`
    pub jwt: Vec<JwtSettings>,
    /// `anonymous`; `None` if it is missing.
    pub anonymous: Option<Anonymous>,
    /// Settings without an effect in this proxy.
    pub warnings: Vec<Diagnostic>,
}

/// Why the configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The file holds no valid configuration.
    #[error("{}", lines(problems))]
    Invalid {
        /// All errors, in the order of the file.
        problems: Vec<Diagnostic>,
    },
}

/// Loads the file. `disallowed_issuers` are those of ServiceAccount tokens.
///
/// # Errors
/// See [`LoadError`], which is displayed with one problem per line.
pub(super) fn load(
    path: &Path,
    disallowed_issuers: &[String],
) -> Result<AuthenticationConfiguration, LoadError> {
    let text = config_file::read(path, KIND)
        .map_err(|error| LoadError::Unreadable { path: path.to_owned(), error })?;
    parse(&text, &path.display().to_string(), disallowed_issuers)
}

/// Parses a configuration in YAML or JSON. `source` is its name in messages.
///
/// # Errors
/// Returns [`LoadError::Invalid`] with all problems found.
pub(crate) fn parse(
    text: &[u8],
    source: &str,
    disallowed_issuers: &[String],
) -> Result<AuthenticationConfiguration, LoadError> {
    let mut problems = Diagnostics::new(source);
    let mut warnings = Diagnostics::new(source);
    let decoded = decode(text, disallowed_issuers, &mut problems, &mut warnings);
    match decoded {
        Some((jwt, anonymous)) if problems.is_empty() => {
            Ok(AuthenticationConfiguration { jwt, anonymous, warnings: warnings.into_sorted() })
        }
        _ => Err(LoadError::Invalid { problems: problems.into_sorted() }),
    }
}

/// Checks syntax, version and kind, types, and values, in this order; stops after the first step
/// that finds problems.
fn decode(
    text: &[u8],
    disallowed_issuers: &[String],
    problems: &mut Diagnostics,
    warnings: &mut Diagnostics,
) -> Option<(Vec<JwtSettings>, Option<Anonymous>)> {
    let document = match document::parse(text) {
        Ok(document) => document,
        Err(SyntaxError { at, message, help: remedy }) => {
            problems.add(at, message, remedy);
            return None;
        }
    };
    let root = &document.root;
    check_version(root, problems);
    if !problems.is_empty() {
        return None;
    }
    for duplicate in &document.duplicates {
        let message = format!("strict decoding error: key {:?} already set in map", duplicate.key);
        let remedy = format!("remove this one or the one at {}", duplicate.first_at);
        problems.add(duplicate.at, message, Some(remedy));
    }
    schema::check(root, problems);
    if !problems.is_empty() {
        return None;
    }
    Some(validate::build(root, disallowed_issuers, problems, warnings))
}

fn check_version(root: &Node, problems: &mut Diagnostics) {
    let begin = format!("begin with \"apiVersion: {GROUP}v1\" and \"kind: {KIND}\"");
    match root.value {
        Value::Null => {
            return problems.add(root.at, "empty config data".to_owned(), Some(begin));
        }
        Value::Map(_) => {}
        _ => {
            let kind = root.value.kind();
            let message = format!("cannot unmarshal {kind} into an object");
            return problems.add(root.at, message, Some(begin));
        }
    }
    for name in ["apiVersion", "kind"] {
        let node = root.member(name);
        if !matches!(node.map(|node| &node.value), Some(Value::String(_))) {
            let at = node.map_or(root.at, |node| node.at);
            return problems.add(at, format!("Object '{name}' is missing"), Some(begin));
        }
    }
    let text = |name| root.member(name).map(Node::text).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let is_known = version.strip_prefix(GROUP).is_some_and(|version| VERSIONS.contains(&version));
    if is_known && kind == KIND {
        return;
    }
    let message = format!(
        "no kind {} is registered for version {}",
        quote(kind.as_bytes()),
        quote(version.as_bytes())
    );
    let wrong = if is_known { "kind" } else { "apiVersion" };
    problems.add(root.member(wrong).map(|node| node.at), message, Some(begin));
}

#[cfg(test)]
mod tests;
