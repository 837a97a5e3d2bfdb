//! The barrier between the log and the sockets: no byte leaves before the lines that were accepted
//! before it are written.
//!
//! Where lines are accepted so, a request does not wait for its events. What it says to the API server
//! and to the client is held back at the sockets instead, with what others say at the same time, and one
//! write of all their lines lets all of it go. A line that cannot be written is counted and logged, and
//! holds up nobody.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker, ready};

/// How many lines a sink has accepted and how many of them are done, written or lost, in the same
/// order; and who waits for that.
#[derive(Default)]
pub(crate) struct Owed {
    accepted: AtomicU64,
    done: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Who waits for the end of the current write, or of the next.
#[derive(Default)]
struct Waiting {
    wakers: Vec<Waker>,
    /// How often all were woken.
    round: u64,
}

/// Where somebody waits: the round, and the place in it.
#[derive(Clone, Copy)]
struct Place {
    round: u64,
    index: usize,
}

impl Owed {
    /// One more line is on its way. For whoever holds the queue.
    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Release);
    }

    /// So many more are done. For whoever holds the output.
    pub(super) fn done(&self, lines: u64) {
        if lines == 0 {
            return;
        }
        // Said first: a waker that comes too late to be taken finds it when it looks again.
        self.done.fetch_add(lines, Ordering::Release);
        let wakers = {
            let mut waiting = self.lock();
            waiting.round += 1;
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    fn is_done(&self, until: u64) -> bool {
        self.done.load(Ordering::Acquire) >= until
    }

    fn poll_done(
        &self,
        until: u64,
        place: &mut Option<Place>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if self.is_done(until) {
            return Poll::Ready(());
        }
        self.lock().enter(place, context.waker());
        match self.is_done(until) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the wakers")
    }
}

impl Waiting {
    /// Enters a waker, in the place of the one that the same socket may have here already.
    fn enter(&mut self, place: &mut Option<Place>, waker: &Waker) {
        match place {
            Some(Place { round, index }) if *round == self.round => {
                self.wakers[*index].clone_from(waker);
            }
            _ => {
                *place = Some(Place { round: self.round, index: self.wakers.len() });
                self.wakers.push(waker.clone());
            }
        }
    }
}

impl fmt::Debug for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, done) = (&self.accepted, &self.done);
        f.debug_struct("Owed").field("accepted", accepted).field("done", done).finish()
    }
}

/// What sockets ask before they write. Clones are one; open as long as it is not told of any sink.
#[derive(Debug, Clone, Default)]
pub struct Barrier(Arc<OnceLock<Box<[Arc<Owed>]>>>);

impl Barrier {
    /// Holds back for these from now on. Only the first call counts.
    pub(crate) fn hold_for(&self, sinks: impl Iterator<Item = Arc<Owed>>) {
        let _ = self.0.set(sinks.collect());
    }

    /// Whether a byte would have to wait now.
    pub(crate) fn is_closed(&self) -> bool {
        self.sinks().iter().any(|sink| !sink.is_done(sink.accepted()))
    }

    fn sinks(&self) -> &[Arc<Owed>] {
        self.0.get().map_or(&[], |sinks| sinks)
    }
}

/// The barrier as one socket sees it.
pub(super) struct Gate {
    barrier: Barrier,
    asked: Option<Asked>,
}

/// What a socket waits for.
struct Asked {
    /// So many bytes it had to write when it asked first.
    bytes: usize,
    /// Which sink is waited for; those before it are done.
    sink: usize,
    /// Up to this line.
    until: u64,
    place: Option<Place>,
}

impl Gate {
    pub(super) fn new(barrier: Barrier) -> Gate {
        Gate { barrier, asked: None }
    }

    /// How many of the `bytes` that are to be written next may leave: at least those that there were
    /// when this was first asked. If it waited for the others too, it might wait for ever, as more and
    /// more come.
    pub(super) fn poll_pass(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<usize> {
        if bytes == 0 || !self.barrier.is_closed() {
            self.asked = None;
            return Poll::Ready(bytes);
        }
        let sinks = self.barrier.sinks();
        let until = |sink: usize| sinks.get(sink).map_or(0, |owed| owed.accepted());
        let asked = self.asked.get_or_insert_with(|| Asked {
            bytes,
            sink: 0,
            until: until(0),
            place: None,
        });
        while let Some(sink) = sinks.get(asked.sink) {
            ready!(sink.poll_done(asked.until, &mut asked.place, context));
            // Lines of the next one that were accepted meanwhile are waited for, too.
            asked.sink += 1;
            asked.until = until(asked.sink);
            asked.place = None;
        }
        let passed = asked.bytes.min(bytes);
        self.asked = None;
        Poll::Ready(passed)
    }

    /// Ready when the end may be told, too.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // As if it were bytes without end. What was asked for real ones is answered first.
        while ready!(self.poll_pass(usize::MAX, context)) < usize::MAX {}
        Poll::Ready(())
    }
}

#[cfg(test)]
#[path = "barrier_tests.rs"]
mod tests;
