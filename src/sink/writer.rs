//! Writing the log: by one thread, or by whoever submits a line.
//!
//! Whoever holds the output takes all lines that wait, writes them together, and only then answers
//! those who wait for them: while one write is under way the next group gathers, so that the system
//! calls (and the syncs) a second do not grow with the number of requests.
//!
//! To wake a thread and to be woken by it costs a request several times what its write costs. So
//! where somebody waits for each line and a write takes but microseconds, there is no need of the
//! thread: the submitter itself takes the output if it is free, and if it is not, whoever has
//! it writes the line too. The thread looks after the file twice a second, and takes over for a while
//! when writes become slow, so that the threads that serve requests are not held up.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::batch::Batcher;
use super::error::WriteError;
use super::losses::Losses;
use super::output::Output;
use super::queue::{Group, Queue, Task};

/// A log file that was deleted or moved is noticed within this time.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A submitter that writes for others hands over to the thread after so many groups.
const GROUPS: usize = 4;

/// After a write by a submitter that took so long, the thread writes for some checks.
const SLOW: Duration = Duration::from_millis(5);

/// Whether the last write went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkState {
    /// It did, or there was none.
    Ok,
    /// It did not, or the log file is gone and cannot be made anew; with the reason.
    Failing(String),
}

/// The output of a sink, and what is known of it.
pub(super) struct Writer {
    queue: Arc<Queue>,
    held: Mutex<Held>,
    /// Whoever submits a line may write it.
    by_submitters: bool,
    /// Submitters leave it to the thread.
    slow: AtomicBool,
    /// What errors call the log.
    name: Arc<str>,
    losses: Losses,
    /// Losses at the queue, if it can be full; told here where it is quiet.
    refused: Arc<Losses>,
    state: Mutex<SinkState>,
}

