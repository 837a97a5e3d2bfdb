//! Determines which backups are too old, without trusting a wrong system clock.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::rotate::BackupNames;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The system clock, checked against the modification times of the log files.
///
/// The reference time is the newest modification time of the log files, but not later than that
/// time at the start plus the run time of the process. If the clock is more than one day ahead of
/// the reference time, either the clock is wrong or nothing was written for that long. In both
/// cases files are only deleted if they exceed the maximum age by the reference time.
#[derive(Debug)]
pub(crate) struct LogClock {
    clock: Clock,
    /// `None` if there were no files.
    newest_at_start: Option<SystemTime>,
    started: Instant,
    warned: bool,
}

impl LogClock {
    /// Creates the clock of the log at `path`. Must be called before anything is written to the
    /// log.
    pub(crate) fn new(path: &Path, clock: Clock) -> LogClock {
        let newest_at_start = newest(path);
        LogClock { clock, newest_at_start, started: Instant::now(), warned: false }
    }

    /// Returns the time before which backups are too old, or `None` if there is no limit. `newest`
    /// is the current newest modification time of the log's files.
    pub(super) fn oldest(
        &mut self,
        max_age_days: u64,
        newest: Option<SystemTime>,
        backups: &[SystemTime],
    ) -> Option<SystemTime> {
        if max_age_days == 0 {
            return None;
        }
        // A maximum age that reaches back before the representable time is no limit.
        let age = DAY.checked_mul(u32::try_from(max_age_days).unwrap_or(u32::MAX))?;
        let now = self.clock.now();
        let oldest = now.checked_sub(age)?;
        let own = self.newest_at_start.and_then(|start| start.checked_add(self.started.elapsed()));
        let Some(own) = own.into_iter().chain(newest).min() else { return Some(oldest) };
        match now.duration_since(own) {
            Ok(ahead) if ahead > DAY => {
                let trusted = own.checked_sub(age)?;
                let spared = backups.iter().filter(|time| **time < oldest && **time >= trusted);
                let spared = spared.count();
                if spared > 0 && !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        "the clock is {} days ahead of the newest audit log file: {spared} rotated \
                         files that are older than --audit-log-maxage={max_age_days} days by the clock \
                         are kept, because they are newer by the times of the files; check the clock",
                        ahead.as_secs() / DAY.as_secs()
                    );
                }
                Some(trusted)
            }
            _ => Some(oldest),
        }
    }
}

/// Returns the newest modification time of the log and its backups.
fn newest(path: &Path) -> Option<SystemTime> {
    let names = BackupNames::of(path);
    let entries = std::fs::read_dir(&names.folder).ok()?;
    let modified = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let is_log = names.parse(&name).is_some() || name == names.log;
        is_log.then(|| super::modified(&entry)).flatten()
    };
    entries.filter_map(modified).max()
}
