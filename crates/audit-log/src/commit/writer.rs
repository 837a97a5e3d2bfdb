//! Writes the log, from one thread at a time.
//!
//! The thread that has locked the output takes all queued events, writes them together, and only
//! then resolves their commits. While one write is in progress the next group collects, so that the
//! number of system calls (and of syncs) does not grow with the number of requests.
//!
//! For a request, waking a thread and being woken by it costs several times as much as its write.
//! So where a write takes some microseconds, the request writes itself ([`submit`]), or a task of
//! its worker writes for all requests of one scheduler pass ([`flush`]). The writer thread checks
//! the file twice a second. When writes are slow or fail, it takes over, so that worker threads are
//! not blocked.

mod flush;
mod hang;
mod sealing;
mod submit;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use self::hang::Calls;
use self::sealing::Sealing;
use super::super::config::SyncMode;
use super::super::dropped_events::DroppedEvents;
use super::super::error::WriteError;
use super::super::output::Output;
use super::batch::Batcher;
use super::queue::{Group, Queue, Task, Waiter};
use crate::{LogMetrics, Plugin};

/// Interval at which the writer thread checks whether the log file was deleted or moved.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The writer thread takes over after one write by a request that took this long ...
const VERY_SLOW: Duration = Duration::from_millis(100);

/// ... or after several in a row that took this long. A single one may only have waited for a CPU.
const SLOW: Duration = Duration::from_millis(5);
const SLOW_IN_A_ROW: u32 = 3;

/// The result of the last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendState {
    /// The last write succeeded, or there was none.
    Ok,
    /// The last write failed, or the log file is missing and cannot be recreated. Contains the
    /// reason.
    Failing(String),
}

/// Writes the output of a backend, and tracks its state.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    held: Mutex<Held>,
    /// Writes are slow or fail, so the writer thread writes, whatever the strategy is.
    slow: AtomicBool,
    sync: SyncMode,
    /// The name of the log in error messages.
    name: Arc<str>,
    losses: DroppedEvents,
    /// Counts events that the queue rejected. Reported when the writer is idle.
    refused: Arc<DroppedEvents>,
    state: Mutex<BackendState>,
    /// The current call of the output, which may hang.
    calls: Calls,
    /// The log is failing, and only a write can show its recovery: the next request may try.
    trial: AtomicBool,
    /// The seal; `None` if the log is not sealed.
    sealing: Option<Sealing>,
    metrics: Arc<LogMetrics>,
}

