//! Lines on their way from the requests to the log.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};
use std::time::Instant;

use tokio::sync::oneshot;

use super::barrier::Owed;
use super::batch::{Batcher, Step};
use super::error::WriteError;
use super::line::Line;
use crate::sink::LogMetrics;

/// What became of one event. Dropping it loses nothing but the answer.
#[derive(Debug)]
#[must_use = "in the blocking modes a request goes on only when its event is written"]
pub struct Ack(AckState);

#[derive(Debug)]
enum AckState {
    Ready(Result<(), WriteError>),
    Waiting(oneshot::Receiver<Result<(), WriteError>>),
    /// The answer of the first is kept while the second is awaited.
    Both {
        acks: Box<[Ack; 2]>,
        first: Option<Result<(), WriteError>>,
    },
    /// Never an error.
    Lenient(Box<Ack>),
}

impl Ack {
    pub(crate) fn ready(result: Result<(), WriteError>) -> Ack {
        Ack(AckState::Ready(result))
    }

    /// The answer is what is sent, or an error if nothing is.
    pub(crate) fn waiting() -> (AckSender, Ack) {
        let (sender, receiver) = oneshot::channel();
        (sender, Ack(AckState::Waiting(receiver)))
    }

    /// Both events must be stored. The first error counts.
    pub(crate) fn and(self, other: Ack) -> Ack {
        if let AckState::Ready(Ok(())) = self.0 {
            return other;
        }
        if let AckState::Ready(Ok(())) = other.0 {
            return self;
        }
        Ack(AckState::Both { acks: Box::new([self, other]), first: None })
    }

    /// Waits as this one does, but does not mind an error.
    pub(crate) fn lenient(self) -> Ack {
        if let AckState::Ready(_) = self.0 {
            return Ack::ready(Ok(()));
        }
        Ack(AckState::Lenient(Box::new(self)))
    }
}

impl Future for Ack {
    type Output = Result<(), WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            AckState::Ready(result) => Poll::Ready(result.clone()),
            AckState::Waiting(receiver) => {
                let answer = ready!(Pin::new(receiver).poll(context));
                // A writer that panicked drops its end.
                Poll::Ready(answer.unwrap_or(Err(WriteError::Panicked)))
            }
            AckState::Both { acks, first } => {
                let [one, other] = &mut **acks;
                if first.is_none() {
                    *first = Some(ready!(Pin::new(one).poll(context)));
                }
                let second = ready!(Pin::new(other).poll(context));
                Poll::Ready(first.take().unwrap_or(Ok(())).and(second))
            }
            AckState::Lenient(ack) => {
                let _ = ready!(Pin::new(&mut **ack).poll(context));
                Poll::Ready(Ok(()))
            }
        }
    }
}

pub(crate) type AckSender = oneshot::Sender<Result<(), WriteError>>;

/// Who waits for a line.
pub(super) enum Waits {
    /// Who has its [`Ack`].
    Submitter(AckSender),
    /// Sockets, at the [`Barrier`](super::Barrier).
    Sockets,
}

/// Lines that are written together, and who waits for each: all of them, all but the last, which is
/// written by who submitted it, or (batch) none.
#[derive(Default)]
pub(super) struct Group {
    pub(super) lines: VecDeque<Line>,
    pub(super) acks: VecDeque<Waits>,
}

impl Group {
    /// Frees the lines but keeps the room for them, unless that has become very large.
    pub(super) fn clear(&mut self) {
        const KEPT: usize = 1024;
        self.lines.clear();
        self.acks.clear();
        self.lines.shrink_to(KEPT);
        self.acks.shrink_to(KEPT);
    }
}

/// What [`Queue::push`] did.
#[derive(Debug)]
pub(super) enum Pushed {
    /// The line is in the queue.
    Queued(Ack),
    /// It is, and sockets wait for it; with whether somebody must see to it that it is written.
    Accepted { first: bool },
    /// The queue is full.
    Full,
    /// The queue is closed.
    Closed,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Write so many lines.
    Write(usize),
    /// Open the log file again.
    Reopen,
    /// See whether the log file is still the one at its path.
    Check,
    /// The queue is closed and empty.
    Stop,
}

/// The queue of one sink.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// None: no limit, and somebody waits for each line. The requests in flight are limit enough.
    capacity: Option<usize>,
    /// Whoever submits a line sees to it that it is written; the writer thread only when called.
    by_submitters: bool,
    /// The lines that sockets wait for.
    owed: Arc<Owed>,
    metrics: Arc<LogMetrics>,
}

#[derive(Default)]
struct Waiting {
    group: Group,
    /// When the first of the lines came.
    since: Option<Instant>,
    closed: bool,
    reopen: bool,
    /// The writer thread is to look at the lines although those who submit them write themselves.
    called: bool,
    /// The threads where a task is going to write what was accepted.
    flushes: Vec<ThreadId>,
    /// The writer sleeps until there are so many lines. None: it is awake, or waiting for a time.
    wake_at: Option<usize>,
}

impl Queue {
    pub(super) fn new(
        capacity: Option<usize>,
        by_submitters: bool,
        metrics: Arc<LogMetrics>,
    ) -> Queue {
        let (waiting, wake, owed) = (Mutex::default(), Condvar::new(), Arc::default());
        Queue { waiting, wake, capacity, by_submitters, owed, metrics }
    }

