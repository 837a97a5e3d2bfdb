//! Events on their way from the requests to the log.

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

/// The party that waits for an event.
pub(super) enum Waiter {
    /// The request that has its [`Commit`](super::Commit).
    Request(CommitSender),
    /// Sockets, at their gates.
    Gates,
}

/// Events that are written together, and who waits for each of them: for all events in the blocking
/// modes, except that nothing waits for the last one if the request writes it itself; for none in
/// `batch`.
#[derive(Default)]
pub(super) struct Group {
    pub(super) lines: VecDeque<Line>,
    pub(super) waiters: VecDeque<Waiter>,
}

impl Group {
    /// Frees the lines but keeps the memory for as many, up to a limit.
    pub(super) fn clear(&mut self) {
        const KEPT: usize = 1024;
        self.lines.clear();
        self.waiters.clear();
        self.lines.shrink_to(KEPT);
        self.waiters.shrink_to(KEPT);
    }
}

/// Why an event is not in the queue.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The queue is full, and drops the newest event then.
    Full,
    /// The queue is closed.
    Closed,
}

/// Whether an event wakes the writer thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Only if it sleeps until there are this many events.
    ForBatch,
    /// Always: the thread has taken over from the requests that usually write.
    Always,
}

/// The next step of the writer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Write this many lines.
    Write(usize),
    /// Open the log file again.
    Reopen,
    /// See whether the log file is still the one at its path.
    Check,
    /// The queue is closed and empty.
    Stop,
}

/// The queue of one log.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    when_full: WhenFull,
    /// The deferred events.
    progress: Arc<Progress>,
    metrics: Arc<LogMetrics>,
}

#[derive(Default)]
struct Waiting {
    group: Group,
    /// When the first of the events was queued. Only stored if nothing waits for events.
    since: Option<Instant>,
    closed: bool,
    reopen: bool,
    /// The writer thread is to take what waits, though others write as a rule.
    called: bool,
    /// The sequences whose worker has a task that will write their events.
    flushes: Vec<u64>,
    /// The writer thread sleeps until there are so many events. `None`: it is awake, or waits for a
    /// time.
    wake_at: Option<usize>,
}

impl Queue {
    pub(super) fn new(when_full: WhenFull, metrics: Arc<LogMetrics>) -> Queue {
        let (waiting, wake, progress) = (Mutex::default(), Condvar::new(), Arc::default());
        Queue { waiting, wake, when_full, progress, metrics }
    }

    /// How far the deferred events are committed.
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

    /// Appends an event whose commit is deferred, and notes it in its sequence. Returns whether the
    /// caller must see to it that a task of the worker writes it: none has been announced since
    /// [`Self::flushing`].
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

    /// The task that was to write what a sequence has accepted runs now, or never will.
    pub(super) fn flushing(&self, sequence: u64) {
        self.lock().flushes.retain(|other| *other != sequence);
    }

    /// Forgets announced tasks: no longer waits for them.
    pub(super) fn no_flushes(&self) {
        self.lock().flushes.clear();
    }

    /// Waits for something to do, for the writer thread. For [`Task::Write`], the events are then
    /// there for [`Self::take`].
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

    /// Takes up to `count` lines, in order, and puts them into `group`, which is empty. Only for
    /// whoever holds the output, so that lines are written in the order in which they are taken.
    pub(super) fn take(&self, count: usize, group: &mut Group) {
        let mut waiting = self.lock();
        waiting.take(count, group);
        if self.when_full != WhenFull::Wait {
            waiting.since = Some(Instant::now());
        }
        self.metrics.set_queue_length(waiting.group.lines.len());
    }

    /// Takes all lines into `group`, which is empty, and this one behind them; for whoever holds
    /// the output. Gives it back if the queue is closed.
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

    /// Returns whether there are events for which no task has been announced.
    pub(super) fn is_left(&self) -> bool {
        let waiting = self.lock();
        waiting.flushes.is_empty() && !waiting.group.lines.is_empty()
    }

    /// Makes the writer thread write the queue, even if others usually write.
    pub(super) fn call(&self) {
        self.lock().called = true;
        self.wake.notify_one();
    }

    /// Has the writer open its log file again.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.wake.notify_one();
    }

    /// Accepts no more lines. Queued ones are still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Drops the events that wait, and returns their number. Their commits fail.
    pub(super) fn abandon(&self) -> usize {
        let mut waiting = self.lock();
        let group = std::mem::take(&mut waiting.group);
        self.metrics.set_queue_length(0);
        drop(waiting);
        for waiter in group.waiters {
            match waiter {
                // The request may have been dropped.
                Waiter::Request(commit) => drop(commit.send(Err(WriteError::ShutDown))),
                // The process ends, and its sockets with it.
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
    /// Without the lines: events are not for our own log.
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
