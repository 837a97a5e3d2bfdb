//! Detects a log that hangs: a write to an unreachable disk, such as an NFS server, may neither
//! return nor fail.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A call that has not returned after this time counts as hanging.
const HANGS: Duration = Duration::from_secs(5);

/// When the current call of the output began.
pub(super) struct Calls {
    epoch: Instant,
    /// Start of the call in milliseconds since the epoch, plus 1; 0 if no call is in progress.
    since: AtomicU64,
    /// Number of lines that the call writes.
    lines: AtomicUsize,
}

impl Calls {
    pub(super) fn new() -> Calls {
        Calls { epoch: Instant::now(), since: AtomicU64::new(0), lines: AtomicUsize::new(0) }
    }

    /// Makes a call that may hang. Only one call may be in progress.
    pub(super) fn watched<T>(&self, call: impl FnOnce() -> T) -> T {
        let since = self.epoch.elapsed().as_millis() as u64 + 1;
        self.since.store(since, Ordering::Relaxed);
        let returned = call();
        self.since.store(0, Ordering::Relaxed);
        returned
    }

    /// Sets the number of lines that the next call writes; 0 after the call.
    pub(super) fn carries(&self, lines: usize) {
        self.lines.store(lines, Ordering::Relaxed);
    }

    /// Returns the number of lines that the current call writes.
    pub(super) fn lines(&self) -> usize {
        self.lines.load(Ordering::Relaxed)
    }

    /// Returns whether a call is in progress.
    pub(super) fn is_called(&self) -> bool {
        self.since.load(Ordering::Relaxed) > 0
    }

    /// Returns how long the current call has been hanging, if it is.
    pub(super) fn hung(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        let begun = self.epoch + Duration::from_millis(since);
        Some(now.saturating_duration_since(begun)).filter(|took| *took >= HANGS)
    }
}
