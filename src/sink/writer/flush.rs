//! One write for all lines that are accepted at about the same time.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Instant;

use tokio::runtime::Handle;

use super::Writer;

impl Writer {
    /// Writes what was accepted when the tasks that can run now have run, whose lines join it, and before
    /// the sockets that are woken from now on. Called after a thread's first line. Without a runtime
    /// the line is written at once.
    pub(in crate::sink) fn flush_soon(self: &Arc<Self>) {
        let flush = Flush { writer: Some(self.clone()), thread: thread::current().id() };
        match Handle::try_current() {
            // It goes to the end of the thread's queue: a scheduler of more threads might run it next.
            Ok(runtime) => drop(runtime.spawn(async { flush.run() })),
            Err(_) => flush.run(),
        }
    }

    fn flush(&self, thread: ThreadId) {
        // Lines that come from now on have a flush of their own.
        self.queue.flushing(thread);
        if self.is_slow() {
            self.queue.call();
            return;
        }
        let Some(mut held) = self.soon() else {
            // Whoever has it looks at the queue after letting go of it.
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

/// A flush to come. If it does not because the runtime ends, the thread writes.
struct Flush {
    writer: Option<Arc<Writer>>,
    thread: ThreadId,
}

impl Flush {
    fn run(mut self) {
        if let Some(writer) = self.writer.take() {
            writer.flush(self.thread);
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.queue.flushing(self.thread);
            writer.queue.call();
        }
    }
}

#[cfg(test)]
#[path = "flush_tests.rs"]
mod tests;