/// The output and the state of the thread that has locked it.
struct Held {
    output: Box<dyn Output>,
    group: Group,
    /// Number of consecutive slow writes by requests.
    slow_in_a_row: u32,
    /// When a write or a check last failed; `None` after a success.
    failed: Option<Instant>,
    /// Why the seal cannot be written.
    seal_failed: Option<WriteError>,
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue>,
        output: Box<dyn Output>,
        sync: SyncMode,
        name: &str,
        refused: Arc<DroppedEvents>,
        metrics: Arc<LogMetrics>,
    ) -> Writer {
        let held = Held {
            output,
            group: Group::default(),
            slow_in_a_row: 0,
            failed: None,
            seal_failed: None,
        };
        Writer {
            queue,
            held: Mutex::new(held),
            slow: AtomicBool::new(false),
            sync,
            name: name.into(),
            losses: DroppedEvents::new(Plugin::Log, metrics.backend.clone()),
            refused,
            state: Mutex::new(BackendState::Ok),
            calls: Calls::new(),
            trial: AtomicBool::new(false),
            sealing: None,
            metrics,
        }
    }

    /// Returns whether the writer thread writes, whatever the strategy is, because writes are slow
    /// or fail.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Returns whether the last write succeeded, and no write hangs.
    pub(crate) fn state(&self) -> BackendState {
        self.state_at(Instant::now())
    }

    pub(crate) fn state_at(&self, now: Instant) -> BackendState {
        if let Some(took) = self.calls.hung(now) {
            let (name, seconds) = (&self.name, took.as_secs());
            return BackendState::Failing(format!(
                "a write to {name} has not returned for {seconds} s"
            ));
        }
        self.state.lock().expect("nothing panics while it holds the state").clone()
    }

    /// Returns whether the next write is expected to succeed. While the log is failing and only a
    /// write can show its recovery, periodically returns `true` to one caller so that it probes the
    /// log.
    pub(crate) fn is_writable(&self) -> bool {
        self.state() == BackendState::Ok || self.trial.swap(false, Ordering::Relaxed)
    }

    /// Makes the writer thread reopen the log file before it writes anything else.
    pub(crate) fn reopen(&self) {
        self.slow.store(true, Ordering::Relaxed);
        self.queue.reopen();
    }

    /// Logs dropped events that have not been reported, and detects a hanging write.
    pub(super) fn tick(&self) {
        self.losses.tick();
        if self.calls.hung(Instant::now()).is_some() {
            self.metrics.healthy.set(0);
        }
    }

    /// Counts and logs the unwritten events as lost, because the writer thread does not end in
    /// time.
    pub(super) fn abandon(&self) {
        let reason = match self.calls.is_called() {
            true => format!("{} did not accept them before the shutdown ended", self.name),
            false => "the shutdown ended before they were written".to_owned(),
        };
        let lines = self.queue.abandon() + self.calls.lines();
        if lines > 0 {
            self.losses.add(lines as u64, &reason);
        } else {
            tracing::error!(
                "{} did not finish its last write before the shutdown ended",
                self.name
            );
        }
        self.flush_losses();
    }

    /// Logs all pending counts of lost events now.
    pub(crate) fn flush_losses(&self) {
        self.losses.flush();
        self.refused.flush();
    }

    /// Runs the writer thread until the queue is closed and empty.
    pub(super) fn run(&self, mut batcher: Batcher) {
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        let mut next_sync = self.next_sync();
        let mut was_slow = false;
        loop {
            let until = next_sync.map_or(next_check, |sync| sync.min(next_check));
            let task = self.queue.next(&mut batcher, until);
            let now = Instant::now();
            if next_sync.is_some_and(|sync| now >= sync) {
                self.sync_beside();
                next_sync = self.next_sync();
            }
            let due = matches!(task, Task::Check | Task::Write(_)) && now >= next_check;
            if due {
                next_check = now + CHECK_INTERVAL;
                self.losses.tick();
                self.refused.tick();
                self.check(&mut self.hold());
                // A task that has not run since the last check belongs to a runtime that does not
                // run.
                self.queue.no_flushes();
                // Slow for a whole interval; writes may be quick again.
                was_slow = !was_slow && self.is_slow();
                if !was_slow {
                    self.slow.store(false, Ordering::Relaxed);
                }
            }
            match task {
                Task::Check => {}
                Task::Write(count) => {
                    if self.write(&mut self.hold(), count).is_err() {
                        // The file may have been replaced.
                        next_check = now;
                    }
                }
                Task::Reopen => {
                    let mut held = self.hold();
                    let result = self.guarded(&mut *held.output, |output| output.reopen());
                    self.outcome(&mut held, result);
                }
                Task::Stop => break,
            }
            if batcher.is_on_call() && self.queue.is_left() {
                // The event was queued while this thread had locked the output.
                self.queue.call();
            }
        }
        let mut held = self.hold();
        if let Err(error) = self.guarded(&mut *held.output, |output| output.sync()) {
            tracing::error!("{error}; the last events may not be on disk");
        }
        drop(held);
        self.seal(true);
        self.end_sealing();
        self.losses.flush();
        self.refused.flush();
    }

    fn next_sync(&self) -> Option<Instant> {
        match self.sync {
            SyncMode::Interval(interval) => Instant::now().checked_add(interval),
            SyncMode::Off | SyncMode::Always => None,
        }
    }

    /// Syncs the written bytes, while other threads may write.
    fn sync_beside(&self) {
        let unsynced = self.hold().output.unsynced();
        if unsynced.is_empty() {
            return;
        }
        if let Err(error) = unsynced.sync() {
            let mut held = self.hold();
            held.output.still_unsynced(unsynced);
            let error = self.error(error);
            tracing::error!("{error}; the events of the last interval may not be on disk");
            self.outcome(&mut held, Err(error));
        }
    }

    fn hold(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("outputs are guarded from panics")
    }

    /// Writes up to `count` lines and resolves their commits. Returns the result of the last line.
    fn write(&self, held: &mut Held, count: usize) -> Result<(), WriteError> {
        self.queue.take(count, &mut held.group);
        if held.group.lines.is_empty() {
            return Ok(());
        }
        self.write_taken(held)
    }

    fn write_taken(&self, held: &mut Held) -> Result<(), WriteError> {
        let Held { output, group, .. } = held;
        let result = self.write_group(&mut **output, group);
        group.clear();
        self.outcome(held, result.clone());
        result
    }

    fn write_group(&self, output: &mut dyn Output, group: &mut Group) -> Result<(), WriteError> {
        let Group { lines, waiters } = group;
        let lines = lines.make_contiguous();
        let mut outcomes = Vec::with_capacity(1);
        let mut next = 0;
        while next < lines.len() {
            self.calls.carries(lines.len() - next);
            let written = self.guarded(output, |output| Ok(output.write(&lines[next..])));
            self.calls.carries(0);
            let (whole, failed) = match written {
                Ok(written) => (written.whole, written.error.map(|error| (1, self.error(error)))),
                // How far the write got is unknown, so the whole group counts as lost. The next one
                // may succeed.
                Err(error) => (0, Some((lines.len() - next, error))),
            };
            next += whole;
            outcomes.push((whole, Ok(())));
            if let Some((count, error)) = failed {
                next += count;
                outcomes.push((count, Err(error)));
            }
        }
        if self.sync == SyncMode::Always
            && let Err(error) = self.guarded(output, |output| output.sync())
        {
            // The lines may be in the file, but that is not guaranteed.
            let written = outcomes.iter_mut().filter(|(_, result)| result.is_ok());
            written.for_each(|(_, result)| *result = Err(error.clone()));
        }
        // Counted before any commit resolves.
        for (count, result) in &outcomes {
            if let Err(error) = result {
                self.losses.add(*count as u64, error);
            }
        }
        let (mut last, mut deferred) = (Ok(()), 0);
        for (count, result) in outcomes {
            for waiter in waiters.drain(..count.min(waiters.len())) {
                match waiter {
                    // The request may have been dropped.
                    Waiter::Request(commit) => drop(commit.send(result.clone())),
                    Waiter::Gates => deferred += 1,
                }
            }
            last = result;
        }
        self.queue.progress().commit(deferred);
        last
    }

    fn check(&self, held: &mut Held) {
        match self.guarded(&mut *held.output, |output| output.check()) {
            Ok(false) if held.failed.is_none() => {}
            // The file is at its path, but that does not prove that it can be written. One request
            // must try, because requests that are rejected while the log fails do not write.
            Ok(false) if self.failed_just_now(held) => {}
            Ok(false) => match self.guarded(&mut *held.output, |output| output.probe()) {
                Ok(true) => {
                    let synced = self.guarded(&mut *held.output, |output| output.sync());
                    self.outcome(held, synced);
                }
                Ok(false) => self.trial.store(true, Ordering::Relaxed),
                Err(error) => self.outcome(held, Err(error)),
            },
            Ok(true) => self.outcome(held, Ok(())),
            Err(error) => {
                if held.failed.is_none() {
                    tracing::error!("{error}");
                }
                self.outcome(held, Err(error));
            }
        }
    }

    fn failed_just_now(&self, held: &Held) -> bool {
        held.failed.is_some_and(|at| at.elapsed() < CHECK_INTERVAL)
    }

    /// Publishes a change of state. Does nothing while the log stays healthy.
    fn outcome(&self, held: &mut Held, result: Result<(), WriteError>) {
        if held.failed.is_none() && result.is_ok() {
            return;
        }
        // A log that cannot be sealed is not healthy.
        let result = result.and(held.seal_failed.clone().map_or(Ok(()), Err));
        let mut state = self.state.lock().expect("nothing panics while it holds the state");
        match result {
            Ok(()) => {
                held.failed = None;
                *state = BackendState::Ok;
                self.metrics.healthy.set(1);
                tracing::info!("the audit log {} is writable again", self.name);
            }
            Err(error) => {
                held.failed = Some(Instant::now());
                *state = BackendState::Failing(error.to_string());
                self.metrics.healthy.set(0);
            }
        }
    }

    /// Catches a panic, which must not end the audit log.
    fn guarded<T>(
        &self,
        output: &mut dyn Output,
        call: impl FnOnce(&mut dyn Output) -> io::Result<T>,
    ) -> Result<T, WriteError> {
        let call = || catch_unwind(AssertUnwindSafe(|| call(output)));
        match self.calls.watched(call) {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(WriteError::Panicked),
        }
    }

    fn error(&self, source: io::Error) -> WriteError {
        WriteError::Io { log: self.name.clone(), source: Arc::new(source) }
    }
}

impl Held {
    /// Returns whether the writer thread should take over after a write that began at `started`.
    fn is_slow(&mut self, started: Instant) -> bool {
        let took = started.elapsed();
        self.slow_in_a_row = if took < SLOW { 0 } else { self.slow_in_a_row + 1 };
        took >= VERY_SLOW || self.slow_in_a_row >= SLOW_IN_A_ROW
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
