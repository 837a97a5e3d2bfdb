//! Escapes text for JSON strings, several bytes at a time.

/// Size of the buffer for escaped text.
const BUFFER: usize = 4 << 10;
/// Maximum size of two escaped blocks, and of a word that is written beyond their end.
const SLACK: usize = 2 * BLOCK * 6 + 8;
/// Number of bytes that are checked together. Most blocks need no escape sequence.
const BLOCK: usize = 16;

/// One bit of each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// The escape sequence of each byte that needs one, and its length.
static SEQUENCES: [([u8; 8], usize); 256] = sequences();

const fn sequences() -> [([u8; 8], usize); 256] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut all = [([0; 8], 0); 256];
    let mut byte = 0;
    while byte < 0x20 {
        let (high, low) = (HEX[byte >> 4], HEX[byte & 15]);
        all[byte] = ([b'\\', b'u', b'0', b'0', high, low, 0, 0], 6);
        byte += 1;
    }
    let short =
        [(8, b'b'), (9, b't'), (10, b'n'), (12, b'f'), (13, b'r'), (b'"', b'"'), (b'\\', b'\\')];
    let mut at = 0;
    while at < short.len() {
        all[short[at].0 as usize] = ([b'\\', short[at].1, 0, 0, 0, 0, 0, 0], 2);
        at += 1;
    }
    all
}

/// Returns a word that has the highest bit of each byte set that needs an escape sequence.
fn special(word: u64) -> u64 {
    // The highest bit of a byte is set unless the byte is zero.
    let is_not_zero = |word: u64| ((word & !HIGH).wrapping_add(!HIGH)) | word;
    let control = is_not_zero(word & (0xe0 * ONES));
    let quote = is_not_zero(word ^ (u64::from(b'"') * ONES));
    let backslash = is_not_zero(word ^ (u64::from(b'\\') * ONES));
    !(control & quote & backslash) & HIGH
}

/// Appends `text` as a part of a JSON string.
pub(crate) fn push_escaped(text: &[u8], out: &mut Vec<u8>) {
    let mut buffer = [0; BUFFER + SLACK];
    let mut filled = 0;
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    for block in blocks {
        if filled > BUFFER {
            out.extend_from_slice(&buffer[..filled]);
            filled = 0;
        }
        // Without branches, so that the compiler can use vector instructions.
        let escapes =
            |byte: u8| u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\');
        if block.iter().fold(0, |any, byte| any | escapes(*byte)) == 0 {
            buffer[filled..filled + BLOCK].copy_from_slice(block);
            filled += BLOCK;
            continue;
        }
        for word in block.as_chunks::<8>().0 {
            filled = push_word(*word, 8, &mut buffer, filled);
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        filled = push_word(*word, 8, &mut buffer, filled);
    }
    if !rest.is_empty() {
        let mut word = [b' '; 8];
        word[..rest.len()].copy_from_slice(rest);
        filled = push_word(word, rest.len(), &mut buffer, filled);
    }
    out.extend_from_slice(&buffer[..filled]);
}

/// Writes the first `length` bytes of `word` at `filled`, and returns the index after them.
fn push_word(
    word: [u8; 8],
    length: usize,
    buffer: &mut [u8; BUFFER + SLACK],
    mut filled: usize,
) -> usize {
    let mut put = |at: usize, bytes: [u8; 8]| buffer[at..at + 8].copy_from_slice(&bytes);
    put(filled, word);
    let word = u64::from_le_bytes(word);
    let (mut left, mut done) = (special(word), 0);
    while left != 0 {
        let at = (left.trailing_zeros() / 8) as usize;
        let rest = word >> (8 * at);
        let (sequence, sequence_length) = &SEQUENCES[usize::from(rest as u8)];
        filled += at - done;
        put(filled, *sequence);
        filled += sequence_length;
        put(filled, (rest >> 8).to_le_bytes());
        done = at + 1;
        left &= left - 1;
    }
    filled + length - done
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = b"before".to_vec();
        push_escaped(text.as_bytes(), &mut out);
        String::from_utf8(out.split_off(6)).unwrap()
    }

    fn by_serde(text: &str) -> String {
        let text = serde_json::to_string(text).unwrap();
        text[1..text.len() - 1].to_owned()
    }

    #[test]
    fn every_character_is_escaped_as_serde_json_does_wherever_it_is() {
        for c in (0..0x100).filter_map(char::from_u32) {
            for before in 0..9 {
                for after in 0..9 {
                    let text = format!("{}{c}{}", "a".repeat(before), "z".repeat(after));
                    assert_eq!(escaped(&text), by_serde(&text));
                }
            }
        }
    }

    #[test]
    fn long_texts_are_escaped_like_by_serde_json() {
        for text in ["\u{1}".repeat(20_000), "a\"\u{1f}€".repeat(9_000), "x".repeat(100_001)] {
            assert!(escaped(&text) == by_serde(&text));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_escaped_like_by_serde_json(text in "([ -~]|\\PC|[\u{0}-\u{1f}\"\\\\]){0,60}") {
            prop_assert_eq!(escaped(&text), by_serde(&text));
        }
    }
}
