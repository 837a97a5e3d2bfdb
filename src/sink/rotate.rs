//! When the log file is rotated, and what the rotated file is called.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::backups::Cleaner;
use super::clock::Clock;
use super::config::Rotation;
use super::seal::seal_path;
use crate::metrics::SinkMetrics;

const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]");

/// After a rotation that failed, the next is tried after this time.
const RETRY: Duration = Duration::from_secs(1);

/// The rotation of one log file.
#[derive(Debug)]
pub(super) struct Rotator {
    limit: u64,
    names: BackupNames,
    clock: Clock,
    /// The last backup's time in milliseconds since 1970. The next one's is later even if the
    /// clock was set back, so that the order of the names is that of the events.
    last: i128,
    retry_at: Option<Instant>,
    cleaner: Option<Cleaner>,
    metrics: Arc<SinkMetrics>,
}

impl Rotator {
    /// Starts the clean-up of backups, and a first round of it, if any is asked for.
    pub(super) fn new(
        path: &Path,
        rotation: Rotation,
        clock: Clock,
        metrics: Arc<SinkMetrics>,
    ) -> io::Result<Rotator> {
        let names = BackupNames::of(path);
        let cleaner = Cleaner::start(names.clone(), rotation, clock.clone())?;
        let limit = rotation.max_size_mib.saturating_mul(1 << 20);
        Ok(Rotator { limit, names, clock, last: i128::MIN, retry_at: None, cleaner, metrics })
    }

    #[cfg(test)]
    pub(super) fn set_limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// The most bytes that a file has. None: rotation has just failed.
    pub(super) fn limit(&self) -> Option<u64> {
        let blocked = self.retry_at.is_some_and(|at| Instant::now() < at);
        (!blocked).then_some(self.limit)
    }

    /// Renames the file at `path` to a backup's name that is free.
    pub(super) fn rename(&mut self, path: &Path) -> io::Result<PathBuf> {
        let stamp = millis(self.clock.now()).max(self.last.saturating_add(1));
        let (stamp, backup) = self.names.free(stamp)?;
        fs::rename(path, &backup)?;
        self.last = stamp;
        Ok(backup)
    }

    /// The file was rotated: counts it and cleans up.
    pub(super) fn rotated(&mut self) {
        self.retry_at = None;
        self.metrics.log_rotations.increment();
        if let Some(cleaner) = &self.cleaner {
            cleaner.wake();
        }
    }

    /// The file could not be rotated.
    pub(super) fn failed(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
    }
}

/// Names of a log file's backups: `audit.log` gives `audit-2026-11-23T04-42-40.000.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupNames {
    pub(super) folder: PathBuf,
    /// `audit-`
    prefix: OsString,
    /// `.log`
    extension: OsString,
}

impl BackupNames {
    pub(super) fn of(path: &Path) -> BackupNames {
        let name = path.file_name().unwrap_or_default().as_bytes();
        // From the last dot, be it the first byte: not what `Path::extension` says.
        let dot = name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len());
        let mut prefix = OsStr::from_bytes(&name[..dot]).to_owned();
        prefix.push("-");
        BackupNames {
            folder: match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            },
            prefix,
            extension: OsStr::from_bytes(&name[dot..]).to_owned(),
        }
    }

    /// The backup of a time in milliseconds since 1970.
    fn backup(&self, millis: i128) -> io::Result<PathBuf> {
        let stamp = OffsetDateTime::from_unix_timestamp_nanos(millis.saturating_mul(1_000_000))
            .map_err(io::Error::other)?
            .format(STAMP)
            .map_err(io::Error::other)?;
        let mut name = self.prefix.clone();
        name.push(stamp);
        name.push(&self.extension);
        Ok(self.folder.join(name))
    }

    /// The first free name of this time or later, with its time.
    fn free(&self, mut millis: i128) -> io::Result<(i128, PathBuf)> {
        loop {
            let backup = self.backup(millis)?;
            if !taken(&backup)? && !taken(&with_gz(&backup))? && !taken(&seal_path(&backup))? {
                return Ok((millis, backup));
            }
            millis += 1;
        }
    }

    /// The name that a backup made now would have, for the seal of a file that somebody else moved.
    pub(super) fn free_now(&self) -> io::Result<PathBuf> {
        Ok(self.free(millis(SystemTime::now()))?.1)
    }

    /// The time in a backup's name, and what follows its extension (nothing, or `.gz`). None: not
    /// the name of a backup.
    pub(super) fn parse<'a>(&self, name: &'a OsStr) -> Option<(SystemTime, &'a [u8])> {
        let rest = name.as_bytes().strip_prefix(self.prefix.as_bytes())?;
        let (stamp, rest) = rest.split_at_checked("2026-11-23T04-42-40.000".len())?;
        let suffix = rest.strip_prefix(self.extension.as_bytes())?;
        let stamp = std::str::from_utf8(stamp).ok()?;
        let time = PrimitiveDateTime::parse(stamp, STAMP).ok()?;
        Some((time.assume_utc().into(), suffix))
    }
}

/// The name of the compressed file.
pub(super) fn with_gz(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}

fn millis(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i128,
        Err(before) => -(before.duration().as_millis() as i128),
    }
}

fn taken(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
