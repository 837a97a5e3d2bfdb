//! The events accepted on one worker thread, and how many of them each log has committed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

use tokio::runtime::Handle;

use super::gate::WriteGate;
use crate::LogBackend;

/// The order of events and bytes on one worker thread: for each log with deferred commits, the
/// number of the last event that was accepted on the thread.
///
/// A worker creates one and passes it to its connections, which pass it to their requests and to
/// the connections to the API server that these use. Requests accept events in it; a
/// [`GatedIo`](super::GatedIo) lets bytes pass when all events are committed that were accepted
/// before them. Connections with different sequences do not wait for each other, so that a slow
/// write of one worker does not delay the sockets of another.
///
/// Clones refer to the same sequence. The default is detached: it belongs to no worker, so requests
/// wait for the events that they submit with it, and its gates are always open.
#[derive(Debug, Clone, Default)]
pub struct CommitSequence(Option<Arc<Sequence>>);

pub(super) struct Sequence {
    number: u64,
    thread: ThreadId,
    runtime: Handle,
    logs: Box<[Accepted]>,
}

/// The events of one log that were accepted in a sequence.
pub(super) struct Accepted {
    progress: Arc<Progress>,
    last: AtomicU64,
}

impl CommitSequence {
    /// Returns the sequence of the worker that runs on `thread`, with tasks on `runtime`, for all
    /// logs that it writes to.
    pub fn of_worker<'a>(
        thread: ThreadId,
        runtime: Handle,
        logs: impl IntoIterator<Item = &'a LogBackend>,
    ) -> CommitSequence {
        let deferred = logs.into_iter().filter_map(LogBackend::progress);
        CommitSequence::new(thread, runtime, deferred)
    }

    pub(crate) fn new(
        thread: ThreadId,
        runtime: Handle,
        logs: impl Iterator<Item = Arc<Progress>>,
    ) -> CommitSequence {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let logs = logs.map(|progress| Accepted { progress, last: AtomicU64::new(0) }).collect();
        CommitSequence(Some(Arc::new(Sequence { number, thread, runtime, logs })))
    }

    /// Returns a sequence that belongs to no worker.
    pub fn detached() -> CommitSequence {
        CommitSequence::default()
    }

    /// Returns whether both refer to the same sequence.
    pub fn is_same(&self, other: &CommitSequence) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Returns whether the sequence belongs to no worker.
    pub fn is_detached(&self) -> bool {
        self.0.is_none()
    }

    /// Waits until all events accepted so far are committed: written, or counted as lost.
    pub async fn committed(&self) {
        if !self.is_committed() {
            let mut gate = WriteGate::new(self.clone());
            std::future::poll_fn(|context| gate.poll_end(context)).await;
        }
    }

    /// Returns a sequence of the current thread for these logs, like that of a worker.
    #[cfg(test)]
    pub(super) fn here(logs: impl IntoIterator<Item = Arc<Progress>>) -> CommitSequence {
        static IDLE: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
        let idle = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let runtime = Handle::try_current();
        let runtime = runtime.unwrap_or_else(|_| IDLE.get_or_init(idle).handle().clone());
        CommitSequence::new(thread::current().id(), runtime, logs.into_iter())
    }

    /// Accepts one event, like the log's queue does.
    #[cfg(test)]
    pub(super) fn accept(&self, log: usize) {
        self.logs()[log].accept();
    }

    pub(super) fn is_committed(&self) -> bool {
        self.logs().iter().all(Accepted::is_committed)
    }

    pub(super) fn logs(&self) -> &[Accepted] {
        self.0.as_ref().map_or(&[], |sequence| &sequence.logs)
    }

    /// Returns the worker's sequence, and its events of this log. `None` if its sockets do not wait
    /// for the log.
    pub(super) fn of(&self, progress: &Arc<Progress>) -> Option<(&Sequence, &Accepted)> {
        let sequence = self.0.as_ref()?;
        let of_log = |accepted: &&Accepted| Arc::ptr_eq(&accepted.progress, progress);
        Some((sequence, sequence.logs.iter().find(of_log)?))
    }
}

