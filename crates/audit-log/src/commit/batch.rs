//! Decides when queued lines are written.
//!
//! Works like kube-apiserver's collector: a batch is complete with `max_size` events, or when
//! `max_wait` has passed, or at shutdown; each batch needs a token. There are three differences,
//! none of which is visible in the log:
//!
//! - The wait begins with the first event of the batch, so that an idle writer needs no timer.
//! - A batch stays in the queue until it is written, so that at most `buffer_size` events are in
//!   memory. A full queue also completes a batch, if `buffer_size` is less than `max_size`.
//! - Without a throttle, all complete batches are taken at once, and then none for one millisecond.

use std::time::{Duration, Instant};

use super::super::config::{Mode, Throttle};
use super::strategy::CommitStrategy;

/// If no request waits and there is no throttle, the writer pauses for this long after each write.
/// Waking it for each event would cost several times as much as writing the event.
const REST: Duration = Duration::from_millis(1);

/// The next step of the writer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this many lines from the front of the queue.
    Take(usize),
    /// Sleep until this time, or until there are this many lines. `None` means no limit.
    Wait { until: Option<Instant>, wake_at: Option<usize> },
}

/// Decides when a batch is complete.
#[derive(Debug)]
pub(super) enum Batcher {
    /// Requests wait for their events: a batch is the whole queue.
    Immediate,
    /// Usually the requests write. The thread takes the whole queue, but only when it is woken.
    OnCall,
    /// No request waits for the events.
    Batch {
        /// A batch is complete with this many events.
        complete: usize,
        max_size: usize,
        max_wait: Duration,
        pace: Pace,
    },
}

/// Limits how fast batches follow each other.
#[derive(Debug)]
pub(super) enum Pace {
    /// No batch before this time, unless there are `crowd` events.
    Rest { until: Instant, crowd: usize },
    /// One token per batch.
    Throttle(Bucket),
}

impl Batcher {
    pub(super) fn new(mode: &Mode, strategy: CommitStrategy, now: Instant) -> Batcher {
        match *mode {
            Mode::Blocking | Mode::BlockingStrict => match strategy {
                CommitStrategy::Queued => Batcher::Immediate,
                CommitStrategy::Inline | CommitStrategy::Deferred => Batcher::OnCall,
            },
            Mode::Batch { buffer_size, max_size, max_wait, throttle } => Batcher::Batch {
                complete: max_size.min(buffer_size),
                max_size,
                max_wait,
                pace: match throttle {
                    Some(throttle) => Pace::Throttle(Bucket::new(throttle, now)),
                    None => Pace::Rest { until: now, crowd: buffer_size.div_ceil(2) },
                },
            },
        }
    }

    /// Returns whether the writer thread leaves events to the requests until it is called.
    pub(super) fn is_on_call(&self) -> bool {
        matches!(self, Batcher::OnCall)
    }

    /// Returns the next step. `since` is when the first of the `length` lines was queued, or when
    /// the last batch was taken.
    pub(super) fn step(
        &mut self,
        length: usize,
        since: Option<Instant>,
        closing: bool,
        now: Instant,
    ) -> Step {
        if length == 0 {
            let wake_at = (!self.is_on_call()).then_some(1);
            return Step::Wait { until: None, wake_at };
        }
        let Batcher::Batch { complete, max_size, max_wait, pace } = self else {
            return Step::Take(length);
        };
        if length < *complete && !closing {
            // A time beyond the range of the clock means no limit.
            let end = since.unwrap_or(now).checked_add(*max_wait);
            if end.is_none_or(|end| now < end) {
                return Step::Wait { until: end, wake_at: Some(*complete) };
            }
        }
        match pace {
            Pace::Rest { until, crowd } => {
                if now < *until && length < *crowd && !closing {
                    return Step::Wait { until: Some(*until), wake_at: Some(*crowd) };
                }
                *until = now + REST;
                Step::Take(length)
            }
            // Shutdown time is limited: events that would wait for a token are lost.
            Pace::Throttle(_) if closing => Step::Take(length.min(*max_size)),
            Pace::Throttle(bucket) => match bucket.take(now) {
                Ok(()) => Step::Take(length.min(*max_size)),
                Err(until) => Step::Wait { until, wake_at: None },
            },
        }
    }
}

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    throttle: Throttle,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Returns a full bucket.
    pub(crate) fn new(throttle: Throttle, now: Instant) -> Bucket {
        Bucket { throttle, tokens: f64::from(throttle.burst), filled: now }
    }

    /// Takes a token. If there is none, returns when there will be one; `None` means never.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        let qps = f64::from(self.throttle.qps);
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * qps;
        self.tokens = (self.tokens + gained).min(f64::from(self.throttle.burst));
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // One nanosecond more, so that rounding does not wake the task just too early.
        let missing = Duration::try_from_secs_f64((1.0 - self.tokens) / qps);
        Err(missing.ok().and_then(|missing| now.checked_add(missing + Duration::from_nanos(1))))
    }
}

#[cfg(test)]
mod tests;
