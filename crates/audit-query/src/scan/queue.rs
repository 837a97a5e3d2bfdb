//! Hands out pieces to threads, and returns their results to the caller in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::piece::Found;

/// Bytes of results that may wait for the caller: this many of the piece it is at, and this many of
/// all pieces.
const WAITING: usize = 4 << 20;

/// A queue of pieces, which are numbered in delivery order.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    pieces: usize,
    /// Number of pieces that may be in progress at once.
    window: usize,
}

#[derive(Debug, Default)]
struct State {
    /// The next piece to hand out.
    next: usize,
    /// The piece from which the caller reads results.
    head: usize,
    pieces: BTreeMap<usize, Waiting>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    found: VecDeque<Found>,
    size: usize,
    finished: bool,
}

impl State {
    fn is_full(&self, piece: usize) -> bool {
        let size = match piece == self.head {
            true => self.pieces.get(&piece).map_or(0, |waiting| waiting.size),
            false => self.pieces.values().map(|waiting| waiting.size).sum(),
        };
        size >= WAITING
    }
}

/// A piece that a thread is processing. Marked as finished on drop, including during a panic.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    queue: &'a Queue,
    pub(super) piece: usize,
}

impl Queue {
    pub(super) fn new(pieces: usize, threads: usize) -> Queue {
        let window = threads * 4;
        Queue { state: Mutex::default(), changed: Condvar::new(), pieces, window }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next piece for a thread. Waits while the caller is too far behind. Returns
    /// `None` if there are no more pieces or the queue was stopped.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        let mut state = self.lock();
        while !state.stopped && state.next < self.pieces && state.next >= state.head + self.window {
            state = self.wait(state);
        }
        if state.stopped || state.next >= self.pieces {
            return None;
        }
        state.next += 1;
        Some(Taken { queue: self, piece: state.next - 1 })
    }

    /// Returns whether the queue was stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Stops the queue: remaining pieces are not processed.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Returns the next result in order. Returns `None` at the end, or if the queue was stopped and
    /// the current piece is not finished.
    pub(super) fn next(&self) -> Option<Found> {
        let mut state = self.lock();
        while state.head < self.pieces {
            let head = state.head;
            let waiting = state.pieces.entry(head).or_default();
            if let Some(found) = waiting.found.pop_front() {
                waiting.size -= found.size();
                self.changed.notify_all();
                return Some(found);
            }
            if waiting.finished {
                state.pieces.remove(&head);
                state.head += 1;
                self.changed.notify_all();
            } else if state.stopped {
                return None;
            } else {
                state = self.wait(state);
            }
        }
        None
    }
}

impl Taken<'_> {
    /// Hands over results. Waits while too many bytes are queued. Returns `false` if the queue was
    /// stopped.
    pub(super) fn push(&self, found: Found) -> bool {
        let mut state = self.queue.lock();
        while !state.stopped && state.is_full(self.piece) {
            state = self.queue.wait(state);
        }
        if state.stopped {
            return false;
        }
        let waiting = state.pieces.entry(self.piece).or_default();
        waiting.size += found.size();
        waiting.found.push_back(found);
        self.queue.changed.notify_all();
        true
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.queue.lock().pieces.entry(self.piece).or_default().finished = true;
        self.queue.changed.notify_all();
    }
}
