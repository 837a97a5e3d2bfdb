//! One write for all lines that are accepted at about the same time.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use super::Writer;

impl Writer {
    /// Writes what was accepted when the tasks that can run now have run, whose lines join it. Called
    /// after the first line. Without a runtime the line is written at once.
    pub(in crate::sink) fn flush_soon(self: &Arc<Self>) {
        let flush = Flush(Some(self.clone()));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async {
                tokio::task::yield_now().await;
                flush.run();
            })),
            Err(_) => flush.run(),
        }
    }

    fn flush(&self) {
        // Lines that come from now on have a flush of their own.
        self.queue.flushing();
        let held = if self.is_slow() { None } else { self.soon() };
        let Some(mut held) = held else {
            self.queue.call();
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
struct Flush(Option<Arc<Writer>>);

impl Flush {
    fn run(mut self) {
        if let Some(writer) = self.0.take() {
            writer.flush();
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            writer.queue.flushing();
            writer.queue.call();
        }
    }
}

#[cfg(test)]
#[path = "flush_tests.rs"]
mod tests;
