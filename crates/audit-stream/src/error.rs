//! Settings that cannot be used.

use std::fmt::Display;
use std::path::Path;

/// A setting that cannot be used. The message names the field and what is accepted instead, never a
/// secret.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SettingsError {
    field: &'static str,
    reason: String,
}

impl SettingsError {
    /// Creates the error for a `field`; the `reason` ends with what is accepted instead.
    pub(crate) fn new(field: &'static str, reason: impl Display) -> SettingsError {
        SettingsError { field, reason: reason.to_string() }
    }

    /// Creates the error for a file that cannot be read.
    pub(crate) fn read(field: &'static str, path: &Path, error: &std::io::Error) -> SettingsError {
        SettingsError::new(field, format!("cannot read {}: {error}", path.display()))
    }

    /// Returns the key to change.
    pub fn setting(&self) -> &'static str {
        self.field
    }

    /// Returns what is wrong, and what is accepted instead, without the name of the field.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
