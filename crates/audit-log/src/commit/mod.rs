//! From an accepted event to the disk: the one way in which a log backend commits events.
//!
//! An event arrives as one encoded line. It is *accepted* when it is in the queue or with its
//! writer, and *committed* when its write has returned (with `--audit-log-sync=always`: when its
//! sync has), or when it was counted as lost. A commit never fails silently:
//! `DroppedEvents` counts and logs each event that is not in the log.
//!
//! # The write path
//!
//! ```text
//! request ── submit ──┬─ Queued ──── queue ──────── writer thread ──┐
//!                     ├─ Inline ──── this request, for all in the ──┼── Writer ── Output (file, pipe)
//!                     │              queue                          │
//!                     └─ Deferred ── queue ──────── task of the ────┘
//!                                                   worker
//! ```
//!
//! [`CommitStrategy`] is chosen once, when the backend starts, from its mode and its output.
//! `CommitLog::submit` is the only place that acts on it. All three ways end in the same
//! `Writer`: whoever holds its output takes all events that wait, in order, writes them with as
//! few system calls as possible, then resolves their commits. So one write at a time is in
//! progress, lines are never interleaved, and the events of one sequence keep their order.
//!
//! What waits for an event:
//!
//! | output | `batch` | `blocking` | `blocking-strict` |
//! |---|---|---|---|
//! | regular file | nothing (`Queued`) | bytes (`Deferred`) | the request (`Inline`) |
//! | pipe, `sync=always` | nothing (`Queued`) | the request (`Queued`) | the request (`Queued`) |
//!
//! A request waits for its [`Commit`]. Bytes wait at the `WriteGate` of their socket
//! ([`GatedIo`]) for the [`CommitSequence`] of their worker thread.
//!
//! # States
//!
//! A log is in one of four states; the strategy holds in the first.
//!
//! - *Healthy*: the strategy determines the writer. Ends when one write takes 100 ms, three in a
//!   row take 5 ms each, a write fails, or a reopen is asked for.
//! - *Taken over*: the writer thread writes, and requests wait for their own events. Ends when for
//!   two checks (0.5 s each) no write was slow or failed.
//! - *Failing*: like taken over; `/readyz` and metrics report it. Ends when a write or a probe of
//!   the file succeeds.
//! - *Closed*: the writer thread writes what is in the queue; later events are refused and counted.
//!   Ends when the queue is empty, or the shutdown gives up.
//!
//! In the state *taken over* even `Deferred` events are awaited by their requests, so that a slow
//! disk holds up the requests that write events and not the sockets of others' watches.
//!
//! # Invariants
//!
//! 1. No byte leaves on a connection of a worker (to a client, or to the API server on behalf of
//!    one) before all events are committed that were accepted in its sequence when the byte was
//!    written to the socket. With `Queued` and `Inline` the request has waited before it produced
//!    the byte; with `Deferred` the gate holds it back.
//! 2. In `blocking-strict` an event that cannot be written fails its request: [`Commit`] resolves
//!    to `Err`, and nothing is forwarded, or the response breaks off. [`WhenFailed`] decides that,
//!    and nothing else does.
//! 3. Events of one sequence are written in the order in which they were accepted.
//! 4. An event that was accepted is written or counted, also when the runtime that was to write it
//!    ends, when the writer panics, and when the process shuts down.
//! 5. A deferred event is committed within one turn of its worker's scheduler; if that does not
//!    run, the writer thread commits it within 0.5 s.
//! 6. A partial line is removed again after a failed write, or ended where it cannot be, so that
//!    each line of the file is one event.
//!
//! # When the queue is full
//!
//! [`WhenFull`] says what happens: in `batch` the newest event is dropped, in the blocking modes
//! the queue cannot be full, since each request, or the bytes it sends, waits for its own few
//! events.
//!
//! # When writes are slow
//!
//! The writer thread takes over (above). A write that has not returned for 5 s makes the log
//! unhealthy though nothing has failed. In `blocking` and `blocking-strict` requests wait for as
//! long as it takes; in `batch` the queue fills.
//!
//! # When writes fail
//!
//! The events of the write are counted and logged, its commits resolve according to [`WhenFailed`],
//! and sockets go on: a gate waits for a commit, not for success. The writer thread then examines
//! the file twice a second and tries to reserve space in it, so that a log that can be written
//! again is detected without an event. If only a write can show it, one request is let through to
//! try (`CommitLog::is_writable`).
//!
//! # Concurrency
//!
//! Worker threads never block each other for longer than a write: a request that does not get the
//! output within some microseconds leaves its event in the queue, and whoever has the output looks
//! at the queue after releasing it. Lock order: chain of the seal, output, queue; wakers are taken
//! out of their lock before they are called.

