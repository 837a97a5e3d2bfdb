//! The settings of a webhook backend.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::Mode;
use crate::delivery::SpoolConfig;

/// Settings of a webhook backend except for the endpoint; the `--audit-webhook-*` flags.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// `--audit-webhook-mode` and `--audit-webhook-batch-*`
    pub mode: Mode,
    /// `--audit-webhook-initial-backoff`: the delay before the second attempt.
    pub initial_backoff: Duration,
    /// `--audit-webhook-truncate-max-event-size` in bytes; `None` if truncation is off.
    pub max_event_size: Option<usize>,
    /// `--audit-webhook-compress`: whether bodies are compressed with gzip.
    pub compress: bool,
    /// `--audit-webhook-spool-dir`
    pub spool: Option<SpoolConfig>,
}

/// The webhook backend cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The spool directory cannot be used.
    #[error(
        "cannot use {}: {source}; let this user write there, or choose another directory",
        path.display()
    )]
    Spool {
        /// The directory, or a file in it.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process or backend uses the spool directory.
    #[error(
        "{} is in use: {source}; give each proxy and each backend its own directory",
        path.display()
    )]
    SpoolInUse {
        /// The directory.
        path: PathBuf,
        /// The error of the lock.
        source: io::Error,
    },
}

impl WebhookError {
    /// Returns the error for a spool directory that cannot be opened.
    pub(crate) fn spool(path: PathBuf, source: io::Error) -> WebhookError {
        match source.kind() {
            io::ErrorKind::ResourceBusy => WebhookError::SpoolInUse { path, source },
            _ => WebhookError::Spool { path, source },
        }
    }

    /// Returns the setting to change: `spool-dir` stands for the flag `--audit-webhook-spool-dir`
    /// or the key `spool-dir`.
    pub fn setting(&self) -> &'static str {
        match self {
            WebhookError::Spool { .. } | WebhookError::SpoolInUse { .. } => "spool-dir",
        }
    }
}
