//! Limits the cost of an evaluation. Claims are untrusted input: an expression that is fast for
//! most of them must not be slow, or exhaust memory, for claims that an attacker has prepared.
//!
//! Loops and whatever makes values that grow are charged: by the element, by the byte.

use std::cell::Cell;

use super::operators::Failure;

/// All that one evaluation may cost: 250,000 rounds of a loop, or 4 MB of text.
const LIMIT: u64 = 4_000_000;
/// An element of a list.
const ELEMENT: u64 = 16;

thread_local! {
    /// The remaining cost limit of the evaluation in progress on this thread.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Begins an evaluation on this thread; it ends before this thread does anything else.
pub(super) fn begin() {
    LEFT.set(LIMIT);
}

/// Returns whether the evaluation has cost more than it may.
pub(super) fn is_spent() -> bool {
    LEFT.get() == 0
}

/// Charges for this many bytes of text.
pub(super) fn charge_bytes(bytes: usize) -> Result<(), Failure> {
    charge(bytes as u64)
}

/// Charges for this many elements.
pub(super) fn charge_elements(elements: usize) -> Result<(), Failure> {
    charge((elements as u64).saturating_mul(ELEMENT))
}

fn charge(cost: u64) -> Result<(), Failure> {
    let left = LEFT.get().saturating_sub(cost);
    LEFT.set(left);
    if left > 0 { Ok(()) } else { Err("limit exceeded".to_owned()) }
}