/// What whoever writes has for itself.
struct Held {
    output: Box<dyn Output>,
    group: Group,
    healthy: bool,
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue>,
        output: Box<dyn Output>,
        by_submitters: bool,
        name: &str,
        losses: Losses,
        refused: Arc<Losses>,
    ) -> Writer {
        let held = Held { output, group: Group::default(), healthy: true };
        Writer {
            queue,
            held: Mutex::new(held),
            by_submitters,
            slow: AtomicBool::new(false),
            name: name.into(),
            losses,
            refused,
            state: Mutex::new(SinkState::Ok),
        }
    }

    /// Whether the last write went well.
    pub(super) fn state(&self) -> SinkState {
        self.state.lock().expect("nothing panics while it holds the state").clone()
    }

    /// Called after each line that was put into the queue: sees to it that it will be written.
    pub(super) fn submitted(&self) {
        if !self.by_submitters {
            return;
        }
        if self.slow.load(Ordering::Relaxed) {
            self.queue.call();
            return;
        }
        for _ in 0..GROUPS {
            let mut held = match self.held.try_lock() {
                Ok(held) => held,
                // Whoever has it looks at the queue after letting go of it, below or in `run`.
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => unreachable!("outputs are guarded from panics"),
            };
            let started = Instant::now();
            let result = self.write(&mut held, usize::MAX);
            drop(held);
            if result.is_err() || started.elapsed() >= SLOW {
                self.slow.store(true, Ordering::Relaxed);
                self.queue.call();
                return;
            }
            if self.queue.is_empty() {
                return;
            }
        }
        self.queue.call();
    }

    /// Has the log file opened again before anything else is written.
    pub(super) fn reopen(&self) {
        self.slow.store(true, Ordering::Relaxed);
        self.queue.reopen();
    }

    /// The writer thread: runs until the queue is closed and empty.
    pub(super) fn run(&self, mut batcher: Batcher) {
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        let mut was_slow = false;
        loop {
            let task = self.queue.next(&mut batcher, next_check);
            let now = Instant::now();
            let due = matches!(task, Task::Check | Task::Write(_)) && now >= next_check;
            if due {
                next_check = now + CHECK_INTERVAL;
                self.losses.tick();
                self.refused.tick();
                self.check(&mut self.hold());
                // Slow for a whole interval, and perhaps no longer.
                was_slow = !was_slow && self.slow.load(Ordering::Relaxed);
                if !was_slow {
                    self.slow.store(false, Ordering::Relaxed);
                }
            }
            match task {
                Task::Check => {}
                Task::Write(count) => {
                    if self.write(&mut self.hold(), count).is_err() {
                        // Perhaps the file is no longer what it was.
                        next_check = now;
                    }
                }
                Task::Reopen => {
                    let mut held = self.hold();
                    let result = self.guarded(&mut *held.output, |output| output.reopen());
                    self.outcome(&mut held.healthy, result);
                }
                Task::Stop => break,
            }
            if self.by_submitters && !self.queue.is_empty() {
                // It came while we held the output.
                self.queue.call();
            }
        }
        let mut held = self.hold();
        if let Err(error) = self.guarded(&mut *held.output, |output| output.sync()) {
            tracing::error!("the audit log could not be synced: {error}");
        }
        self.losses.flush();
        self.refused.flush();
    }

    fn hold(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("outputs are guarded from panics")
    }

    /// Writes up to `count` lines and answers. Gives the last line's result.
    fn write(&self, held: &mut Held, count: usize) -> Result<(), WriteError> {
        let Held { output, group, healthy } = held;
        self.queue.take(count, group);
        if group.lines.is_empty() {
            return Ok(());
        }
        let result = self.write_group(&mut **output, group);
        group.clear();
        self.outcome(healthy, result.clone());
        result
    }

    fn write_group(&self, output: &mut dyn Output, group: &mut Group) -> Result<(), WriteError> {
        let Group { lines, acks } = group;
        let lines = lines.make_contiguous();
        let mut next = 0;
        let mut last = Ok(());
        while next < lines.len() {
            let written = self.guarded(output, |output| Ok(output.write(&lines[next..])));
            let (whole, failed, result) = match written {
                Ok(written) => match written.error {
                    None => (written.whole, 0, Ok(())),
                    Some(error) => (written.whole, 1, Err(self.error(error))),
                },
                // How far it got is unknown. This group is lost, the next may be luckier.
                Err(error) => (0, lines.len() - next, Err(error)),
            };
            // Counted before anybody is told, who may look at the count.
            if let Err(error) = &result {
                self.losses.add(failed as u64, error);
            }
            for ack in acks.drain(..whole.min(acks.len())) {
                // Whoever asked may be gone.
                let _ = ack.send(Ok(()));
            }
            for ack in acks.drain(..failed.min(acks.len())) {
                let _ = ack.send(result.clone());
            }
            next += whole + failed;
            last = result;
        }
        last
    }

    fn check(&self, held: &mut Held) {
        match self.guarded(&mut *held.output, |output| output.check()) {
            // The last write tells more than that the file is where it was.
            Ok(false) => {}
            Ok(true) => self.outcome(&mut held.healthy, Ok(())),
            Err(error) => {
                if held.healthy {
                    tracing::error!("{error}");
                }
                self.outcome(&mut held.healthy, Err(error));
            }
        }
    }

    /// Publishes a change of state; costs nothing while all is well.
    fn outcome(&self, healthy: &mut bool, result: Result<(), WriteError>) {
        if *healthy && result.is_ok() {
            return;
        }
        let mut state = self.state.lock().expect("nothing panics while it holds the state");
        match result {
            Ok(()) => {
                *healthy = true;
                *state = SinkState::Ok;
                tracing::info!("the audit log {} is written again", self.name);
            }
            Err(error) => {
                *healthy = false;
                *state = SinkState::Failing(error.to_string());
            }
        }
    }

    /// A panic must not end the audit log.
    fn guarded<T>(
        &self,
        output: &mut dyn Output,
        call: impl FnOnce(&mut dyn Output) -> io::Result<T>,
    ) -> Result<T, WriteError> {
        match catch_unwind(AssertUnwindSafe(|| call(output))) {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(WriteError::Panicked),
        }
    }

    fn error(&self, source: io::Error) -> WriteError {
        WriteError::Io { log: self.name.clone(), source: Arc::new(source) }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
