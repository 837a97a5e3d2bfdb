//! Writes from the request that submits the event, where that is cheaper than waking the writer
//! thread.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, TryLockError};
use std::time::Instant;

use super::{Held, Writer};
use crate::error::WriteError;
use crate::line::Line;

/// How often a request tries to lock the output. This takes some microseconds, as long as a write
/// does; sleeping and being woken would take longer.
const TRIES: usize = 200;

/// Number of groups that a request writes before it leaves the queue to the writer thread.
const GROUPS: usize = 4;

impl Writer {
    /// Writes an event now, after the queued ones. Returns it if the output cannot be locked soon
    /// or the queue is closed; the caller must queue it then.
    pub(in crate::commit) fn write_now(&self, line: Line) -> Result<Result<(), WriteError>, Line> {
        let Some(mut held) = self.try_hold_repeatedly() else { return Err(line) };
        let started = Instant::now();
        self.queue.take_with(line, &mut held.group)?;
        let result = self.write_taken(&mut held);
        let is_slow = held.is_slow(started) || result.is_err();
        drop(held);
        self.look_after_others(is_slow);
        Ok(result)
    }

    /// Ensures that queued events are written, after an event was queued because another thread had
    /// locked the output. That thread checks the queue after unlocking the output, but may have
    /// done so just before the event was queued.
    pub(in crate::commit) fn queued(&self) {
        match self.is_slow() {
            true => self.queue.call(),
            false => self.look_after_others(false),
        }
    }

    /// Writes the queue, unless another thread has locked the output. `is_slow` tells whether the
    /// previous write was slow.
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

    pub(super) fn try_hold_repeatedly(&self) -> Option<MutexGuard<'_, Held>> {
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
