//! Maps a key (a user, a verb, a resource) to the set of rules that can match it.

use std::collections::HashMap;

/// The keys that a rule can match.
pub(super) enum Keys<'r> {
    /// All keys.
    Any,
    /// Only these keys.
    Only(Vec<&'r [u8]>),
}

/// A set of rules, one bit each, beginning with the lowest. All sets of a policy have the same
/// length.
type Bits = Box<[u64]>;

/// An index of rules.
#[derive(Debug)]
pub(super) struct Index {
    listed: HashMap<Box<[u8]>, Bits>,
    /// The rules that can match keys which no rule lists.
    other: Bits,
}

impl Index {
    /// Creates an index from the keys of each rule.
    pub(super) fn new<'r>(rules: impl ExactSizeIterator<Item = Keys<'r>>) -> Index {
        let rules: Vec<Keys<'r>> = rules.collect();
        let empty = || vec![0; rules.len().div_ceil(u64::BITS as usize)].into_boxed_slice();
        let mut other = empty();
        let mut listed: HashMap<Box<[u8]>, Bits> = HashMap::new();
        for (number, keys) in rules.iter().enumerate() {
            match keys {
                Keys::Any => set(&mut other, number),
                Keys::Only(keys) => {
                    for key in keys {
                        set(listed.entry((*key).into()).or_insert_with(empty), number);
                    }
                }
            }
        }
        for bits in listed.values_mut() {
            bits.iter_mut().zip(&other).for_each(|(word, any)| *word |= any);
        }
        Index { listed, other }
    }

    /// Returns the rules that can match `key`.
    pub(super) fn of(&self, key: &[u8]) -> &[u64] {
        if self.listed.is_empty() {
            return &self.other;
        }
        self.listed.get(key).unwrap_or(&self.other)
    }

    /// Returns the rules that can match a request without a key, or with one that no rule lists.
    pub(super) fn of_other(&self) -> &[u64] {
        &self.other
    }
}

fn set(bits: &mut [u64], number: usize) {
    bits[number / u64::BITS as usize] |= 1 << (number % u64::BITS as usize);
}
