//! A JSON string as it is in the log, decoded only when its value is needed.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;

use super::bits;

/// The content of a JSON string, still escaped. Empty if the event does not have the member.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Text<'a>(Option<&'a [u8]>);

impl<'a> Text<'a> {
    pub(crate) fn new(escaped: &'a [u8]) -> Text<'a> {
        Text(Some(escaped))
    }

    /// Returns whether the event has the member and it is not empty.
    pub fn is_some(self) -> bool {
        self.0.is_some_and(|text| !text.is_empty())
    }

    /// Returns whether the event has the member, even if it is empty.
    pub fn is_present(self) -> bool {
        self.0.is_some()
    }

    /// Returns the bytes between the quotes, as they are in the log.
    pub fn escaped(self) -> &'a [u8] {
        self.0.unwrap_or_default()
    }

    /// Returns the decoded bytes. They are UTF-8 unless the writer of the log put other bytes into
    /// a string.
    #[inline]
    pub fn bytes(self) -> Cow<'a, [u8]> {
        let escaped = self.escaped();
        match first_backslash(escaped) {
            None => Cow::Borrowed(escaped),
            Some(at) => Cow::Owned(unescape(escaped, at)),
        }
    }

    /// Returns the decoded text. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(self) -> Cow<'a, str> {
        match self.bytes() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Appends the decoded bytes to `out`.
    #[inline]
    pub fn push_to(self, out: &mut Vec<u8>) {
        let escaped = self.escaped();
        match first_backslash(escaped) {
            None => out.extend_from_slice(escaped),
            Some(at) => out.extend_from_slice(&unescape(escaped, at)),
        }
    }

    /// Returns whether the decoded bytes equal `expected`.
    #[inline(always)]
    pub fn is(self, expected: &[u8]) -> bool {
        self.escaped() == expected && !expected.contains(&b'\\')
            || first_backslash(self.escaped()).is_some() && *self.bytes() == *expected
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map(|_| self.decode()).fmt(f)
    }
}

/// Returns the index of the first backslash. Most strings are so short that a function call would
/// take longer than the search.
#[inline(always)]
fn first_backslash(text: &[u8]) -> Option<usize> {
    let (blocks, rest) = text.as_chunks::<16>();
    let found = match text.last_chunk::<16>() {
        Some(last) if blocks.len() <= 4 => blocks.iter().chain([last]).any(bits::has_backslash),
        Some(_) => true,
        None => rest.contains(&b'\\'),
    };
    if found { memchr(b'\\', text) } else { None }
}

/// Decodes a string. `at` is the index of its first backslash.
#[cold]
fn unescape(escaped: &[u8], mut at: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    loop {
        out.extend_from_slice(&rest[..at]);
        let Some(escape) = rest.get(at + 1) else { return out };
        rest = &rest[at + 2..];
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (char, length) = code_point(rest);
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[length..];
            }
            other => out.push(*other),
        }
        match memchr(b'\\', rest) {
            Some(next) => at = next,
            None => {
                out.extend_from_slice(rest);
                return out;
            }
        }
    }
}

/// Returns the character after `\u`, and the number of bytes that it takes. Unpaired surrogates
/// become U+FFFD, like in Go.
fn code_point(rest: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(rest.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 0) };
    if (0xD800..0xDC00).contains(&first)
        && rest.get(4..6) == Some(b"\\u")
        && let Some(second @ 0xDC00..0xE000) = unit(6)
    {
        let point = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_decode_as_with_serde_json(text: String, ascii: bool) {
            let mut json = serde_json::to_string(&text).unwrap();
            if ascii {
                let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                json = format!("\"{units}\"");
            }
            let decoded = Text::new(&json.as_bytes()[1..json.len() - 1]);
            prop_assert_eq!(decoded.decode(), text.as_str());
            prop_assert!(decoded.is(text.as_bytes()));
            let mut longer = text.clone().into_bytes();
            longer.push(b'x');
            prop_assert!(!decoded.is(&longer));
        }

        #[test]
        fn broken_escapes_do_not_panic(bytes: Vec<u8>) {
            let _ = Text::new(&bytes).decode();
        }
    }
}
