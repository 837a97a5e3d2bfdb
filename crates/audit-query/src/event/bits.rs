//! Finds quotes, backslashes, and brackets in 16 or 64 bytes at a time.

use wide::u8x16;

/// For each kind of character: bit `i` is set if byte `i` of a block is such a character.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Masks {
    pub(super) quote: u64,
    pub(super) backslash: u64,
    /// `{` and `[`
    pub(super) open: u64,
    /// `}` and `]`
    pub(super) close: u64,
}

/// Returns a mask of quotes and backslashes.
#[inline(always)]
pub(super) fn quote_or_backslash(bytes: &[u8; 16]) -> u32 {
    let vector = u8x16::new(*bytes);
    (vector.simd_eq(u8x16::splat(b'"')) | vector.simd_eq(u8x16::splat(b'\\'))).to_bitmask()
}

/// Returns whether one of the bytes is a backslash.
#[inline(always)]
pub(super) fn has_backslash(bytes: &[u8; 16]) -> bool {
    u8x16::new(*bytes).simd_eq(u8x16::splat(b'\\')).to_bitmask() & 0xffff != 0
}

/// Returns a mask in which bit `i` is set if byte `i` of a block is a control character.
#[inline(always)]
pub(super) fn controls(block: &[u8; 64]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    let found =
        |index: usize| (u8x16::new(parts[index]) & u8x16::splat(0xe0)).simd_eq(u8x16::splat(0));
    let found = [found(0), found(1), found(2), found(3)];
    // Most blocks contain no control character.
    if (found[0] | found[1] | found[2] | found[3]).to_bitmask() & 0xffff == 0 {
        return 0;
    }
    found.iter().rev().fold(0, |bits, one| bits << 16 | u64::from(one.to_bitmask() & 0xffff))
}

#[inline(always)]
pub(super) fn masks(block: &[u8; 64]) -> Masks {
    let mut masks = Masks::default();
    let (parts, _) = block.as_chunks::<16>();
    for (index, part) in parts.iter().enumerate() {
        let vector = u8x16::new(*part);
        // A bracket and the corresponding brace differ in one bit.
        let folded = vector | u8x16::splat(0x20);
        let found = |vector: u8x16, byte| {
            u64::from(vector.simd_eq(u8x16::splat(byte)).to_bitmask() & 0xffff) << (16 * index)
        };
        masks.quote |= found(vector, b'"');
        masks.backslash |= found(vector, b'\\');
        masks.open |= found(folded, b'{');
        masks.close |= found(folded, b'}');
    }
    masks
}

/// Returns a mask in which bit `i` is the parity of bits 0 to `i`. Applied to a mask of quotes, it
/// marks the bytes from each opening quote to the one before the closing quote.
#[inline(always)]
pub(super) fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Returns a mask of the bytes that a backslash escapes. On entry, `carry` is 1 if the first byte
/// of this block is escaped; on return, if the first byte of the next block is.
#[inline(always)]
pub(super) fn escaped(backslash: u64, carry: &mut u64) -> u64 {
    if backslash == 0 {
        return std::mem::take(carry);
    }
    // A run of backslashes escapes every second byte, beginning with the second byte of the run.
    // The subtraction carries through each run and thereby marks its end, for runs that begin at
    // even as well as at odd bits.
    const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
    let potential = backslash & !*carry;
    let sequences = ((potential << 1) | ODD).wrapping_sub(potential) ^ ODD;
    let escaped = sequences ^ (backslash | *carry);
    *carry = (sequences & backslash) >> 63;
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn portable(block: &[u8; 64]) -> Masks {
        let mut masks = Masks::default();
        for (index, byte) in block.iter().enumerate() {
            let bit = 1 << index;
            match byte {
                b'"' => masks.quote |= bit,
                b'\\' => masks.backslash |= bit,
                b'{' | b'[' => masks.open |= bit,
                b'}' | b']' => masks.close |= bit,
                _ => {}
            }
        }
        masks
    }

    proptest! {
        #[test]
        fn masks_are_those_of_single_bytes(text in r#"["\\{}\[\]a~;\x00\xff]{64}"#) {
            let mut block = [0; 64];
            for (byte, char) in block.iter_mut().zip(text.chars()) {
                *byte = char as u32 as u8;
            }
            prop_assert_eq!(masks(&block), portable(&block));
        }

        #[test]
        fn controls_are_those_of_single_bytes(bytes in prop::array::uniform32(0..64_u8), more: u8) {
            let mut block = [more | 0x20; 64];
            block[16..48].copy_from_slice(&bytes);
            let found = controls(&block);
            for (index, byte) in block.iter().enumerate() {
                prop_assert_eq!(found >> index & 1 == 1, *byte < 0x20);
            }
        }

        #[test]
        fn escapes_are_those_of_a_loop(text in r#"[\\"a]{192}"#) {
            let (mut carry, mut after_backslash) = (0, false);
            for block in text.as_bytes().as_chunks::<64>().0 {
                let found = escaped(masks(block).backslash, &mut carry);
                for (index, byte) in block.iter().enumerate() {
                    prop_assert_eq!(found >> index & 1 == 1, after_backslash, "{}", index);
                    after_backslash = *byte == b'\\' && !after_backslash;
                }
            }
        }

        #[test]
        fn parity_is_that_of_a_loop(bits: u64) {
            let parity = prefix_xor(bits);
            for index in 0..64 {
                let ones = (bits << (63 - index)).count_ones();
                prop_assert_eq!(parity >> index & 1, u64::from(ones % 2));
            }
        }
    }
}
