//! Decides when the log file is rotated, and names the rotated file.

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

use super::backups::{Cleaner, LogClock, ProtectedBackups};
use super::clock::Clock;
use super::config::Rotation;
use super::files::{parent, with_suffix};
use super::metrics::LogMetrics;

const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]");

/// Suffixes of a backup's files: compressed log, index, seal, and seal of a backup that is being
/// deleted.
pub(super) const GZ: &str = ".gz";
pub(super) const ZST: &str = ".zst";
pub(super) const INDEX: &str = audit_query::index::SUFFIX;
pub(super) const SEAL: &str = ".seal";
pub(super) const RETIRED: &str = ".seal.deleted";

/// Delay before the next attempt after a failed rotation.
const RETRY: Duration = Duration::from_secs(1);

/// A backup whose name is this many milliseconds in the future was rotated while the clock was
/// wrong.
const FUTURE: i128 = 60 * 1000;

/// The rotation of one log file.
#[derive(Debug)]
pub(super) struct Rotator {
    rotation: Rotation,
    limit: u64,
    retry_at: Option<Instant>,
    cleaner: Option<Cleaner>,
    metrics: Arc<LogMetrics>,
}

impl Rotator {
    pub(super) fn new(rotation: Rotation, metrics: Arc<LogMetrics>) -> Rotator {
        let limit = rotation.max_size_mib.saturating_mul(1 << 20);
        Rotator { rotation, limit, retry_at: None, cleaner: None, metrics }
    }

    /// Starts the cleanup of backups with a first round, if any is configured. Must be called after
    /// the recovery of the seal, which reads backups.
    pub(super) fn start_cleaner(
        &mut self,
        names: BackupNames,
        clock: LogClock,
        kept: Arc<ProtectedBackups>,
    ) -> io::Result<()> {
        self.cleaner = Cleaner::start(names, self.rotation, clock, kept)?;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn set_limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// Returns the maximum size of the file in bytes; `None` while the file is not rotated because
    /// rotation has just failed.
    pub(super) fn limit(&self) -> Option<u64> {
        let blocked = self.retry_at.is_some_and(|at| Instant::now() < at);
        (!blocked).then_some(self.limit)
    }

    /// Notes that the file was rotated: counts the rotation and starts a cleanup.
    pub(super) fn rotated(&mut self) {
        self.retry_at = None;
        self.metrics.rotations.inc();
        self.clean();
    }

    /// Starts a round of the cleanup.
    pub(super) fn clean(&self) {
        if let Some(cleaner) = &self.cleaner {
            cleaner.wake();
        }
    }

    /// Notes that the file could not be rotated.
    pub(super) fn failed(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
    }
}

/// Chooses names for rotated files. They sort in the order of the events even if the clock jumps.
#[derive(Debug)]
pub(super) struct BackupNamer {
    names: BackupNames,
    clock: Clock,
    /// The time of the newest backup in milliseconds since 1970. The next backup gets a later time
    /// even if the clock was set back, or the process was restarted.
    last: i128,
}

impl BackupNamer {
    /// Continues after the newest existing backup.
    pub(super) fn new(names: BackupNames, clock: Clock) -> BackupNamer {
        let newest = names.newest();
        let last = newest.map_or(i128::MIN, millis);
        if let Some(ahead) = newest.and_then(|newest| newest.duration_since(clock.now()).ok())
            && ahead.as_millis() as i128 > FUTURE
        {
            tracing::warn!(
                "the newest rotated audit log in {} is named {} s in the future: the clock is or was \
                 wrong; names continue after it",
                names.folder.display(),
                ahead.as_secs()
            );
        }
        BackupNamer { names, clock, last }
    }

    /// Returns an unused name, later than all before.
    pub(super) fn next(&mut self) -> io::Result<PathBuf> {
        let now = millis(self.clock.now());
        let after = self.last.saturating_add(1);
        let free = match self.names.free(now.max(after)) {
            // The newest backup is of the last representable time, in the year 9999.
            Err(_) if after > now => self.names.free(now),
            result => result,
        };
        let (stamp, backup) = free?;
        self.last = self.last.max(stamp);
        Ok(backup)
    }

    pub(super) fn names(&self) -> &BackupNames {
        &self.names
    }
}

/// Names of the backups of a log file: for `audit.log`, `audit-2026-11-23T04-42-40.000.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupNames {
    pub(super) folder: PathBuf,
    /// `audit.log`
    pub(super) log: OsString,
    /// `audit-`
    prefix: OsString,
    /// `.log`
    extension: OsString,
}

impl BackupNames {
    pub(super) fn of(path: &Path) -> BackupNames {
        let name = path.file_name().unwrap_or_default().as_bytes();
        // The extension begins at the last dot, even if that is the first byte, unlike with
        // `Path::extension`.
        let dot = name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len());
        let mut prefix = OsStr::from_bytes(&name[..dot]).to_owned();
        prefix.push("-");
        BackupNames {
            folder: parent(path).unwrap_or(Path::new(".")).to_owned(),
            log: OsStr::from_bytes(name).to_owned(),
            prefix,
            extension: OsStr::from_bytes(&name[dot..]).to_owned(),
        }
    }

    /// Returns the backup name for a time in milliseconds since 1970.
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

    /// Returns the first unused name at this time or later, and its time.
    fn free(&self, mut millis: i128) -> io::Result<(i128, PathBuf)> {
        loop {
            let backup = self.backup(millis)?;
            let suffixes = ["", GZ, ZST, INDEX, SEAL, RETIRED];
            let mut taken = suffixes.iter().map(|suffix| taken(&with_suffix(&backup, suffix)));
            if !taken.try_fold(false, |any, taken| Ok::<_, io::Error>(any || taken?))? {
                return Ok((millis, backup));
            }
            millis += 1;
        }
    }

    /// Returns the time of the newest backup by name, including backups of which only the seal or
    /// index is left.
    fn newest(&self) -> Option<SystemTime> {
        let entries = fs::read_dir(&self.folder).ok()?;
        let named = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name();
            let (time, suffix) = self.parse(&name)?;
            let known =
                suffix.is_empty() || [GZ, ZST, SEAL, RETIRED].map(str::as_bytes).contains(&suffix);
            known.then_some(time)
        };
        entries.filter_map(named).max()
    }

    /// Parses the name of a backup. Returns its time and what follows its extension (nothing, or
    /// `.gz`), or `None` if the name is not that of a backup.
    pub(super) fn parse<'a>(&self, name: &'a OsStr) -> Option<(SystemTime, &'a [u8])> {
        let rest = name.as_bytes().strip_prefix(self.prefix.as_bytes())?;
        let (stamp, rest) = rest.split_at_checked("2026-11-23T04-42-40.000".len())?;
        let suffix = rest.strip_prefix(self.extension.as_bytes())?;
        let stamp = std::str::from_utf8(stamp).ok()?;
        let time = PrimitiveDateTime::parse(stamp, STAMP).ok()?;
        Some((time.assume_utc().into(), suffix))
    }
}

/// Returns a file name without the suffix.
pub(super) fn without_suffix(name: &OsStr, suffix: &str) -> OsString {
    let bytes = name.as_bytes();
    OsStr::from_bytes(&bytes[..bytes.len().saturating_sub(suffix.len())]).to_owned()
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
mod tests;
