//! Writes all events that a worker thread accepts in one pass of its scheduler together.

use std::sync::Arc;
use std::time::Instant;

use super::Writer;
use crate::commit::sequence::Sequence;

impl Writer {
    /// Schedules a task of the worker that writes the events of its sequence. The task runs after
    /// all tasks that are ready now, whose events it writes too, and before the sockets that these
    /// tasks wake.
    pub(in crate::commit) fn flush_soon(self: &Arc<Self>, sequence: &Sequence) {
        let flush = Flush { writer: Some(self.clone()), sequence: sequence.number() };
        // The task goes to the end of the run queue of this thread's current-thread runtime. A
        // multi-threaded runtime might run it next.
        drop(sequence.runtime().spawn(async { flush.run() }));
    }

    fn flush(&self, sequence: u64) {
        // Events that are accepted from now on schedule another flush.
        self.queue.flushing(sequence);
        if self.is_slow() {
            self.queue.call();
            return;
        }
        let Some(mut held) = self.try_hold_repeatedly() else {
            // The thread that has locked the output checks the queue after unlocking it.
            self.look_after_others(false);
            return;
        };
        let started = Instant::now();
        let failed = self.write(&mut held, usize::MAX).is_err();
        let is_slow = held.is_slow(started) || failed;
        drop(held);
        self.look_after_others(is_slow);
    }
}

/// A scheduled flush. If the runtime ends before it runs, the writer thread writes the events.
struct Flush {
    writer: Option<Arc<Writer>>,
    sequence: u64,
}

impl Flush {
    fn run(mut self) {
        if let Some(writer) = self.writer.take() {
            writer.flush(self.sequence);
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.queue.flushing(self.sequence);
            writer.queue.call();
        }
    }
}

#[cfg(test)]
mod tests;
