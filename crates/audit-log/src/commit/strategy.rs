//! Decisions about commits, each made once, when a backend starts.

use super::super::config::{Mode, SyncMode};

/// Which thread writes an event, and whether the request waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitStrategy {
    /// The event is queued, and the writer thread writes it. In `batch` nothing waits for that; in
    /// the blocking modes the request waits.
    ///
    /// For `batch`, for outputs that may be slow (standard output, pipes, devices), and for
    /// `--audit-log-sync=always`, where it is better if more events share a sync.
    Queued,
    /// The request that submits the event writes it, together with all queued events, and waits for
    /// that. If another thread is writing, the event is queued instead.
    ///
    /// For `blocking-strict` with a regular file.
    Inline,
    /// The request continues when its event is queued, and the bytes that it sends wait instead
    /// ([`GatedIo`](super::GatedIo)). One task writes all events that were accepted on a worker
    /// thread in one pass of its scheduler.
    ///
    /// For `blocking` with a regular file.
    Deferred,
}

impl CommitStrategy {
    /// Chooses the strategy. `is_quick` means that a write to the output usually takes some
    /// microseconds.
    pub(super) fn choose(mode: &Mode, is_quick: bool, sync: SyncMode) -> CommitStrategy {
        match mode {
            Mode::Batch { .. } => CommitStrategy::Queued,
            _ if !is_quick || sync == SyncMode::Always => CommitStrategy::Queued,
            Mode::Blocking => CommitStrategy::Deferred,
            Mode::BlockingStrict => CommitStrategy::Inline,
        }
    }
}

/// What happens to a new event when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The event is dropped, counted under `apiserver_audit_error_total{plugin="buffered"}`, and
    /// logged. Events that are already queued stay. For `batch`.
    DropNewest {
        /// Capacity of the queue in events; at least 1.
        capacity: usize,
    },
    /// The queue has no limit of its own: each request, or the bytes that it sends, waits for its
    /// own events, so the number of requests in flight is the limit. For the blocking modes.
    Wait,
}

/// What happens to a request when its event could not be written. In all cases the event is counted
/// under `apiserver_audit_error_total{plugin="log"}` and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFailed {
    /// The request continues. For `batch` and `blocking`.
    Continue,
    /// The request is rejected, or its response is aborted. For `blocking-strict`.
    Refuse,
}

impl Mode {
    /// Returns what happens to an event when the queue is full.
    pub fn when_full(&self) -> WhenFull {
        match *self {
            Mode::Batch { buffer_size, .. } => WhenFull::DropNewest { capacity: buffer_size },
            Mode::Blocking | Mode::BlockingStrict => WhenFull::Wait,
        }
    }

    /// Returns what happens to a request when its event could not be written.
    pub fn when_failed(&self) -> WhenFailed {
        match self {
            Mode::Batch { .. } | Mode::Blocking => WhenFailed::Continue,
            Mode::BlockingStrict => WhenFailed::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_mode_and_the_output_choose_the_strategy() {
        use CommitStrategy::{Deferred, Inline, Queued};
        let batch =
            Mode::Batch { buffer_size: 7, max_size: 1, max_wait: Duration::ZERO, throttle: None };
        let interval = SyncMode::Interval(Duration::from_secs(1));
        for (mode, on_file, elsewhere) in [
            (&batch, Queued, Queued),
            (&Mode::Blocking, Deferred, Queued),
            (&Mode::BlockingStrict, Inline, Queued),
        ] {
            for (is_quick, sync, expected) in [
                (true, SyncMode::Off, on_file),
                (true, interval, on_file),
                (true, SyncMode::Always, Queued),
                (false, SyncMode::Off, elsewhere),
            ] {
                assert_eq!(CommitStrategy::choose(mode, is_quick, sync), expected, "{mode:?}");
            }
        }
        assert_eq!(batch.when_full(), WhenFull::DropNewest { capacity: 7 });
        assert_eq!(batch.when_failed(), WhenFailed::Continue);
        assert_eq!(Mode::Blocking.when_full(), WhenFull::Wait);
        assert_eq!(Mode::Blocking.when_failed(), WhenFailed::Continue);
        assert_eq!(Mode::BlockingStrict.when_failed(), WhenFailed::Refuse);
    }
}