impl Sequence {
    /// Returns a number that identifies the sequence. Numbers are not reused.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the runtime of the worker's tasks.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.logs.iter().map(|log| log.last.load(Ordering::Relaxed));
        let last: Vec<u64> = last.collect();
        f.debug_struct("Sequence").field("number", &self.number).field("last", &last).finish()
    }
}

impl Accepted {
    /// Counts one more queued event. The caller must hold the lock of the queue, so that numbers
    /// only grow.
    pub(super) fn accept(&self) {
        let event = self.progress.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        self.last.store(event, Ordering::Release);
    }

    /// Returns the number of the last accepted event.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    fn is_committed(&self) -> bool {
        self.progress.is_committed(self.last())
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }
}

/// Numbers of deferred events that a log has accepted and committed (written or lost), in the same
/// order, and the gates that wait for them.
#[derive(Default)]
pub(crate) struct Progress {
    accepted: AtomicU64,
    committed: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// The wakers for the end of the current or the next write.
#[derive(Default)]
struct Waiting {
    gates: Vec<WaitingGate>,
    /// Number of times that all gates were woken.
    round: u64,
}

struct WaitingGate {
    waker: Waker,
    sequence: CommitSequence,
}

/// The position of a waiting gate: its round, and its index in that round.
#[derive(Clone, Copy)]
pub(super) struct Place {
    round: u64,
    index: usize,
}

impl Progress {
    /// Counts `events` more committed events. The caller must hold the lock of the output.
    pub(super) fn commit(&self, events: u64) {
        if events == 0 {
            return;
        }
        // Stored before the wakers are taken: a waker that is registered too late sees the new
        // value when it checks again.
        self.committed.fetch_add(events, Ordering::Release);
        let gates = {
            let mut waiting = self.lock();
            waiting.round += 1;
            std::mem::take(&mut waiting.gates)
        };
        wake(gates);
    }

    pub(super) fn is_committed(&self, event: u64) -> bool {
        self.committed.load(Ordering::Acquire) >= event
    }

    /// Ready when `event` is committed. Until then, registers the waker; `place` keeps its
    /// position.
    pub(super) fn poll_committed(
        &self,
        event: u64,
        sequence: &CommitSequence,
        place: &mut Option<Place>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if self.is_committed(event) {
            return Poll::Ready(());
        }
        self.lock().enter(place, context.waker(), sequence);
        match self.is_committed(event) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the wakers")
    }

    #[cfg(test)]
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().gates.len()
    }
}

impl Waiting {
    /// Registers a waker, or replaces the one that the same gate has registered in this round.
    fn enter(&mut self, place: &mut Option<Place>, waker: &Waker, sequence: &CommitSequence) {
        match place {
            Some(Place { round, index }) if *round == self.round => {
                self.gates[*index].waker.clone_from(waker);
            }
            _ => {
                *place = Some(Place { round: self.round, index: self.gates.len() });
                let (waker, sequence) = (waker.clone(), sequence.clone());
                self.gates.push(WaitingGate { waker, sequence });
            }
        }
    }
}

/// Wakes all gates. Waking a task of another thread takes a system call, so one task is spawned on
/// that thread, which wakes all gates there.
fn wake(gates: Vec<WaitingGate>) {
    let here = thread::current().id();
    let mut elsewhere: Vec<(CommitSequence, Vec<Waker>)> = Vec::new();
    for WaitingGate { waker, sequence } in gates {
        match &sequence.0 {
            Some(worker) if worker.thread != here => {
                match elsewhere.iter_mut().find(|(other, _)| other.is_same(&sequence)) {
                    Some((_, wakers)) => wakers.push(waker),
                    None => elsewhere.push((sequence, vec![waker])),
                }
            }
            _ => waker.wake(),
        }
    }
    for (sequence, wakers) in elsewhere {
        if let Some(worker) = sequence.0 {
            // If the runtime has ended, so have its tasks.
            drop(worker.runtime.spawn(async { wakers.into_iter().for_each(Waker::wake) }));
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, committed) = (&self.accepted, &self.committed);
        let mut text = f.debug_struct("Progress");
        text.field("accepted", accepted).field("committed", committed).finish()
    }
}
