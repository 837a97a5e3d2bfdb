//! Skips JSON values without building a tree.

use super::bits;

/// Returns the index of the first byte from `at` that is not white space, or the length.
#[inline(always)]
pub(crate) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Returns the index after the newline that ends the line at `at` (or the length), and whether the
/// line contains no other control character. Determines both in one pass, because each pass costs
/// as much as reading the line.
#[inline]
pub(crate) fn line_end(bytes: &[u8], mut at: usize) -> (usize, bool) {
    let mut is_clean = true;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<64>) {
        let mut controls = bits::controls(block);
        while controls != 0 {
            let bit = controls.trailing_zeros() as usize;
            if block[bit] == b'\n' {
                return (at + bit + 1, is_clean);
            }
            is_clean = false;
            controls &= controls - 1;
        }
        at += 64;
    }
    for (offset, byte) in bytes[at.min(bytes.len())..].iter().enumerate() {
        match byte {
            b'\n' => return (at + offset + 1, is_clean),
            byte => is_clean &= *byte >= b' ',
        }
    }
    (bytes.len(), is_clean)
}

/// Returns the index of the closing quote of a string. `at` is the index of its first character.
#[inline(always)]
pub(crate) fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = bytes.get(at..)?;
        let offset = match rest.first_chunk::<16>() {
            Some(chunk) => match bits::quote_or_backslash(chunk) {
                0 => {
                    at += 16;
                    continue;
                }
                mask => mask.trailing_zeros() as usize,
            },
            None => rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?,
        };
        at += offset;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Returns the index after an object or list. `at` is the index of its opening bracket. Brackets
/// are counted without distinguishing their kinds.
pub(crate) fn container_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    if matches!(bytes.get(at..at + 2), Some(b"{}" | b"[]")) {
        return Some(at + 2);
    }
    let (mut depth, mut carry, mut in_string) = (0_u32, 0, 0_u64);
    loop {
        let rest = bytes.get(at..)?;
        let mut padded;
        let block = match rest.first_chunk::<64>() {
            Some(block) => block,
            None if rest.is_empty() => return None,
            None => {
                padded = [b' '; 64];
                padded[..rest.len()].copy_from_slice(rest);
                &padded
            }
        };
        let masks = bits::masks(block);
        let quotes = masks.quote & !bits::escaped(masks.backslash, &mut carry);
        let strings = bits::prefix_xor(quotes) ^ in_string;
        in_string = 0_u64.wrapping_sub(strings >> 63);
        let (opening, mut closing) = (masks.open & !strings, masks.close & !strings);
        let (opened, closed) = (opening.count_ones(), closing.count_ones());
        if closed >= depth {
            // The container may end in this block, at the bracket that closes the last open one.
            let mut closed_before = 0;
            while closing != 0 {
                let bit = closing.trailing_zeros();
                closed_before += 1;
                let opened_before = (opening & ((1 << bit) - 1)).count_ones();
                if depth + opened_before == closed_before {
                    return Some(at + bit as usize + 1);
                }
                closing &= closing - 1;
            }
        }
        depth = depth + opened - closed;
        at += 64;
    }
}

