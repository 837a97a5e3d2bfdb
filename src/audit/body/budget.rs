//! The memory that bodies may take while they are captured, of all requests together
//! (`--audit-total-body-bytes`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory is reserved in steps of this many bytes, so that small pieces do not contend for it.
const STEP: usize = 16 << 10;

/// How much memory there is, and how much of it is taken.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    taken: AtomicUsize,
}

/// A part of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    held: usize,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Arc<Budget> {
        Arc::new(Budget { total, taken: AtomicUsize::new(0) })
    }

    /// Nothing of it yet.
    pub fn reservation(self: &Arc<Budget>) -> Reservation {
        Reservation { budget: self.clone(), held: 0 }
    }

    /// Bytes taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Makes this reservation hold at least `bytes`; says whether the budget allows it. If not,
    /// what is held stays.
    pub fn hold(&mut self, bytes: usize) -> bool {
        if bytes <= self.held {
            return true;
        }
        let wanted = bytes.div_ceil(STEP) * STEP;
        let more = wanted - self.held;
        let taken = self.budget.taken.fetch_add(more, Ordering::Relaxed);
        if taken.saturating_add(more) > self.budget.total {
            self.budget.taken.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.held = wanted;
        true
    }
}

impl Reservation {
    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_back() {
        let budget = Budget::new(3 * STEP);
        let (mut first, mut second) = (budget.reservation(), budget.reservation());
        assert!(first.hold(1) && first.hold(STEP) && second.hold(STEP + 1));
        assert_eq!(budget.taken(), 3 * STEP);
        assert!(!first.hold(STEP + 1) && first.hold(STEP), "what is held stays");
        drop(second);
        assert!(first.hold(3 * STEP));
        drop(first);
        assert_eq!(budget.taken(), 0);
    }
}
