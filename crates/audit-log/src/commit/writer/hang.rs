//! Whether the log hangs: a disk that is gone, such as an NFS server, may never answer, and is no
//! error.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A call that has not returned for so long will hardly do.
const HANGS: Duration = Duration::from_secs(5);

/// The time at which the output was called, until it returns.
pub(super) struct Calls {
    epoch: Instant,
    /// Milliseconds since then, and one; 0: it has returned.
    since: AtomicU64,
    /// Lines that the call is to write.
    lines: AtomicUsize,
}

impl Calls {
    pub(super) fn new() -> Calls {
        Calls { epoch: Instant::now(), since: AtomicU64::new(0), lines: AtomicUsize::new(0) }
    }

    /// Makes a call that may hang. Only one is made at a time.
    pub(super) fn watched<T>(&self, call: impl FnOnce() -> T) -> T {
        let since = self.epoch.elapsed().as_millis() as u64 + 1;
        self.since.store(since, Ordering::Relaxed);
        let returned = call();
        self.since.store(0, Ordering::Relaxed);
        returned
    }

    /// Notes how many lines the next call is to write; 0 after it.
    pub(super) fn carries(&self, lines: usize) {
        self.lines.store(lines, Ordering::Relaxed);
    }

    /// Returns the lines that a call is writing now.
    pub(super) fn lines(&self) -> usize {
        self.lines.load(Ordering::Relaxed)
    }

    /// Returns whether a call has not returned.
    pub(super) fn is_called(&self) -> bool {
        self.since.load(Ordering::Relaxed) > 0
    }

    /// How long a call has hung by now, if it does.
    pub(super) fn hung(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        let begun = self.epoch + Duration::from_millis(since);
        Some(now.saturating_duration_since(begun)).filter(|took| *took >= HANGS)
    }
}
