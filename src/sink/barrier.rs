//! The barrier between the log and the sockets: no byte leaves before the lines that were accepted
//! before it on the same thread are written. A request, its client's connection and its connection to
//! the API server are on one thread, so these are all that the byte has to do with.
//!
//! Where lines are accepted so, a request does not wait for its events. What it says to the API server
//! and to the client is held back at the sockets instead, with what others say at the same time, and one
//! write of all their lines lets all of it go. A line that cannot be written is counted and logged, and
//! holds up nobody.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::thread::{self, ThreadId};

use tokio::runtime::Handle;

thread_local! {
    /// Of each sink, by its number, the last line that was accepted on this thread.
    static ACCEPTED_HERE: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// How many lines a sink has accepted and how many of them are done, written or lost, in the same
/// order; and who waits for that.
pub(crate) struct Owed {
    /// The number of the sink.
    sink: u64,
    accepted: AtomicU64,
    done: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Who waits for the end of the current write, or of the next.
#[derive(Default)]
struct Waiting {
    sockets: Vec<Socket>,
    /// How often all were woken.
    round: u64,
}

/// A socket that waits.
struct Socket {
    waker: Waker,
    /// Its thread's, if it has one.
    runtime: Option<(ThreadId, Handle)>,
}

/// Where somebody waits: the round, and the place in it.
#[derive(Clone, Copy)]
struct Place {
    round: u64,
    index: usize,
}

impl Default for Owed {
    fn default() -> Owed {
        static SINKS: AtomicU64 = AtomicU64::new(0);
        Owed {
            sink: SINKS.fetch_add(1, Ordering::Relaxed),
            accepted: AtomicU64::new(0),
            done: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }
}

impl Owed {
    /// One more line of this thread's is on its way. For whoever holds the queue.
    pub(super) fn accept(&self) {
        let line = self.accepted.fetch_add(1, Ordering::Release) + 1;
        ACCEPTED_HERE.with_borrow_mut(|sinks| {
            match sinks.iter_mut().find(|(sink, _)| *sink == self.sink) {
                Some((_, last)) => *last = line,
                None => sinks.push((self.sink, line)),
            }
        });
    }

    /// So many more are done. For whoever holds the output.
    pub(super) fn done(&self, lines: u64) {
        if lines == 0 {
            return;
        }
        // Said first: a waker that comes too late to be taken finds it when it looks again.
        self.done.fetch_add(lines, Ordering::Release);
        let sockets = {
            let mut waiting = self.lock();
            waiting.round += 1;
            std::mem::take(&mut waiting.sockets)
        };
        wake(sockets);
    }

    /// The last line that was accepted on this thread.
    fn accepted_here(&self) -> u64 {
        let last = |sinks: &Vec<(u64, u64)>| {
            sinks.iter().find(|(sink, _)| *sink == self.sink).map_or(0, |(_, last)| *last)
        };
        ACCEPTED_HERE.with_borrow(last)
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
                self.sockets[*index].waker.clone_from(waker);
            }
            _ => {
                *place = Some(Place { round: self.round, index: self.sockets.len() });
                let runtime = Handle::try_current().ok();
                let runtime = runtime.map(|runtime| (thread::current().id(), runtime));
                self.sockets.push(Socket { waker: waker.clone(), runtime });
            }
        }
    }
}

/// Wakes all. To wake a task of another thread takes a system call, so a task there wakes all of it.
fn wake(sockets: Vec<Socket>) {
    let here = thread::current().id();
    let mut elsewhere: Vec<(ThreadId, Handle, Vec<Waker>)> = Vec::new();
    for Socket { waker, runtime } in sockets {
        match runtime {
            Some((thread, runtime)) if thread != here => {
                match elsewhere.iter_mut().find(|(other, ..)| *other == thread) {
                    Some((_, _, wakers)) => wakers.push(waker),
                    None => elsewhere.push((thread, runtime, vec![waker])),
                }
            }
            _ => waker.wake(),
        }
    }
    for (_, runtime, wakers) in elsewhere {
        // If it has ended, so have its tasks.
        drop(runtime.spawn(async { wakers.into_iter().for_each(Waker::wake) }));
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

    /// Whether a byte of this thread's would have to wait now.
    fn is_closed(&self) -> bool {
        self.sinks().iter().any(|sink| !sink.is_done(sink.accepted_here()))
    }

    fn sinks(&self) -> &[Arc<Owed>] {
        self.0.get().map_or(&[], |sinks| sinks)
    }
}

/// The barrier as one socket sees it. Of a socket that is always polled on the same thread, where all
/// that is said on it was made.
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
        if bytes == 0 || self.asked.is_none() && !self.barrier.is_closed() {
            return Poll::Ready(bytes);
        }
        let sinks = self.barrier.sinks();
        let until = |sink: usize| sinks.get(sink).map_or(0, |owed| owed.accepted_here());
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
        let passed = match self.barrier.is_closed() {
            true => asked.bytes.min(bytes),
            false => bytes,
        };
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