mod batch;
mod future;
mod gate;
mod gated_io;
mod queue;
mod sequence;
mod strategy;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::batch::Bucket;
pub(super) use self::sequence::Progress;

pub use self::future::Commit;
pub(crate) use self::future::CommitSender;
pub use self::gated_io::GatedIo;
pub use self::sequence::CommitSequence;
pub use self::strategy::{CommitStrategy, WhenFailed, WhenFull};
pub use self::writer::BackendState;

use self::batch::Batcher;
use self::queue::{Queue, Rejected, Waiter, Wake};
use self::sequence::{Accepted, Sequence};
use self::writer::Writer;
use super::config::{Mode, SyncMode};
use super::dropped_events::DroppedEvents;
use super::error::{LogError, WriteError};
use super::line::Line;
use super::metrics::{LogMetrics, Plugin};
use super::output::Output;
use super::seal::Chain;

/// A log that is written, with its queue and its threads.
pub(super) struct CommitLog {
    strategy: CommitStrategy,
    when_full: WhenFull,
    when_failed: WhenFailed,
    queue: Arc<Queue>,
    writer: Arc<Writer>,
    /// Events that did not get into the queue.
    refused: Arc<DroppedEvents>,
    metrics: Arc<LogMetrics>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closed when the writer thread has ended.
    ended: watch::Receiver<()>,
}

