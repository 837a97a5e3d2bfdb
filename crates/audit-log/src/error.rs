//! Errors of a backend when it is opened and when it writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::seal::KeyError;

/// The log backend cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A directory above the log file could not be created.
    #[error(
        "cannot create the directory {} of the audit log: {source}; create it and let this user \
         write there, or choose another path",
        path.display()
    )]
    Folder {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The log file could not be opened or created.
    #[error("cannot open the audit log {}: {source}; {}", path.display(), remedy(path))]
    File {
        /// The log file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path is not that of a file.
    #[error(
        "the audit log {} is not a file; give the full path of a file, or - for standard output",
        .0.display()
    )]
    NotAFile(PathBuf),
    /// The log cannot be sealed, because it is not a regular file.
    #[error("{what} cannot be sealed; log to a regular file, or do not seal the log")]
    NotSealable {
        /// The kind of output.
        what: String,
    },
    /// The key of the seal cannot be used.
    #[error("{0}")]
    SealKey(#[from] KeyError),
    /// The seal file cannot be read or created.
    #[error(
        "cannot seal the audit log {}: {source}; let this user read the log and write the *.seal \
         files beside it",
        path.display()
    )]
    Seal {
        /// The log file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process, or another backend of this one, writes the log.
    #[error(
        "the audit log {} is already written by another kube-audit-proxy or backend{owner}; a sealed \
         log has one writer: stop the other, or choose another path",
        path.display()
    )]
    Locked {
        /// The log file.
        path: PathBuf,
        /// The other process, as ` (process 4711)`, if known.
        owner: String,
    },
    /// The lock file of a sealed log cannot be opened.
    #[error(
        "cannot open the lock file {} of the sealed audit log: {source}; let this user write it",
        path.display()
    )]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Standard output is closed.
    #[error("cannot write the audit log to standard output: {0}; keep it open, or log to a file")]
    Stdout(io::Error),
    /// A setting of the batch mode is out of range.
    #[error("must be a positive number")]
    NotPositive {
        /// The setting, such as `batch-max-size`.
        setting: &'static str,
    },
    /// The operating system could not create a thread.
    #[error("cannot start the thread that writes the audit log: {0}; raise the limit of threads")]
    Thread(io::Error),
}

impl LogError {
    /// Returns the setting to change: `path` stands for the flag `--audit-log-path` or the key
    /// `path`.
    pub fn setting(&self) -> &'static str {
        match self {
            LogError::SealKey(_) => "seal-key-file",
            LogError::NotSealable { .. } | LogError::Seal { .. } | LogError::LockFile { .. } => {
                "seal"
            }
            LogError::NotPositive { setting } => setting,
            LogError::Folder { .. }
            | LogError::File { .. }
            | LogError::NotAFile(_)
            | LogError::Locked { .. }
            | LogError::Stdout(_)
            | LogError::Thread(_) => "path",
        }
    }
}

/// Returns what to do if the file at `path` cannot be opened. Paths like `/dev/stdout` are links
/// that only the owner of a terminal or pipe can open, and that are broken if standard output is a
/// socket.
fn remedy(path: &Path) -> &'static str {
    let is_stdout =
        ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name));
    match is_stdout {
        true => {
            "for standard output give - (in sinks, type: stdout), which uses it as it is and needs \
             no permission to open it"
        }
        false => "let this user write that file and its directory, or choose another path",
    }
}

/// Why an event is not in the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The write failed.
    #[error("cannot write to the audit log {log}: {source}")]
    Io {
        /// The log file, or `standard output`.
        log: Arc<str>,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// The seal of the log cannot be written.
    #[error("cannot write the seal of the audit log {log}: {source}")]
    Seal {
        /// The log file.
        log: Arc<str>,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// The webhook endpoint did not accept the event.
    #[error("the webhook endpoint did not accept the events: {0}")]
    Webhook(Arc<str>),
    /// The event could not be written to the spool of a stream backend.
    #[error("{0}")]
    Spool(Arc<str>),
    /// The event was submitted after the shutdown.
    #[error("audit backend shut down")]
    ShutDown,
    /// The writer panicked, which is a bug.
    #[error("the audit log's writer panicked")]
    Panicked,
}
