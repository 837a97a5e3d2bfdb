//! The configuration of a log backend: path, mode, sync and rotation.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::seal::SealConfig;

/// Settings of one log backend; the `--audit-log-*` flags.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `--audit-log-path`
    pub path: LogPath,
    /// `--audit-log-mode` and `--audit-log-batch-*`
    pub mode: Mode,
    /// `--audit-log-maxsize`, `-maxage`, `-maxbackup`, `-compress`; unused for standard output.
    pub rotation: Rotation,
    /// `--audit-log-sync`; unused for standard output.
    pub sync: SyncMode,
    /// `--audit-log-seal`; only for a file.
    pub seal: Option<SealConfig>,
}

/// When written events are synced to the disk: events that are only in the system's page cache are
/// lost if the machine crashes. They survive the end of the process in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// When the operating system decides, like with kube-apiserver, and at shutdown.
    Off,
    /// After this time at the latest.
    Interval(Duration),
    /// Before an event counts as written.
    Always,
}

/// The destination of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPath {
    /// `-`
    Stdout,
    /// A file. Missing directories are created.
    File(PathBuf),
}

impl fmt::Display for LogPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogPath::Stdout => f.write_str("standard output"),
            LogPath::File(path) => path.display().fmt(f),
        }
    }
}

/// Whether a request waits for its events to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// Requests do not wait. When the queue is full, new events are dropped and counted.
    Batch {
        /// Capacity of the queue in events; at least 1.
        buffer_size: usize,
        /// A batch is complete with this many events; at least 1.
        max_size: usize,
        /// A batch is also complete when its first event has waited for this time. Unused if
        /// `max_size` is 1.
        max_wait: Duration,
        /// Limits the number of batches per second.
        throttle: Option<Throttle>,
    },
    /// A request waits for its events, and continues if an event could not be written. Where writes
    /// are fast, the bytes that it sends wait instead
    /// ([`CommitStrategy::Deferred`](super::CommitStrategy::Deferred)).
    Blocking,
    /// A request waits for its events, and the caller rejects it if its first event could not be
    /// written.
    BlockingStrict,
}

/// A token bucket. Each batch takes one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// Tokens added per second; above 0.
    pub qps: f32,
    /// Maximum number of tokens in the bucket; at least 1.
    pub burst: u32,
}

/// When the log file is rotated, and how long rotated files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The log file is rotated before it grows beyond this many MiB. With 0 it is never rotated,
    /// and the other settings are unused.
    pub max_size_mib: u64,
    /// Rotated files older than this are deleted; 0 means no limit.
    pub max_age_days: u64,
    /// Number of rotated files that are kept; 0 means no limit.
    pub max_backups: usize,
    /// How rotated files are compressed.
    pub compress: Compress,
    /// Whether rotated files get an index file, `audit-TIME.log.parquet`.
    pub index: bool,
}

/// `--audit-log-compress`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// Rotated files are not compressed.
    No,
    /// With gzip, as `audit-TIME.log.gz`.
    Gzip,
    /// With zstd in frames of 1 MiB and a seek table, as `audit-TIME.log.zst`.
    Zstd,
}

impl Default for Rotation {
    /// kube-apiserver's defaults since 1.36: 100 MiB, 366 days, 100 files, no compression; and no
    /// index.
    fn default() -> Rotation {
        Rotation {
            max_size_mib: 100,
            max_age_days: 366,
            max_backups: 100,
            compress: Compress::No,
            index: false,
        }
    }
}

impl Rotation {
    /// Disables rotation.
    pub const NEVER: Rotation = Rotation {
        max_size_mib: 0,
        max_age_days: 0,
        max_backups: 0,
        compress: Compress::No,
        index: false,
    };
}
