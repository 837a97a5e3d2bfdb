//! Writes the log, from one thread at a time, which the strategy determines.
//!
//! Whoever holds the output takes all events that wait, writes them together, and only then
//! resolves their commits. While one write is in progress the next group gathers, so that the
//! number of system calls (and of syncs) does not grow with the number of requests.
//!
//! To wake a thread and be woken by it costs a request several times what its write costs. So where
//! a write takes some microseconds the request writes itself ([`submit`]), or a task of its worker
//! does for all requests of one turn ([`flush`]). Twice a second the thread examines the file. It
//! takes over for a while when writes are slow or fail, so that worker threads are not held up.

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

/// A log file that was deleted or moved is noticed within this time.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// After a write by a submitter that took so long, the thread writes for some checks ...
const VERY_SLOW: Duration = Duration::from_millis(100);

/// ... and after several in a row that took so long: one alone has just waited for a processor.
const SLOW: Duration = Duration::from_millis(5);
const SLOW_IN_A_ROW: u32 = 3;

/// Whether the last write went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendState {
    /// The last write succeeded, or there was none.
    Ok,
    /// The last write failed, or the log file is missing and cannot be recreated; with the reason.
    Failing(String),
}

/// The output of a backend, and its state.
pub(super) struct Writer {
    queue: Arc<Queue>,
    held: Mutex<Held>,
    /// Writes are slow or fail: the thread writes, with any strategy.
    slow: AtomicBool,
    sync: SyncMode,
    /// The name of the log in errors.
    name: Arc<str>,
    losses: DroppedEvents,
    /// Events that were dropped at the queue, if it can be full; reported when the writer is idle.
    refused: Arc<DroppedEvents>,
    state: Mutex<BackendState>,
    /// Calls of the output, which may hang.
    calls: Calls,
    /// The log is failing, and only a write can show whether it still does: one is allowed to try.
    trial: AtomicBool,
    /// The seal, if the log is sealed.
    sealing: Option<Sealing>,
    metrics: Arc<LogMetrics>,
}

/// The state of the current writer.
struct Held {
    output: Box<dyn Output>,
    group: Group,
    /// Writes by submitters that were slow, in a row until now.
    slow_in_a_row: u32,
    /// When a write or a check last failed; `None` after a success.
    failed: Option<Instant>,
    /// The seal cannot be written.
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

    /// Returns whether the thread writes, with any strategy, because writes are slow or fail.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Returns whether the last write succeeded, and no write hangs.
    pub(super) fn state(&self) -> BackendState {
        self.state_at(Instant::now())
    }

    pub(super) fn state_at(&self, now: Instant) -> BackendState {
        if let Some(took) = self.calls.hung(now) {
            let (name, seconds) = (&self.name, took.as_secs());
            return BackendState::Failing(format!(
                "{name} has not answered a write for {seconds} s"
            ));
        }
        self.state.lock().expect("nothing panics while it holds the state").clone()
    }

    /// Returns whether an event could be written now, as far as is known without writing one. Of a
    /// log that cannot be asked, and that failed, it is said to one caller now and then.
    pub(super) fn is_writable(&self) -> bool {
        self.state() == BackendState::Ok || self.trial.swap(false, Ordering::Relaxed)
    }

    /// Has the log file opened again before anything else is written.
    pub(super) fn reopen(&self) {
        self.slow.store(true, Ordering::Relaxed);
        self.queue.reopen();
    }

    /// Logs dropped events that have not been reported, and detects a write that hangs.
    pub(super) fn tick(&self) {
        self.losses.tick();
        if self.calls.hung(Instant::now()).is_some() {
            self.metrics.healthy.set(0);
        }
    }

    /// Counts unwritten events as lost, and logs it, because the writer does not end in time.
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

    /// Logs all losses that were held back, now.
    pub(super) fn flush_losses(&self) {
        self.losses.flush();
        self.refused.flush();
    }

    /// The writer thread: runs until the queue is closed and empty.
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
                // A task that was announced and has not run by now is on a runtime that does not
                // run.
                self.queue.no_flushes();
                // Slow for a whole interval, and perhaps no longer.
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
                // The event was queued while this thread held the output.
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

    /// Syncs the written bytes, while others may write.
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
                // How far it got is unknown. This group is lost, the next may be luckier.
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
            // The file is at its path, which a write needs, but not only that. One request must
            // try: requests that are refused while the log fails do not.
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

    /// Publishes a change of state; costs nothing while the log is healthy.
    fn outcome(&self, held: &mut Held, result: Result<(), WriteError>) {
        if held.failed.is_none() && result.is_ok() {
            return;
        }
        // A log that is written and not sealed is not well.
        let result = result.and(held.seal_failed.clone().map_or(Ok(()), Err));
        let mut state = self.state.lock().expect("nothing panics while it holds the state");
        match result {
            Ok(()) => {
                held.failed = None;
                *state = BackendState::Ok;
                self.metrics.healthy.set(1);
                tracing::info!("the audit log {} is written again", self.name);
            }
            Err(error) => {
                held.failed = Some(Instant::now());
                *state = BackendState::Failing(error.to_string());
                self.metrics.healthy.set(0);
            }
        }
    }

    /// A panic must not end the audit log.
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
    /// Returns whether the thread should write from now on, after a write that began at `started`.
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
