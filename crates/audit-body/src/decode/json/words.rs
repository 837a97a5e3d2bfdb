//! Skips JSON strings eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// In each byte, the bit in which upper and lower case of an ASCII letter differ.
const CASE: u64 = 0x2020_2020_2020_2020;

/// Returns the index of the first quote, backslash or control character at or after `at`, or the
/// length of `text`.
#[inline]
pub(super) fn string_end(text: &[u8], at: usize) -> usize {
    let mut rest = text.get(at..).unwrap_or_default();
    let found = loop {
        let (found, tail) = match rest.split_first_chunk() {
            Some((word, tail)) => (ends(u64::from_le_bytes(*word)), tail),
            None => break ends(last_word(rest)),
        };
        if found != 0 {
            break found;
        }
        rest = tail;
    };
    text.len() - rest.len() + place(found)
}

/// Reads the key whose first character is at `start`. Returns the result of [`string_end`], and of
/// [`folded`] for the key up to there.
// Not inlined, so that its loop can use all registers.
#[inline(never)]
pub(super) fn key(text: &[u8], start: usize) -> (usize, u64) {
    let mut rest = text.get(start..).unwrap_or_default();
    let (mut print, length) = (0, rest.len());
    let (last, found) = loop {
        let (word, tail) = match rest.split_first_chunk() {
            Some((word, tail)) => (u64::from_le_bytes(*word), tail),
            None => break (last_word(rest), ends(last_word(rest))),
        };
        let found = ends(word);
        if found != 0 {
            break (word, found);
        }
        print = mix(print, word | CASE);
        rest = tail;
    };
    let length = length - rest.len() + place(found);
    (start + length, finish(print, last & low_bytes(place(found)) | CASE, length))
}

/// Returns a fingerprint of a key that ignores case: equal for equal keys, and rarely equal for
/// others.
pub(super) fn folded(key: &[u8]) -> u64 {
    fingerprint(key, CASE)
}

/// Returns a fingerprint of a key: equal for equal keys, and rarely equal for others.
pub(super) fn exact(key: &[u8]) -> u64 {
    fingerprint(key, 0)
}

fn fingerprint(key: &[u8], case: u64) -> u64 {
    let (words, rest) = key.as_chunks();
    let print = words.iter().fold(0, |print, word| mix(print, u64::from_le_bytes(*word) | case));
    finish(print, last_word(rest) | case, key.len())
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn mix(print: u64, word: u64) -> u64 {
    (print ^ word).wrapping_mul(FACTOR).rotate_left(29)
}

#[inline]
fn finish(print: u64, last: u64, length: usize) -> u64 {
    (mix(print, last) ^ length as u64).wrapping_mul(FACTOR)
}

/// Returns the last bytes, fewer than eight, padded with zeros. These are control characters, so
/// that one is found in any case.
#[cold]
#[inline(never)]
fn last_word(rest: &[u8]) -> u64 {
    rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Returns a mask of the lowest `count` bytes, fewer than eight.
#[inline]
fn low_bytes(count: usize) -> u64 {
    (1 << (8 * count)) - 1
}

/// Returns a word whose lowest set bit is in the first byte that is a quote, a backslash or a
/// control character. Higher bytes may be marked wrongly, because of the borrow of a subtraction.
#[inline]
fn ends(word: u64) -> u64 {
    // The quote becomes 0x20 and the space 0x22; control characters stay below 0x20.
    let quote_or_control = (word ^ (0x02 * ONES)).wrapping_sub(0x21 * ONES);
    let backslash = (word ^ (0x5c * ONES)).wrapping_sub(ONES);
    // Bytes beyond ASCII are neither, whatever the subtraction resulted in.
    (quote_or_control | backslash) & !word & HIGHS
}

/// Returns the index of the byte that [`ends`] has found.
#[inline]
fn place(found: u64) -> usize {
    (found.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_end(byte: &u8) -> bool {
        matches!(byte, b'"' | b'\\' | 0..=0x1f)
    }

    #[test]
    fn each_byte_is_found_at_each_place() {
        for byte in 0..=255u8 {
            for length in 1..20 {
                for place in 0..length {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    let expected = if is_end(&byte) { place } else { length };
                    assert_eq!(string_end(&text, 0), expected, "{byte:#x} at {place} of {length}");
                }
            }
        }
    }

    #[test]
    fn fingerprints_tell_lengths_and_cases_apart() {
        assert_eq!(folded(b"hostNetwork"), folded(b"HOSTNETWORK"));
        assert_ne!(exact(b"hostNetwork"), exact(b"HOSTNETWORK"));
        for (one, other) in [(&b"a"[..], &b"a "[..]), (b"", b" "), (b"abcdefgh", b"abcdefgh ")] {
            assert_ne!(folded(one), folded(other));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(text: Vec<u8>, from in 0usize..12) {
            let expected = text.iter().skip(from).position(is_end);
            let from = from.min(text.len());
            let expected = expected.map_or(text.len(), |place| from + place);
            prop_assert_eq!(string_end(&text, from), expected);
            prop_assert_eq!(key(&text, from), (expected, folded(&text[from..expected])));
        }

        #[test]
        fn mostly_plain_bytes(text in "[a-zA-Zé]{0,40}[\"\\\\\n]?[a-z]{0,20}") {
            let end = text.bytes().position(|byte| is_end(&byte)).unwrap_or(text.len());
            let expected = (end, folded(&text.as_bytes()[..end]));
            prop_assert_eq!(key(text.as_bytes(), 0), expected);
        }
    }
}
