//! Audit backends of kube-audit-proxy: they write encoded events to a log, or send them to a
//! webhook or another [`Destination`].
//!
//! A backend takes each event as one line ([`LogBackend::submit`],
//! [`WebhookBackend::submit`](webhook::WebhookBackend::submit),
//! [`StreamBackend::submit`](stream::StreamBackend::submit)) and returns a [`Commit`], which
//! resolves when the request may continue. The module `commit` documents the path from an accepted
//! event to the disk: the strategies, their invariants, and what happens when a log is full, slow,
//! or failing. The other modules open and rotate the log file, keep rotated files, and seal them
//! ([`seal`]).
//!
//! A log is written like by kube-apiserver's log backend, with four differences:
//!
//! - A deleted or moved log file is detected.
//! - Rotation never overwrites an older file.
//! - A line longer than `--audit-log-maxsize` is written, alone in its file.
//! - After a failed write, a partial line is removed, or terminated with a newline if that is not
//!   possible, so that the next line can be parsed.

mod backups;
mod clock;
pub mod commit;
mod config;
mod delivery;
mod destination;
mod disk;
mod dropped_events;
mod error;
mod file;
mod file_rotation;
mod file_seal;
mod files;
mod line;
mod lock;
mod log_backend;
mod metrics;
mod open_file;
mod output;
mod rotate;
pub mod seal;
pub mod stream;
#[cfg(test)]
mod test_folder;
pub mod webhook;

pub use self::commit::{
    BackendState, Commit, CommitSequence, CommitStrategy, GatedIo, WhenFailed, WhenFull,
};
pub use self::config::{Compress, LogConfig, LogPath, Mode, Rotation, SyncMode, Throttle};
pub use self::delivery::{DeliveryFamilies, DeliveryMetrics, SpoolConfig};
pub use self::destination::{Batch, BatchFile, DeliveryError, Destination};
pub use self::error::{LogError, WriteError};
pub use self::line::Line;
pub use self::log_backend::LogBackend;
pub use self::metrics::{
    BackendFamilies, BackendLabel, BackendMetrics, LogFamilies, LogMetrics, Plugin,
};

pub(crate) use self::commit::Bucket;
pub(crate) use self::dropped_events::DroppedEvents;
pub(crate) use self::files::{FileId, Lock, create_private_dir, try_lock};
