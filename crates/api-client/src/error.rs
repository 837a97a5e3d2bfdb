//! Settings that cannot be used.

use std::io;
use std::path::PathBuf;

/// Settings that cannot be used. The message names the file and field, and what is accepted
/// instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{field}: cannot read {}: {source}", path.display())]
    Read {
        /// The flag or field that names the file.
        field: String,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A kubeconfig is not YAML, or does not have the expected structure.
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Yaml {
        /// The kubeconfig.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The reason, without the surrounding text, which may be a secret.
        reason: String,
    },
    /// A field has a value that cannot be used.
    #[error("{field}: {reason}")]
    Field {
        /// The flag, or file and field.
        field: String,
        /// The reason and the remedy.
        reason: String,
    },
}

impl ConfigError {
    /// Creates the error for a `field`; the `reason` ends with what is accepted instead.
    pub fn field(field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
        ConfigError::Field { field: field.into(), reason: reason.into() }
    }
}