impl CommitLog {
    /// Starts the threads that write to `output`, which messages call `name`.
    ///
    /// # Errors
    /// Returns an error if the system refuses to start a thread.
    pub(super) fn start(
        output: Box<dyn Output>,
        name: &str,
        mode: &Mode,
        sync: SyncMode,
        chain: Option<Chain>,
        metrics: Arc<LogMetrics>,
    ) -> Result<CommitLog, LogError> {
        let strategy = CommitStrategy::choose(mode, output.is_quick(), sync);
        let (when_full, when_failed) = (mode.when_full(), mode.when_failed());
        let queue = Arc::new(Queue::new(when_full, metrics.clone()));
        let refused = match when_full {
            WhenFull::DropNewest { .. } => Plugin::Buffered,
            WhenFull::Wait => Plugin::Log,
        };
        let refused = Arc::new(DroppedEvents::new(refused, metrics.backend.clone()));
        let writer =
            Writer::new(queue.clone(), output, sync, name, refused.clone(), metrics.clone());
        let is_sealed = chain.is_some();
        let writer = Arc::new(match chain {
            Some(chain) => writer.sealing(chain),
            None => writer,
        });
        if is_sealed {
            // Ends when the writer thread has sealed the last lines.
            let sealer = writer.clone();
            std::thread::Builder::new()
                .name("audit-seal".to_owned())
                .spawn(move || sealer.run_sealing())
                .map_err(LogError::Thread)?;
        }
        let batcher = Batcher::new(mode, strategy, Instant::now());
        let (end, ended) = watch::channel(());
        let threads_own = writer.clone();
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || {
                let _end = end;
                threads_own.run(batcher);
            })
            .map_err(LogError::Thread)?;
        let thread = Mutex::new(Some(thread));
        Ok(CommitLog {
            strategy,
            when_full,
            when_failed,
            queue,
            writer,
            refused,
            metrics,
            thread,
            ended,
        })
    }

    /// Accepts one event. Waits for no other request, and needs no runtime; with
    /// [`CommitStrategy::Inline`] it writes.
    pub(super) fn submit(&self, line: Line, sequence: &CommitSequence) -> Commit {
        self.metrics.backend.events.inc();
        let strategy = match self.writer.is_slow() {
            // The writer thread has taken over.
            true => CommitStrategy::Queued,
            false => self.strategy,
        };
        let submitted = match (strategy, sequence.of(self.queue.progress())) {
            (CommitStrategy::Queued, _) => self.enqueue(line),
            (CommitStrategy::Deferred, Some(worker)) => self.defer(line, worker),
            // Without a worker, no socket waits for the event: the request does.
            (CommitStrategy::Deferred, None) | (CommitStrategy::Inline, _) => self.write(line),
        };
        submitted.unwrap_or_else(|rejected| self.reject(&rejected))
    }

    /// Leaves an event to the writer thread.
    fn enqueue(&self, line: Line) -> Result<Commit, Rejected> {
        let (waiter, commit) = self.waiter();
        let wake = match self.strategy {
            CommitStrategy::Queued => Wake::ForBatch,
            CommitStrategy::Inline | CommitStrategy::Deferred => Wake::Always,
        };
        self.queue.push(line, waiter, wake)?;
        Ok(commit)
    }

    /// Writes an event now, or leaves it to the thread that is writing.
    fn write(&self, line: Line) -> Result<Commit, Rejected> {
        let line = match self.writer.write_now(line) {
            Ok(outcome) => return Ok(Commit::known(outcome, self.when_failed)),
            Err(line) => line,
        };
        let (waiter, commit) = self.waiter();
        self.queue.push(line, waiter, Wake::ForBatch)?;
        self.writer.queued();
        Ok(commit)
    }

    /// Leaves an event to a task of its worker, and lets the request continue.
    fn defer(
        &self,
        line: Line,
        (worker, accepted): (&Sequence, &Accepted),
    ) -> Result<Commit, Rejected> {
        if self.queue.defer(line, worker, accepted)? {
            self.writer.flush_soon(worker);
        }
        Ok(Commit::DONE)
    }

    /// Whoever waits for an event in the queue. Allocates, so that is done before the queue is
    /// locked.
    fn waiter(&self) -> (Option<Waiter>, Commit) {
        match self.when_full {
            WhenFull::DropNewest { .. } => (None, Commit::DONE),
            WhenFull::Wait => {
                let (sender, commit) = Commit::waiting(self.when_failed);
                (Some(Waiter::Request(sender)), commit)
            }
        }
    }

    fn reject(&self, rejected: &Rejected) -> Commit {
        match rejected {
            Rejected::Full => {
                self.refused.add(1, &"audit buffer queue blocked");
                Commit::DONE
            }
            Rejected::Closed => {
                self.refused.add(1, &WriteError::ShutDown);
                Commit::known(Err(WriteError::ShutDown), self.when_failed)
            }
        }
    }

    /// Returns how far deferred events are committed, if there are any.
    pub(super) fn progress(&self) -> Option<&Arc<Progress>> {
        (self.strategy == CommitStrategy::Deferred).then(|| self.queue.progress())
    }

    /// Returns what happens to a request whose event could not be written.
    pub(super) fn when_failed(&self) -> WhenFailed {
        self.when_failed
    }

    /// Returns whether requests, or the bytes that they send, wait for their events.
    pub(super) fn is_awaited(&self) -> bool {
        self.when_full == WhenFull::Wait
    }

    /// Returns whether the next write is expected to succeed. While the log is failing and only a
    /// write can tell whether it still does, periodically returns `true` to one caller so that it
    /// probes the log.
    pub(super) fn is_writable(&self) -> bool {
        self.writer.is_writable()
    }

    /// Returns whether the last write succeeded, and the one in progress does not hang.
    pub(super) fn state(&self) -> BackendState {
        self.writer.state()
    }

    /// Has the writer thread open the log file again. Returns at once.
    pub(super) fn reopen(&self) {
        self.writer.reopen();
    }

    /// Returns when all events are written and synced and the writer thread has ended. Later events
    /// are refused and counted. There is no time limit.
    pub(super) async fn shutdown(&self) {
        self.queue.close();
        // The only sender is the writer thread's, which sends nothing: an error means that it has
        // ended.
        let _ = self.ended.clone().changed().await;
        let thread = self.thread.lock().expect("nothing panics while it holds the thread").take();
        if let Some(thread) = thread {
            // The thread only has to return; a panic of it has been logged.
            let _ = thread.join();
        }
    }

    /// Like [`CommitLog::shutdown`], but only until `give_up` is cancelled. What is not written
    /// then is counted as lost and logged; if a write hangs, all events of that write.
    pub(super) async fn shutdown_until(&self, give_up: &CancellationToken) {
        tokio::select! {
            biased;
            () = self.shutdown() => {}
            () = give_up.cancelled() => self.writer.abandon(),
        }
    }

    /// Logs dropped events that have not been reported. The writer thread does so itself unless it
    /// hangs.
    pub(super) fn tick(&self) {
        self.refused.tick();
        self.writer.tick();
    }

    /// Logs all losses that were held back, now.
    pub(super) fn flush_losses(&self) {
        self.writer.flush_losses();
    }

    #[cfg(test)]
    pub(super) fn state_at(&self, now: Instant) -> BackendState {
        self.writer.state_at(now)
    }
}

impl Drop for CommitLog {
    /// The writer thread ends when it has written the queue; nothing waits for it.
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("CommitLog");
        text.field("strategy", &self.strategy).field("writer", &self.writer);
        text.finish_non_exhaustive()
    }
}
