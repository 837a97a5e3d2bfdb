//! Reads policy files.

use std::io;
use std::path::{Path, PathBuf};

use k8s_audit::policy::{InvalidPolicy, Loaded, parse};

use watched_files::config_file;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The path is empty.
    #[error("file path not specified; name the policy file")]
    NoPath,
    /// The file could not be read.
    #[error("{}: failed to read file path: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The file has no valid policy.
    #[error(transparent)]
    Invalid(#[from] InvalidPolicy),
}

/// Reads a policy file, or a pipe that a policy comes from.
///
/// # Errors
/// Returns a [`LoadError`]. Its display has one problem per line.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text = read_once(path)?;
    Ok(parse(&text, &path.display().to_string())?)
}

/// Reads the bytes of a policy file or a pipe.
pub(super) fn read_once(path: &Path) -> Result<Vec<u8>, LoadError> {
    bytes(path, config_file::read_any)
}

/// Reads the bytes of a policy file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    bytes(path, config_file::read)
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

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TempDir;

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let dir = TempDir::new();
        let missing = dir.path().join("missing.yaml");
        let error = load(&missing).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: failed to read", missing.display())), "{error}");
        assert!(load(Path::new("")).unwrap_err().to_string().contains("file path not specified"));
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n";
        let loaded = load(&dir.write("good.yaml", text)).unwrap();
        assert_eq!((loaded.policy.rule_count(), loaded.warnings.len()), (1, 0));
    }
}
