//! Which of the lines that are there are which of those that were sealed.

use std::collections::HashMap;

use crate::seal::digest::Short;

/// So many copies of a line are looked at, so that many do not make it slow.
const COPIES: usize = 4;

/// Pairs of equal digests, by index, both rising: as many as can be found quickly. Everything else
/// was changed, moved, removed or inserted.
pub(super) fn align(sealed: &[Short], found: &[Short]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let (mut sealed_from, mut found_from) = (0, 0);
    for (s, f) in rising(&candidates(sealed, found)) {
        if s < sealed_from || f < found_from {
            continue;
        }
        fill(sealed, found, (sealed_from, found_from), (s, f), &mut pairs);
        pairs.push((s, f));
        (sealed_from, found_from) = (s + 1, f + 1);
    }
    fill(sealed, found, (sealed_from, found_from), (sealed.len(), found.len()), &mut pairs);
    pairs
}

/// Returns all pairs of equal digests, by the first index and then by the second from the end: so
/// no two of a line are in a part whose second index rises. Of copies, the first few.
fn candidates(sealed: &[Short], found: &[Short]) -> Vec<(usize, usize)> {
    let mut places: HashMap<Short, Vec<usize>> = HashMap::new();
    for (index, digest) in found.iter().enumerate() {
        let places = places.entry(*digest).or_default();
        if places.len() < COPIES {
            places.push(index);
        }
    }
    let pairs = |(index, digest)| {
        let places = places.get(digest).map_or(&[][..], Vec::as_slice);
        places.iter().rev().map(move |place| (index, *place))
    };
    sealed.iter().enumerate().flat_map(pairs).collect()
}

/// Returns the longest part of the pairs whose second index rises, too.
fn rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length, the pair with which the best part of that length ends; and who came before.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < pair.1);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut longest = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(index) = next {
        longest.push(pairs[index]);
        next = before[index];
    }
    longest.reverse();
    longest
}

/// Lines at both ends of a gap that are equal after all: copies of others.
fn fill(
    sealed: &[Short],
    found: &[Short],
    from: (usize, usize),
    to: (usize, usize),
    pairs: &mut Vec<(usize, usize)>,
) {
    let (mut start, mut end) = (from, to);
    while start.0 < end.0 && start.1 < end.1 && sealed[start.0] == found[start.1] {
        pairs.push(start);
        start = (start.0 + 1, start.1 + 1);
    }
    let mut last = Vec::new();
    while start.0 < end.0 && start.1 < end.1 && sealed[end.0 - 1] == found[end.1 - 1] {
        end = (end.0 - 1, end.1 - 1);
        last.push(end);
    }
    pairs.extend(last.into_iter().rev());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(text: &str) -> Vec<Short> {
        text.bytes().map(|byte| [byte; 8]).collect()
    }

    #[test]
    fn what_is_left_over_is_what_was_tampered_with() {
        // Sealed, found, and which of the found are not what was sealed at their place.
        for (sealed, found, unmatched_sealed, unmatched_found) in [
            ("abcdef", "abcdef", "", ""),
            ("abcdef", "abXdef", "c", "X"),
            ("abcdef", "abdef", "c", ""),
            ("abcdef", "abcXdef", "", "X"),
            ("abcdef", "abccdef", "", "c"),
            ("abcdef", "eabcdef", "", "e"),
            ("abcdef", "acbcdef", "", "c"),
            ("abcdef", "", "abcdef", ""),
            ("abcdef", "XYZ", "abcdef", "XYZ"),
            ("aaaa", "aaa", "a", ""),
        ] {
            let (sealed, found) = (digests(sealed), digests(found));
            let pairs = align(&sealed, &found);
            assert!(pairs.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1), "{pairs:?}");
            let rest = |all: &[Short], matched: &dyn Fn(usize) -> bool| -> String {
                let rest = (0..all.len()).filter(|index| !matched(*index));
                rest.map(|index| all[index][0] as char).collect()
            };
            assert_eq!(rest(&sealed, &|at| pairs.iter().any(|p| p.0 == at)), unmatched_sealed);
            assert_eq!(rest(&found, &|at| pairs.iter().any(|p| p.1 == at)), unmatched_found);
        }
        let swapped = align(&digests("abcdef"), &digests("abdcef"));
        assert_eq!(swapped.len(), 5);
    }
}
