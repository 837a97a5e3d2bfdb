//! Matches the lines of a log file with the sealed lines.

use std::collections::HashMap;

use crate::seal::digest::Short;

/// Maximum number of equal lines that are considered, so that many copies do not slow it down.
const COPIES: usize = 4;

/// Returns pairs of indexes with equal digests, in which both indexes increase. Finds as many as it
/// can quickly. Lines without a pair were changed, moved, removed or inserted.
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

/// Returns all pairs of indexes with equal digests, sorted by the first index, and for equal first
/// indexes by the second in descending order. So an increasing subsequence of the second indexes
/// uses each first index once. Considers only the first few copies of a line.
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

/// Returns the longest subsequence in which the second index increases, too.
fn rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // `ends`: for each length, the pair that ends the best subsequence of that length. `before`:
    // the predecessor of each pair.
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

/// Adds pairs of equal lines at both ends of a gap, which are further copies of a line.
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
        // Sealed digests, found digests, and the unmatched ones of both.
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
