//! Limits the cost of evaluating an expression. Claims are untrusted input: an expression that is
//! fast for usual claims must not be slow, or exhaust memory, for claims that an attacker has
//! crafted.
//!
//! Loops, and operations whose results can grow, are charged per element or per byte.

use std::cell::Cell;

use super::operators::Failure;

/// Maximum cost of one evaluation: 250,000 iterations of a loop, or 4 MB of text.
const LIMIT: u64 = 4_000_000;
/// Cost of an element of a list.
const ELEMENT: u64 = 16;

thread_local! {
    /// The remaining cost of the current evaluation on this thread.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Begins an evaluation, which runs on this thread without interruption.
pub(super) fn begin() {
    LEFT.set(LIMIT);
}

/// Returns whether the evaluation has exceeded its limit.
pub(super) fn is_spent() -> bool {
    LEFT.get() == 0
}

/// Charges for `bytes` bytes of text.
pub(super) fn charge_bytes(bytes: usize) -> Result<(), Failure> {
    charge(bytes as u64)
}

/// Charges for `elements` elements.
pub(super) fn charge_elements(elements: usize) -> Result<(), Failure> {
    charge((elements as u64).saturating_mul(ELEMENT))
}

fn charge(cost: u64) -> Result<(), Failure> {
    let left = LEFT.get().saturating_sub(cost);
    LEFT.set(left);
    if left > 0 { Ok(()) } else { Err("limit exceeded".to_owned()) }
}
