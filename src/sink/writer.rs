//! The one thread that writes the log.
//!
//! It takes all lines that wait, writes them together, and only then answers those who wait for
//! them: while one write is under way the next group gathers, so that the system calls (and, later,
//! the syncs) a second do not grow with the number of requests.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::batch::Batcher;
use super::error::WriteError;
use super::losses::Losses;
use super::output::Output;
use super::queue::{Group, Queue, Task};

/// A log file that was deleted or moved is noticed within this time.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the last write went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkState {
    /// It did, or there was none.
    Ok,
    /// It did not, or the log file is gone and cannot be made anew; with the reason.
    Failing(String),
}

/// The writer's part of a sink.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) batcher: Batcher,
    pub(super) output: Box<dyn Output>,
    /// What errors call the log.
    pub(super) name: Arc<str>,
    pub(super) losses: Losses,
    /// Losses at the queue, if it can be full; told here where it is quiet.
    pub(super) refused: Arc<Losses>,
    pub(super) state: Arc<Mutex<SinkState>>,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut group = Group::default();
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        let mut healthy = true;
        loop {
            let task = self.queue.next(&mut self.batcher, &mut group, next_check);
            let now = Instant::now();
            if task == Task::Check || task == Task::Write && now >= next_check {
                next_check = now + CHECK_INTERVAL;
                self.losses.tick();
                self.refused.tick();
                self.check(&mut healthy);
            }
            match task {
                Task::Check => {}
                Task::Write => {
                    let result = self.write(&mut group);
                    if result.is_err() {
                        // Perhaps the file is no longer what it was.
                        next_check = now;
                    }
                    self.outcome(&mut healthy, result);
                    group.clear();
                }
                Task::Reopen => {
                    let result = self.guarded(|output| output.reopen());
                    self.outcome(&mut healthy, result);
                }
                Task::Stop => break,
            }
        }
        if let Err(error) = self.guarded(|output| output.sync()) {
            tracing::error!("the audit log could not be synced: {error}");
        }
        self.losses.flush();
        self.refused.flush();
    }

    /// Writes the group and answers. Gives the last line's result.
    fn write(&mut self, group: &mut Group) -> Result<(), WriteError> {
        let Group { lines, acks } = group;
        let lines = lines.make_contiguous();
        let mut next = 0;
        let mut last = Ok(());
        while next < lines.len() {
            let written = self.guarded(|output| Ok(output.write(&lines[next..])));
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

    fn check(&mut self, healthy: &mut bool) {
        match self.guarded(|output| output.check()) {
            // The last write tells more than that the file is where it was.
            Ok(false) => {}
            Ok(true) => self.outcome(healthy, Ok(())),
            Err(error) => {
                if *healthy {
                    tracing::error!("{error}");
                }
                self.outcome(healthy, Err(error));
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
        &mut self,
        call: impl FnOnce(&mut dyn Output) -> io::Result<T>,
    ) -> Result<T, WriteError> {
        match catch_unwind(AssertUnwindSafe(|| call(&mut *self.output))) {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(WriteError::Panicked),
        }
    }

    fn error(&self, source: io::Error) -> WriteError {
        WriteError::Io { log: self.name.clone(), source: Arc::new(source) }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
