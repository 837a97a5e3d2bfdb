//! Writing by whoever submits, where that is cheaper than the thread.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, TryLockError};
use std::time::Instant;

use super::{Held, Writer};
use crate::sink::error::WriteError;
use crate::sink::line::Line;

/// How often a submitter tries to get the output: for some microseconds, as long as a write takes. To
/// go to sleep and be woken takes longer.
const TRIES: usize = 200;

/// A submitter that writes for others hands over to the thread after so many groups.
const GROUPS: usize = 4;

impl Writer {
    /// Writes `line` at once, behind those that wait, if submitters write and the output can be had
    /// soon. Gives the line back if not, or if the queue is closed: it is to be queued then.
    pub(in crate::sink) fn write_now(&self, line: Line) -> Result<Result<(), WriteError>, Line> {
        if !self.by_submitters || self.is_slow() {
            return Err(line);
        }
        let Some(mut held) = self.soon() else { return Err(line) };
        let started = Instant::now();
        self.queue.take_with(line, &mut held.group)?;
        let result = self.write_taken(&mut held);
        let is_slow = held.is_slow(started) || result.is_err();
        drop(held);
        self.look_after_others(is_slow);
        Ok(result)
    }

    /// Called after each line that was put into the queue: sees to it that it will be written.
    pub(in crate::sink) fn submitted(&self) {
        if !self.by_submitters {
            return;
        }
        if self.is_slow() {
            self.queue.call();
            return;
        }
        // Whoever has it looks at the queue after letting go of it.
        self.look_after_others(false);
    }

    /// Writes the lines that wait, unless somebody else has the output; for a submitter, which has
    /// just had it, and found it slow, or not.
    pub(super) fn look_after_others(&self, mut is_slow: bool) {
        for _ in 0..GROUPS {
            if is_slow {
                self.slow.store(true, Ordering::Relaxed);
                break;
            }
            if !self.queue.is_left() {
                return;
            }
            let Some(mut held) = self.try_hold() else { return };
            let started = Instant::now();
            let failed = self.write(&mut held, usize::MAX).is_err();
            is_slow = held.is_slow(started) || failed;
        }
        self.queue.call();
    }

    pub(super) fn soon(&self) -> Option<MutexGuard<'_, Held>> {
        for _ in 0..TRIES {
            if let Some(held) = self.try_hold() {
                return Some(held);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn try_hold(&self) -> Option<MutexGuard<'_, Held>> {
        match self.held.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => unreachable!("outputs are guarded from panics"),
        }
    }
}
