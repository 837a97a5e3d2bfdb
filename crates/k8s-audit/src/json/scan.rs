//! Finds the bytes of a JSON string that need escaping or checking, eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Returns the index of the first special byte at or after `at`: a quote, a backslash, a control
/// character, `<`, `>`, `&`, or 0xe2 (which may begin U+2028 or U+2029). Returns `text.len()` if
/// there is none.
#[inline]
pub fn plain_end(text: &[u8], at: usize) -> usize {
    end(text, at, 0)
}

/// Like [`plain_end`], but every non-ASCII byte is special, too.
#[inline]
pub fn plain_ascii_end(text: &[u8], at: usize) -> usize {
    end(text, at, HIGHS)
}

/// `also` contains the bits that make a byte special, too.
#[inline]
fn end(text: &[u8], mut at: usize, also: u64) -> usize {
    let place = |found: u64| (found.trailing_zeros() / 8) as usize;
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        let found = special(word) | word & also;
        if found != 0 {
            return at + place(found);
        }
        at += 8;
    }
    let rest = text.len().saturating_sub(at);
    if let (1.., Some(word)) = (rest, text.last_chunk()) {
        // The zero bytes that are shifted in are control characters, so one is always found.
        let word = u64::from_le_bytes(*word) >> (8 * (8 - rest));
        return at + place(special(word) | word & also);
    }
    let is_plain = |byte: u8| PLAIN[usize::from(byte)] && u64::from(byte) & also == 0;
    while text.get(at).is_some_and(|byte| is_plain(*byte)) {
        at += 1;
    }
    at
}

/// Returns a word whose lowest set bit is in the first special byte of `word`. Bytes above that one
/// may be marked wrongly, because the subtraction borrows from them.
#[inline]
const fn special(word: u64) -> u64 {
    let control = word.wrapping_sub(0x20 * ONES) & !word;
    // 0x22 and 0x26 differ in one bit, and so do 0x3c and 0x3e.
    let quote_or_ampersand = zero((word & !(4 * ONES)) ^ (0x22 * ONES));
    let angle = zero((word & !(2 * ONES)) ^ (0x3c * ONES));
    let backslash = zero(word ^ (0x5c * ONES));
    let separator = zero(word ^ (0xe2 * ONES));
    (control | quote_or_ampersand | angle | backslash | separator) & HIGHS
}

/// Marks the bytes that are zero.
#[inline]
const fn zero(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] =
            byte >= 0x20 && !matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
        byte += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_found_at_each_place() {
        for byte in 0..=255u8 {
            for length in 1..20 {
                for place in 0..length {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    let expected = if PLAIN[usize::from(byte)] { length } else { place };
                    assert_eq!(plain_end(&text, 0), expected, "{byte:#x} at {place} of {length}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(text: Vec<u8>, from in 0usize..8) {
            let from = from.min(text.len());
            let first = |special: fn(u8) -> bool| {
                let found = text[from..].iter().position(|byte| special(*byte));
                found.map_or(text.len(), |found| from + found)
            };
            let expected = first(|byte| !PLAIN[usize::from(byte)]);
            proptest::prop_assert_eq!(plain_end(&text, from), expected);
            let expected = first(|byte| !PLAIN[usize::from(byte)] || byte >= 0x80);
            proptest::prop_assert_eq!(plain_ascii_end(&text, from), expected);
        }

        #[test]
        fn mostly_plain_bytes(text in "[a-z]{0,40}[<&é\u{1}]?[a-z]{0,20}") {
            let special = |byte: u8| !PLAIN[usize::from(byte)] || byte >= 0x80;
            let expected = text.bytes().position(special).unwrap_or(text.len());
            proptest::prop_assert_eq!(plain_ascii_end(text.as_bytes(), 0), expected);
        }
    }
}
