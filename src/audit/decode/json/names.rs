//! The names of all members of Kubernetes' own types, to tell a name in another case from a new
//! one.

use std::sync::LazyLock;

use super::survey::{Print, fingerprint};
use crate::audit::protobuf::table;

/// Several times as many slots as there are names.
const SLOTS: usize = 1 << 14;

static NAMES: LazyLock<Names> = LazyLock::new(Names::new);

struct Names {
    exact: Box<[u64]>,
    folded: Box<[u64]>,
}

/// Whether a key equals the name of a member only if the case of letters is ignored. Go's
/// `encoding/json`, and so many a reader of the audit log, ignores it; kube-apiserver's decoder
/// does not, and drops the member. Also returns `true` for a few other keys.
pub(super) fn is_variant(key: &[u8], print: Print) -> bool {
    !NAMES.exact_has(print) && (has(&NAMES.folded, print.folded) || has_folding_letter(key))
}

impl Names {
    fn new() -> Names {
        let empty = || vec![0_u64; SLOTS].into_boxed_slice();
        let mut names = Names { exact: empty(), folded: empty() };
        let fields = table::all_names().chain(["kind", "apiVersion"]);
        for name in fields {
            let print = fingerprint(name.as_bytes());
            insert(&mut names.exact, print.exact);
            insert(&mut names.folded, print.folded);
        }
        names
    }

    fn exact_has(&self, print: Print) -> bool {
        has(&self.exact, print.exact)
    }
}

/// The slot of a fingerprint, or the empty one where it would go.
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

/// Whether the key has a letter beyond ASCII that folds into it: the long s or the Kelvin sign.
fn has_folding_letter(key: &[u8]) -> bool {
    !key.is_ascii()
        && (key.windows(2).any(|pair| pair == "\u{17f}".as_bytes())
            || key.windows(3).any(|three| three == "\u{212a}".as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_another_case_are_recognized() {
        let is_variant = |key: &str| is_variant(key.as_bytes(), fingerprint(key.as_bytes()));
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
    }
}
