//! The names of all members of Kubernetes' built-in types, to distinguish a name in another case
//! from a new name.

use std::sync::LazyLock;

use super::words::{exact, folded};
use crate::protobuf::table;

/// The size of a hash table; several times the number of names.
const SLOTS: usize = 1 << 14;

/// The size of the bit set; large enough that few bits of other keys are set.
const BITS: usize = 1 << 16;

static NAMES: LazyLock<Names> = LazyLock::new(Names::new);

/// The names of all members.
pub(super) struct Names {
    exact: Box<[u64]>,
    folded: Box<[u64]>,
    /// A bit for each name. It excludes most other keys without a lookup in the large tables.
    bits: Box<[u64]>,
}

/// Returns the names of all members.
pub(super) fn names() -> &'static Names {
    &NAMES
}

impl Names {
    fn new() -> Names {
        let empty = |words: usize| vec![0_u64; words].into_boxed_slice();
        let mut names = Names { exact: empty(SLOTS), folded: empty(SLOTS), bits: empty(BITS / 64) };
        for name in table::all_names().chain(["kind", "apiVersion"]) {
            let print = folded(name.as_bytes());
            insert(&mut names.exact, exact(name.as_bytes()));
            insert(&mut names.folded, print);
            let (word, bit) = bit(print);
            names.bits[word] |= bit;
        }
        names
    }

    /// Whether a key equals the name of a member only if case is ignored. Go's `encoding/json`, and
    /// thus many readers of the audit log, ignore case; kube-apiserver's decoder does not, and
    /// drops the member. Also returns `true` for a few other keys.
    ///
    /// `print` is the fingerprint of the key, `is_ascii` whether it is ASCII.
    #[inline]
    pub(super) fn has_variant(&self, key: &[u8], print: u64, is_ascii: bool) -> bool {
        let (word, bit) = bit(print);
        if is_ascii && self.bits[word] & bit == 0 {
            return false;
        }
        self.has_likely_variant(key, print, is_ascii)
    }

    #[inline(never)]
    fn has_likely_variant(&self, key: &[u8], print: u64, is_ascii: bool) -> bool {
        let is_folded = has(&self.folded, print) || !is_ascii && has_folding_letter(key);
        is_folded && !has(&self.exact, exact(key))
    }
}

/// Returns the word and the bit of a fingerprint.
#[inline]
fn bit(print: u64) -> (usize, u64) {
    let bit = (print >> 32) as usize % BITS;
    (bit / 64, 1 << (bit % 64))
}

/// Returns the slot of a fingerprint, or the empty slot for it.
fn slot(slots: &[u64], print: u64) -> usize {
    let mut at = (print >> 40) as usize % SLOTS;
    while slots[at] != 0 && slots[at] != print {
        at = (at + 1) % SLOTS;
    }
    at
}

fn has(slots: &[u64], print: u64) -> bool {
    slots[slot(slots, print)] == print
}

fn insert(slots: &mut [u64], print: u64) {
    let at = slot(slots, print);
    slots[at] = print;
}

/// Whether the key contains a non-ASCII letter that equals an ASCII letter if case is ignored: the
/// long s or the Kelvin sign.
fn has_folding_letter(key: &[u8]) -> bool {
    key.windows(2).any(|pair| pair == "\u{17f}".as_bytes())
        || key.windows(3).any(|three| three == "\u{212a}".as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_variant(key: &str) -> bool {
        let key = key.as_bytes();
        names().has_variant(key, folded(key), key.is_ascii())
    }

    #[test]
    fn names_in_another_case_are_recognized() {
        for key in
            ["HOSTNETWORK", "hostnetwork", "Name", "roleref", "KIND", "role\u{17f}", "\u{212a}ind"]
        {
            assert!(is_variant(key), "{key}");
        }
        for key in ["hostNetwork", "name", "roleRef", "app.kubernetes.io/name", "zzz", "caf\u{e9}"]
        {
            assert!(!is_variant(key), "{key}");
        }
        let used = NAMES.exact.iter().filter(|slot| **slot != 0).count();
        assert!(used * 4 < SLOTS, "{used}");
        let set: u32 = NAMES.bits.iter().map(|word| word.count_ones()).sum();
        assert!(set as usize * 10 < BITS, "{set}");
    }

    #[test]
    fn every_name_in_another_case_is_a_variant_unless_it_is_a_name_too() {
        let all: std::collections::HashSet<&str> = table::all_names().collect();
        for name in &all {
            for other in [name.to_ascii_uppercase(), name.to_ascii_lowercase()] {
                assert_eq!(is_variant(&other), !all.contains(&*other), "{other}");
            }
            assert!(!is_variant(name), "{name}");
        }
    }
}
