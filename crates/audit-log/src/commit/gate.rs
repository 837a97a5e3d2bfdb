//! Holds bytes back until the events that were accepted before them are committed.

use std::task::{Context, Poll, ready};

use super::sequence::{CommitSequence, Place};

/// Lets the bytes of one socket pass when all events are committed that were accepted in its
/// sequence before the bytes were to be written.
pub(crate) struct WriteGate {
    sequence: CommitSequence,
    waiting: Option<Waiting>,
}

/// The position that a socket waits for.
struct Waiting {
    /// The number of bytes to be written when the wait began.
    bytes: usize,
    /// The log that is waited for, by its place in the sequence; those before it have committed.
    log: usize,
    /// The event that is waited for.
    event: u64,
    place: Option<Place>,
}

impl WriteGate {
    pub(crate) fn new(sequence: CommitSequence) -> WriteGate {
        WriteGate { sequence, waiting: None }
    }

    /// Returns how many of the next `bytes` may be written: at least those that there were when the
    /// wait began. Waiting for the later ones too might never end, as more and more come.
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
            // The next log's events that were accepted meanwhile are waited for, too.
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

    /// Ready when the end of the stream may be sent, too.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Like bytes without end. A wait that was begun for real ones ends first.
        while ready!(self.poll_writable(usize::MAX, context)) < usize::MAX {}
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
