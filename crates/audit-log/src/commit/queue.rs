//! The queue between the requests and the writer of a log.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::super::error::WriteError;
use super::super::line::Line;
use super::batch::{Batcher, Step};
use super::future::CommitSender;
use super::sequence::{Accepted, Progress, Sequence};
use super::strategy::WhenFull;
use crate::LogMetrics;

/// What waits for an event.
pub(super) enum Waiter {
    /// A request, through its [`Commit`](super::Commit).
    Request(CommitSender),
    /// Sockets, through their gates.
    Gates,
}

/// Events that are written together, and what waits for each of them. In the blocking modes each
/// event has a waiter, except the last one if the request writes it itself; in `batch` none has.
#[derive(Default)]
pub(super) struct Group {
    pub(super) lines: VecDeque<Line>,
    pub(super) waiters: VecDeque<Waiter>,
}

impl Group {
    /// Clears the group, but keeps its memory up to a limit.
    pub(super) fn clear(&mut self) {
        const KEPT: usize = 1024;
        self.lines.clear();
        self.waiters.clear();
        self.lines.shrink_to(KEPT);
        self.waiters.shrink_to(KEPT);
    }
}

/// Why the queue rejected an event.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The queue is full, and its mode drops the newest event.
    Full,
    /// The queue is closed.
    Closed,
}

/// Whether an event wakes the writer thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Only if it sleeps until there are this many events.
    ForBatch,
    /// Always, because the thread has taken over from the requests that usually write.
    Always,
}

/// The next step of the writer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Write this many lines.
    Write(usize),
    /// Reopen the log file.
    Reopen,
    /// Check whether the log file is still the one at its path.
    Check,
    /// The queue is closed and empty.
    Stop,
}

/// The queue of one log.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    when_full: WhenFull,
    /// The progress of deferred events.
    progress: Arc<Progress>,
    metrics: Arc<LogMetrics>,
}

#[derive(Default)]
struct Waiting {
    group: Group,
    /// When the first queued event was queued. Only set if nothing waits for events.
    since: Option<Instant>,
    closed: bool,
    reopen: bool,
    /// Whether the writer thread must write the queue, even if requests usually write.
    called: bool,
    /// The sequences whose worker has scheduled a task that writes their events.
    flushes: Vec<u64>,
    /// The queue length at which the sleeping writer thread is woken. `None` if it is awake or
    /// waits for a point in time.
    wake_at: Option<usize>,
}

impl Queue {
    pub(super) fn new(when_full: WhenFull, metrics: Arc<LogMetrics>) -> Queue {
        let (waiting, wake, progress) = (Mutex::default(), Condvar::new(), Arc::default());
        Queue { waiting, wake, when_full, progress, metrics }
    }

