//! Holds bytes back until the events that were accepted before them are committed.

use std::task::{Context, Poll, ready};

use super::sequence::{CommitSequence, Place};

/// Holds back the bytes of one socket until all events are committed that were accepted in its
/// sequence before the bytes were to be written.
pub(crate) struct WriteGate {
    sequence: CommitSequence,
    waiting: Option<Waiting>,
}

/// The event that a socket waits for.
struct Waiting {
    /// The number of bytes to be written when the wait began.
    bytes: usize,
    /// Index of the log in the sequence. The logs before it have committed their events.
    log: usize,
    /// The number of the event in that log.
    event: u64,
    place: Option<Place>,
}

impl WriteGate {
    pub(crate) fn new(sequence: CommitSequence) -> WriteGate {
        WriteGate { sequence, waiting: None }
    }

    /// Returns how many of the next `bytes` bytes may be written. After a wait these are at least
    /// the bytes that were to be written when it began; waiting for later ones, too, might never
    /// end.
    pub(crate) fn poll_writable(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<usize> {
        if bytes == 0 || self.waiting.is_none() && self.sequence.is_committed() {
            return Poll::Ready(bytes);
        }
        let logs = self.sequence.logs();
        let last = |log: usize| logs.get(log).map_or(0, |accepted| accepted.last());
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            bytes,
            log: 0,
            event: last(0),
            place: None,
        });
        while let Some(accepted) = logs.get(waiting.log) {
            let Waiting { event, place, .. } = waiting;
            let progress = accepted.progress();
            ready!(progress.poll_committed(*event, &self.sequence, place, context));
            // This includes events that the next log has accepted meanwhile.
            waiting.log += 1;
            waiting.event = last(waiting.log);
            waiting.place = None;
        }
        let writable = match self.sequence.is_committed() {
            true => bytes,
            false => waiting.bytes.min(bytes),
        };
        self.waiting = None;
        Poll::Ready(writable)
    }

    /// Ready when the end of the stream may be sent.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Works like a write of unlimited length. A wait that has begun for a shorter write is
        // completed first.
        while ready!(self.poll_writable(usize::MAX, context)) < usize::MAX {}
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
