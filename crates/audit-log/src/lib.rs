//! Audit backends of kube-audit-proxy: encoded events are written to a log, or sent to a webhook or
//! another [`Destination`].
//!
//! A backend takes each event as one line ([`LogBackend::submit`],
//! [`WebhookBackend::submit`](webhook::WebhookBackend::submit),
//! [`StreamBackend::submit`](stream::StreamBackend::submit)) and returns a [`Commit`], which
//! resolves when the request may go on. The module `commit` documents the way from an accepted
//! event to the disk: the strategies, their invariants, and what happens when a log is full, slow,
//! or failing. The other modules are the log file: opening it, rotating it, keeping rotated files,
//! and sealing ([`seal`]).
//!
//! A log is written like kube-apiserver's log backend does, but: a deleted or moved log file is
//! noticed; rotation overwrites no older file; a line longer than `--audit-log-maxsize` is written,
//! alone in its file; and a partial line of a failed write is removed again, or ended where it
//! cannot be, so that the next line can be read.

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