    /// Returns the progress of the deferred events.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Appends an event. Never waits for the writer.
    pub(super) fn push(
        &self,
        line: Line,
        waiter: Option<Waiter>,
        wake: Wake,
    ) -> Result<(), Rejected> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Rejected::Closed);
        }
        if let WhenFull::DropNewest { capacity } = self.when_full {
            let length = waiting.group.lines.len();
            if length >= capacity {
                return Err(Rejected::Full);
            }
            if length == 0 {
                waiting.since = Some(Instant::now());
            }
        }
        waiting.group.lines.push_back(line);
        waiting.group.waiters.extend(waiter);
        let length = waiting.group.lines.len();
        self.metrics.set_queue_length(length);
        let wakes = match wake {
            Wake::Always => {
                waiting.called = true;
                true
            }
            Wake::ForBatch => waiting.wake_at.is_some_and(|at| length >= at),
        };
        if wakes {
            waiting.wake_at = None;
        }
        drop(waiting);
        if wakes {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Appends an event whose commit is deferred, and counts it in its sequence. Returns whether
    /// the caller must schedule a task of the worker that writes it, because none has been
    /// scheduled since [`Self::flushing`].
    pub(super) fn defer(
        &self,
        line: Line,
        sequence: &Sequence,
        accepted: &Accepted,
    ) -> Result<bool, Rejected> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Rejected::Closed);
        }
        waiting.group.lines.push_back(line);
        waiting.group.waiters.push_back(Waiter::Gates);
        accepted.accept();
        self.metrics.set_queue_length(waiting.group.lines.len());
        let first = !waiting.flushes.contains(&sequence.number());
        if first {
            waiting.flushes.push(sequence.number());
        }
        Ok(first)
    }

    /// Notes that the scheduled task of a sequence has started, or will never run.
    pub(super) fn flushing(&self, sequence: u64) {
        self.lock().flushes.retain(|other| *other != sequence);
    }

    /// Forgets all scheduled tasks.
    pub(super) fn no_flushes(&self) {
        self.lock().flushes.clear();
    }

    /// Blocks the writer thread until there is something to do. For [`Task::Write`], the events can
    /// then be taken with [`Self::take`].
    pub(super) fn next(&self, batcher: &mut Batcher, next_check: Instant) -> Task {
        let mut waiting = self.lock();
        loop {
            if waiting.reopen {
                waiting.reopen = false;
                return Task::Reopen;
            }
            let length = waiting.group.lines.len();
            if length == 0 && waiting.closed {
                return Task::Stop;
            }
            let now = Instant::now();
            let called = std::mem::take(&mut waiting.called) || waiting.closed;
            let step = match batcher.is_on_call() && !called {
                true => Step::Wait { until: None, wake_at: None },
                false => batcher.step(length, waiting.since, waiting.closed, now),
            };
            let (until, wake_at) = match step {
                Step::Take(count) => return Task::Write(count),
                Step::Wait { until, wake_at } => (until, wake_at),
            };
            if now >= next_check {
                return Task::Check;
            }
            waiting.wake_at = wake_at;
            let until = until.map_or(next_check, |until| until.min(next_check));
            let (guard, _) = self
                .wake
                .wait_timeout(waiting, until.saturating_duration_since(now))
                .expect("nothing panics while it holds the queue");
            waiting = guard;
            waiting.wake_at = None;
        }
    }

    /// Moves up to `count` lines, in order, into the empty `group`. Only the thread that has locked
    /// the output may call this, so that lines are written in the order in which they are taken.
    pub(super) fn take(&self, count: usize, group: &mut Group) {
        let mut waiting = self.lock();
        waiting.take(count, group);
        if self.when_full != WhenFull::Wait {
            waiting.since = Some(Instant::now());
        }
        self.metrics.set_queue_length(waiting.group.lines.len());
    }

    /// Moves all lines into the empty `group` and appends `line`. Only the thread that has locked
    /// the output may call this. Returns the line if the queue is closed.
    pub(super) fn take_with(&self, line: Line, group: &mut Group) -> Result<(), Line> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(line);
        }
        if !waiting.group.lines.is_empty() {
            waiting.take(usize::MAX, group);
            self.metrics.set_queue_length(0);
        }
        drop(waiting);
        group.lines.push_back(line);
        Ok(())
    }

    /// Returns whether there are events for which no task is scheduled.
    pub(super) fn is_left(&self) -> bool {
        let waiting = self.lock();
        waiting.flushes.is_empty() && !waiting.group.lines.is_empty()
    }

    /// Makes the writer thread write the queue, even if requests usually write.
    pub(super) fn call(&self) {
        self.lock().called = true;
        self.wake.notify_one();
    }

    /// Makes the writer thread reopen its log file.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.wake.notify_one();
    }

    /// Closes the queue: it accepts no more lines, and queued lines are still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Drops the queued events, and returns their number. Their commits fail.
    pub(super) fn abandon(&self) -> usize {
        let mut waiting = self.lock();
        let group = std::mem::take(&mut waiting.group);
        self.metrics.set_queue_length(0);
        drop(waiting);
        for waiter in group.waiters {
            match waiter {
                // The request may have been dropped.
                Waiter::Request(commit) => drop(commit.send(Err(WriteError::ShutDown))),
                // The process ends, and closes its sockets.
                Waiter::Gates => {}
            }
        }
        group.lines.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the queue")
    }
}

impl fmt::Debug for Queue {
    /// Omits the lines: audit events must not appear in the process log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("when_full", &self.when_full).finish_non_exhaustive()
    }
}

impl Waiting {
    fn take(&mut self, count: usize, group: &mut Group) {
        if count >= self.group.lines.len() {
            std::mem::swap(&mut self.group, group);
        } else {
            group.lines.extend(self.group.lines.drain(..count));
            let waiters = count.min(self.group.waiters.len());
            group.waiters.extend(self.group.waiters.drain(..waiters));
        }
    }
}

#[cfg(test)]
mod tests;
