//! Writes all events that a worker thread accepts in one turn of its scheduler together.

use std::sync::Arc;
use std::time::Instant;

use super::Writer;
use crate::commit::sequence::Sequence;

impl Writer {
    /// Has a task of the worker write what was accepted in its sequence. The task runs after all
    /// tasks that can run now, whose events join it, and before the sockets that these wake.
    pub(in crate::commit) fn flush_soon(self: &Arc<Self>, sequence: &Sequence) {
        let flush = Flush { writer: Some(self.clone()), sequence: sequence.number() };
        // At the end of the thread's run queue; a runtime of several threads might run it next.
        drop(sequence.runtime().spawn(async { flush.run() }));
    }

    fn flush(&self, sequence: u64) {
        // Events that come from now on have a flush of their own.
        self.queue.flushing(sequence);
        if self.is_slow() {
            self.queue.call();
            return;
        }
        let Some(mut held) = self.soon() else {
            // The holder of the output checks the queue after releasing it.
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

/// An announced flush. If it never runs because the runtime ends, the writer thread writes.
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
