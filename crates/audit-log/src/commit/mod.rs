//! The path from an accepted event to the disk.
//!
//! An event arrives as one encoded line. It is *accepted* when it is in the queue or passed to its
//! writer. It is *committed* when its write has returned (with `--audit-log-sync=always`: when the
//! sync has returned), or when it was counted as lost. No event is lost silently: `DroppedEvents`
//! counts and logs each one that is not written.
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
//! [`CommitStrategy`] is chosen once, when the backend starts, from the mode and the output.
//! `CommitLog::submit` is the only place that uses it. All three paths end in the same `Writer`:
//! the thread that locks its output takes all queued events in order, writes them with as few
//! system calls as possible, then resolves their commits. Therefore one write at a time is in
//! progress, lines are never interleaved, and the events of one sequence keep their order.
//!
//! Who waits for an event:
//!
//! | output | `batch` | `blocking` | `blocking-strict` |
//! |---|---|---|---|
//! | regular file | nothing (`Queued`) | bytes (`Deferred`) | the request (`Inline`) |
//! | pipe, `sync=always` | nothing (`Queued`) | the request (`Queued`) | the request (`Queued`) |
//!
//! A request waits for its [`Commit`]. Bytes are held back by the `WriteGate` of their socket
//! ([`GatedIo`]) until the [`CommitSequence`] of their worker thread is committed.
//!
//! # States
//!
//! A log is in one of four states. The strategy applies in the first one.
//!
//! - *Healthy*: events are written as the strategy says. Ends when one write takes 100 ms, three in
//!   a row take 5 ms each, a write fails, or a reopen is requested.
//! - *Taken over*: the writer thread writes, and requests wait for their own events. Ends when no
//!   write was slow or failed for two checks (0.5 s each).
//! - *Failing*: like *taken over*, and reported by `/readyz` and metrics. Ends when a write or a
//!   probe of the file succeeds.
//! - *Closed*: the writer thread writes the queue; later events are rejected and counted. Ends when
//!   the queue is empty, or when the shutdown times out.
//!
//! In the state *taken over* requests wait for `Deferred` events, too, so that a slow disk delays
//! the requests that write events and not the watches of other clients.
//!
//! # Invariants
//!
//! 1. No byte is sent on a connection of a worker (to a client, or to the API server on behalf of a
//!    client) before all events are committed that were accepted in the worker's sequence before
//!    the byte was written to the socket. With `Queued` and `Inline` the request waits before it
//!    produces the byte; with `Deferred` the gate holds the byte back.
//! 2. In `blocking-strict` an event that cannot be written fails its request: [`Commit`] resolves
//!    to `Err`, and the request is not forwarded, or its response is aborted. This is decided by
//!    [`WhenFailed`] alone.
//! 3. Events of one sequence are written in the order in which they were accepted.
//! 4. An accepted event is written or counted, even if the runtime that should write it ends, the
//!    writer panics, or the process shuts down.
//! 5. A deferred event is committed within one pass of its worker's scheduler. If the worker does
//!    not run, the writer thread commits the event within 0.5 s.
//! 6. After a failed write, a partial line is truncated, or terminated with a newline if that is
//!    not possible, so that each line of the file is one event.
//!
//! # When the queue is full
//!
//! [`WhenFull`] defines what happens. In `batch` the newest event is dropped. In the blocking modes
//! the queue cannot be full, because each request, or the bytes that it sends, waits for its own
//! few events.
//!
//! # When writes are slow
//!
//! The writer thread takes over (see above). A write that has not returned for 5 s makes the log
//! unhealthy even though nothing has failed. In `blocking` and `blocking-strict` requests wait
//! without a limit; in `batch` the queue fills.
//!
//! # When writes fail
//!
//! The events of the write are counted and logged, its commits resolve according to [`WhenFailed`],
//! and sockets continue, because a gate waits for a commit and not for success. The writer thread
//! then checks the file twice a second and tries to reserve space in it, so that it detects the
//! recovery of the log without an event. If only a write can show the recovery, one request is let
//! through to try (`Writer::is_writable`).
//!
//! # Concurrency
//!
//! Worker threads never block each other for longer than a write: a request that cannot lock the
//! output within some microseconds leaves its event in the queue, and the thread that has locked
//! the output checks the queue after unlocking it. Lock order: chain of the seal, output, queue.
//! Wakers are moved out of their lock before they are called.

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

/// A log backend's output with its queue and its threads.
pub(super) struct CommitLog {
    strategy: CommitStrategy,
    when_full: WhenFull,
    when_failed: WhenFailed,
    queue: Arc<Queue>,
    writer: Arc<Writer>,
    /// Counts the events that the queue rejected.
    refused: Arc<DroppedEvents>,
    metrics: Arc<LogMetrics>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closed when the writer thread has ended.
    ended: watch::Receiver<()>,
}

impl CommitLog {
    /// Starts the threads that write to `output`. `name` is used in messages.
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

    /// Accepts one event. Never waits for another request, and needs no runtime. With
    /// [`CommitStrategy::Inline`] it writes the event.
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
            // Without a worker, no socket is gated, so the request waits for the event.
            (CommitStrategy::Deferred, None) | (CommitStrategy::Inline, _) => self.write(line),
        };
        submitted.unwrap_or_else(|rejected| self.reject(&rejected))
    }

    /// Queues an event for the writer thread.
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

    /// Returns the waiter for an event in the queue and the commit that it resolves. Must be called
    /// before the queue is locked, because it allocates.
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

    /// Returns the progress of deferred events, if the strategy is `Deferred`.
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

    /// Returns the writer, which knows the state of the log.
    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Returns when all events are written and synced and the writer thread has ended. Later events
    /// are rejected and counted. There is no time limit.
    pub(super) async fn shutdown(&self) {
        self.queue.close();
        // Nothing is ever sent: an error means that the writer thread has dropped the sender
        // because it has ended.
        let _ = self.ended.clone().changed().await;
        let thread = self.thread.lock().expect("nothing panics while it holds the thread").take();
        if let Some(thread) = thread {
            // The thread is about to return; a panic has been logged already.
            let _ = thread.join();
        }
    }

    /// Like [`CommitLog::shutdown`], but only until `give_up` is cancelled. Events that are not
    /// written by then are counted as lost and logged. If a write hangs, that includes all events
    /// of this write.
    pub(super) async fn shutdown_until(&self, give_up: &CancellationToken) {
        tokio::select! {
            biased;
            () = self.shutdown() => {}
            () = give_up.cancelled() => self.writer.abandon(),
        }
    }

    /// Logs dropped events that have not been reported. The writer thread does this itself unless
    /// it hangs.
    pub(super) fn tick(&self) {
        self.refused.tick();
        self.writer.tick();
    }
}

impl Drop for CommitLog {
    /// The writer thread ends when it has written the queue; dropping does not wait for that.
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
