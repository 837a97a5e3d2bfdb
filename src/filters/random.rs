//! Random numbers that need not be unpredictable.

use std::hash::{BuildHasher, RandomState};

/// Returns a number from 0 up to, but not including, 1.
pub(super) fn fraction() -> f64 {
    // Each state has keys of its own; 53 bits are what a float64 can hold.
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