    /// The lines that sockets wait for.
    pub(super) fn owed(&self) -> &Arc<Owed> {
        &self.owed
    }

    /// Appends a line and wakes the writer if it sleeps. Never waits for the writer.
    pub(super) fn push(&self, line: Line) -> Pushed {
        // Allocated before the lock is taken, so that the lock is held for some nanoseconds only.
        let (sender, ack) = match self.capacity {
            Some(_) => (None, Ack::ready(Ok(()))),
            None => {
                let (sender, ack) = Ack::waiting();
                (Some(sender), ack)
            }
        };
        let mut waiting = self.lock();
        if waiting.closed {
            return Pushed::Closed;
        }
        if self.capacity.is_some_and(|capacity| waiting.group.lines.len() >= capacity) {
            return Pushed::Full;
        }
        if self.capacity.is_some() && waiting.group.lines.is_empty() {
            waiting.since = Some(Instant::now());
        }
        waiting.group.lines.push_back(line);
        waiting.group.acks.extend(sender.map(Waits::Submitter));
        let length = waiting.group.lines.len();
        self.metrics.set_queue_length(length);
        let wake = !self.by_submitters && waiting.wake_at.is_some_and(|at| length >= at);
        if wake {
            waiting.wake_at = None;
        }
        drop(waiting);
        if wake {
            self.wake.notify_one();
        }
        Pushed::Queued(ack)
    }

    /// Appends a line that sockets wait for. The first one of this thread after [`Self::flushing`] is
    /// told so.
    pub(super) fn accept(&self, line: Line) -> Pushed {
        let here = thread::current().id();
        let mut waiting = self.lock();
        if waiting.closed {
            return Pushed::Closed;
        }
        waiting.group.lines.push_back(line);
        waiting.group.acks.push_back(Waits::Sockets);
        self.owed.accept();
        self.metrics.set_queue_length(waiting.group.lines.len());
        let first = !waiting.flushes.contains(&here);
        if first {
            waiting.flushes.push(here);
        }
        Pushed::Accepted { first }
    }

    /// Who was to write what was accepted on a thread does so now.
    pub(super) fn flushing(&self, thread: ThreadId) {
        self.lock().flushes.retain(|other| *other != thread);
    }

    /// Whoever was to write what was accepted is not waited for any longer.
    pub(super) fn no_flushes(&self) {
        self.lock().flushes.clear();
    }

    /// Waits for something to do, for the writer thread. For [`Task::Write`], the lines are then
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
            let step = if self.by_submitters && !called {
                Step::Wait { until: None, wake_at: None }
            } else {
                batcher.step(length, waiting.since, waiting.closed, now)
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
        if self.capacity.is_some() {
            waiting.since = Some(Instant::now());
        }
        self.metrics.set_queue_length(waiting.group.lines.len());
    }

    /// Takes all lines into `group`, which is empty, and this one behind them; for whoever holds the
    /// output. Gives it back if the queue is closed.
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

    /// Whether there are lines that nobody is going to write.
    pub(super) fn is_left(&self) -> bool {
        let waiting = self.lock();
        waiting.flushes.is_empty() && !waiting.group.lines.is_empty()
    }

    /// Has the writer thread write what is there, where submitters do it otherwise.
    pub(super) fn call(&self) {
        self.lock().called = true;
        self.wake.notify_one();
    }

    /// Has the writer open its log file again.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.wake.notify_one();
    }

    /// Takes no more lines. Those that are in the queue are still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Drops the lines that wait; gives their number. Who waits for one of them is told that it was not
    /// written.
    pub(super) fn abandon(&self) -> usize {
        let mut waiting = self.lock();
        let group = std::mem::take(&mut waiting.group);
        self.metrics.set_queue_length(0);
        drop(waiting);
        let acks = group.acks.into_iter();
        let submitters = acks.filter_map(|waits| match waits {
            Waits::Submitter(ack) => Some(ack),
            Waits::Sockets => None,
        });
        // Whoever asked may be gone.
        submitters.for_each(|ack| drop(ack.send(Err(WriteError::ShutDown))));
        group.lines.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the queue")
    }
}

impl fmt::Debug for Queue {
    /// Without the lines: events are not for our own log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Waiting {
    fn take(&mut self, count: usize, group: &mut Group) {
        if count >= self.group.lines.len() {
            std::mem::swap(&mut self.group, group);
        } else {
            group.lines.extend(self.group.lines.drain(..count));
            let acks = count.min(self.group.acks.len());
            group.acks.extend(self.group.acks.drain(..acks));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_written_at_once_goes_behind_those_that_wait() {
        let metrics = Arc::new(LogMetrics::default());
        let queue = Queue::new(None, true, metrics.clone());
        assert!(matches!(queue.push(b"first\n".to_vec().into()), Pushed::Queued(_)));
        assert_eq!(metrics.queue_length(), 1);
        let mut group = Group::default();
        queue.take_with(b"second\n".to_vec().into(), &mut group).unwrap();
        let lines: Vec<&[u8]> = group.lines.iter().map(|line| &**line).collect();
        assert_eq!((lines, group.acks.len()), (vec![&b"first\n"[..], b"second\n"], 1));
        assert_eq!(metrics.queue_length(), 0, "nothing waits any more");
        queue.close();
        assert!(queue.take_with(b"third\n".to_vec().into(), &mut Group::default()).is_err());
    }
}