/// Returns the index after a list of strings without white space between them. `at` is the index of
/// its opening bracket. Returns `None` for any other list.
#[inline(always)]
pub(crate) fn list_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'[') {
        return None;
    }
    let mut at = at + 1;
    if bytes.get(at) == Some(&b']') {
        return Some(at + 1);
    }
    loop {
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        at = string_end(bytes, at + 1)? + 1;
        match bytes.get(at)? {
            b',' => at += 1,
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Returns the index after an object in which all values are strings, without white space between
/// them. `at` is the index of its opening brace. Returns `None` for any other object.
#[inline(always)]
pub(crate) fn texts_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    if bytes.get(at..at + 2) == Some(b"{}") {
        return Some(at + 2);
    }
    let mut before = b'{';
    loop {
        if bytes.get(at) != Some(&before) || bytes.get(at + 1) != Some(&b'"') {
            return None;
        }
        at = string_end(bytes, at + 2)? + 1;
        if bytes.get(at..at + 2) != Some(b":\"") {
            return None;
        }
        at = string_end(bytes, at + 2)? + 1;
        if bytes.get(at) == Some(&b'}') {
            return Some(at + 1);
        }
        before = b',';
    }
}

/// A value as it is in the JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// The text between the quotes, still escaped.
    String(&'a [u8]),
    /// The object with its braces.
    Object(&'a [u8]),
    /// The list with its brackets.
    List(&'a [u8]),
    /// A number, `true`, `false`, or `null`.
    Scalar(&'a [u8]),
}

/// Returns the value at `at`, and the index after it.
#[inline(always)]
pub(crate) fn value(bytes: &[u8], at: usize) -> Option<(Value<'_>, usize)> {
    match bytes.get(at)? {
        b'"' => {
            let end = string_end(bytes, at + 1)?;
            Some((Value::String(&bytes[at + 1..end]), end + 1))
        }
        b'{' => {
            let end = container_end(bytes, at)?;
            (bytes[end - 1] == b'}').then_some((Value::Object(&bytes[at..end]), end))
        }
        b'[' => {
            let end = container_end(bytes, at)?;
            (bytes[end - 1] == b']').then_some((Value::List(&bytes[at..end]), end))
        }
        _ => {
            let length = bytes[at..]
                .iter()
                .position(
                    |byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'+' | b'-' | b'.' | b'E'),
                )
                .unwrap_or(bytes.len() - at);
            let scalar = &bytes[at..at + length];
            let valid = match scalar.first()? {
                b't' => scalar == b"true",
                b'f' => scalar == b"false",
                b'n' => scalar == b"null",
                _ => is_number(scalar),
            };
            valid.then_some((Value::Scalar(scalar), at + length))
        }
    }
}

fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', digits @ ..] => digits,
            _ => exponent,
        };
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

/// Calls `member` for each member of an object, with the key (between its quotes, still escaped)
/// and the index at which the value begins. `at` is the index of the object's opening brace.
/// `member` returns the index after the value. Returns the index after the object, or `None` if it
/// is not an object.
#[inline(always)]
pub(crate) fn members<'a>(
    bytes: &'a [u8],
    at: usize,
    mut member: impl FnMut(&'a [u8], usize) -> Option<usize>,
) -> Option<usize> {
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    let mut at = skip_space(bytes, at + 1);
    if bytes.get(at) == Some(&b'}') {
        return Some(at + 1);
    }
    loop {
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let end = string_end(bytes, at + 1)?;
        let key = &bytes[at + 1..end];
        let colon = skip_space(bytes, end + 1);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        at = skip_space(bytes, member(key, skip_space(bytes, colon + 1))?);
        match bytes.get(at)? {
            b',' => at = skip_space(bytes, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Calls `item` with each value of a list. `list` includes its brackets. Stops at invalid JSON and
/// returns `None`.
pub(crate) fn items<'a>(list: &'a [u8], mut item: impl FnMut(Value<'a>)) -> Option<()> {
    let mut at = skip_space(list, 1);
    if list.get(at) == Some(&b']') {
        return Some(());
    }
    loop {
        let (found, end) = value(list, at)?;
        item(found);
        at = skip_space(list, end);
        match list.get(at)? {
            b',' => at = skip_space(list, at + 1),
            b']' => return Some(()),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A simple reference implementation that reads byte by byte.
    fn reference(bytes: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (0, false, false);
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    proptest! {
        #[test]
        fn container_ends_match_a_simple_scan(
            text in r#"\{("([a-z{}\[\]]|\\["\\]){0,40}"|[{}\[\], ]|[a-z]{1,70}){0,30}"#
        ) {
            prop_assert_eq!(container_end(text.as_bytes(), 0), reference(text.as_bytes()));
        }
    }

    #[test]
    fn scalars_are_those_of_json() {
        for (text, valid) in [
            ("0", true),
            ("-1.5e+3", true),
            ("10", true),
            ("01", false),
            ("-", false),
            ("1.", false),
            (".5", false),
            ("1e", false),
            ("true", true),
            ("tru", false),
            ("null", true),
            ("nul1", false),
        ] {
            assert_eq!(value(text.as_bytes(), 0).is_some(), valid, "{text}");
        }
    }
}
