//! A flat list of the values in a JSON text, in their order.

use std::borrow::Cow;
use std::ops::Range;

use super::survey::{MAX_DEPTH, number_length};
use crate::decode::ambiguity::{Ambiguities, Ambiguity};
use crate::escape::simple;

/// The index of a value.
pub(super) type Node = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// The start of the text; of a string without its quote. Not used for containers.
    start: u32,
    end: u32,
    /// The first value that is not contained in this one.
    next: Node,
}

#[derive(Debug)]
pub(super) struct Tape<'b> {
    text: &'b [u8],
    entries: Vec<Entry>,
    pub(super) ambiguities: Ambiguities,
}

/// Parses a text that must be one JSON value, like Go's scanner.
pub(super) fn parse(text: &[u8]) -> Result<Tape<'_>, &'static str> {
    if u32::try_from(text.len()).is_err() {
        return Err("the body is too long");
    }
    let mut tape = Tape { text, entries: Vec::new(), ambiguities: Ambiguities::default() };
    if str::from_utf8(text).is_err() {
        tape.ambiguities.insert(Ambiguity::InvalidUtf8);
    }
    let mut open: Vec<Node> = Vec::new();
    let mut at = 0;
    loop {
        at = space(text, at);
        let id = tape.entries.len() as Node;
        let (kind, range) = match text.get(at).ok_or(END)? {
            b'{' => (Kind::Object, at..at + 1),
            b'[' => (Kind::Array, at..at + 1),
            b'"' => (Kind::String, tape.string(at)?),
            b't' => (Kind::True, literal(text, at, b"true")?),
            b'f' => (Kind::False, literal(text, at, b"false")?),
            b'n' => (Kind::Null, literal(text, at, b"null")?),
            b'-' | b'0'..=b'9' => {
                let length = number_length(&text[at..]).ok_or("not JSON: invalid number")?;
                (Kind::Number, at..at + length)
            }
            _ => return Err("not JSON: unexpected character"),
        };
        at = range.end + usize::from(kind == Kind::String);
        tape.push(kind, range);
        if matches!(kind, Kind::Object | Kind::Array) {
            if open.len() == MAX_DEPTH {
                return Err("not JSON: more than 10000 levels");
            }
            open.push(id);
            at = space(text, at);
            let close = if kind == Kind::Object { b'}' } else { b']' };
            if text.get(at) != Some(&close) {
                if kind == Kind::Object {
                    at = tape.key(at)?;
                }
                continue;
            }
            tape.close(open.pop());
            at += 1;
        }
        loop {
            at = space(text, at);
            let Some(&container) = open.last() else {
                return if at == text.len() {
                    Ok(tape)
                } else {
                    Err("not JSON: unexpected data after the value")
                };
            };
            let is_object = tape.entries[container as usize].kind == Kind::Object;
            match (text.get(at).ok_or(END)?, is_object) {
                (b',', true) => {
                    at = tape.key(space(text, at + 1))?;
                    break;
                }
                (b',', false) => {
                    at += 1;
                    break;
                }
                (b'}', true) | (b']', false) => {
                    tape.close(open.pop());
                    at += 1;
                }
                _ => return Err("not JSON: unexpected character"),
            }
        }
    }
}

const END: &str = "not JSON: unexpected end";

fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

fn literal(text: &[u8], at: usize, word: &[u8]) -> Result<Range<usize>, &'static str> {
    let end = at + word.len();
    if text.get(at..end) == Some(word) {
        Ok(at..end)
    } else {
        Err("not JSON: unexpected character")
    }
}

impl<'b> Tape<'b> {
    fn push(&mut self, kind: Kind, range: Range<usize>) {
        let next = self.entries.len() as Node + 1;
        let (start, end) = (range.start as u32, range.end as u32);
        self.entries.push(Entry { kind, start, end, next });
    }

    fn close(&mut self, container: Option<Node>) {
        let next = self.entries.len() as Node;
        if let Some(container) = container {
            self.entries[container as usize].next = next;
        }
    }

    /// Reads a key and its colon.
    fn key(&mut self, at: usize) -> Result<usize, &'static str> {
        if self.text.get(at).ok_or(END)? != &b'"' {
            return Err("not JSON: unexpected character");
        }
        let range = self.string(at)?;
        let at = space(self.text, range.end + 1);
        self.push(Kind::String, range);
        match self.text.get(at).ok_or(END)? {
            b':' => Ok(at + 1),
            _ => Err("not JSON: unexpected character"),
        }
    }

    /// Returns the content of the string that begins at `at`.
    fn string(&mut self, at: usize) -> Result<Range<usize>, &'static str> {
        let start = at + 1;
        let mut at = start;
        loop {
            match self.text.get(at).ok_or(END)? {
                b'"' => return Ok(start..at),
                b'\\' => match self.text.get(at + 1).ok_or(END)? {
                    b'u' => {
                        let digits = self.text.get(at + 2..at + 6).ok_or(END)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return Err("not JSON: unexpected character");
                        }
                        at += 6;
                    }
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                    _ => return Err("not JSON: unexpected character"),
                },
                0..=0x1f => return Err("not JSON: unexpected character"),
                _ => at += 1,
            }
        }
    }

    pub(super) fn kind(&self, node: Node) -> Kind {
        self.entries[node as usize].kind
    }

    /// Returns the text of a value; of a string without its quotes.
    pub(super) fn raw(&self, node: Node) -> &'b [u8] {
        let Entry { start, end, .. } = self.entries[node as usize];
        &self.text[start as usize..end as usize]
    }

    /// Returns the decoded text of a string, and whether an unpaired surrogate was replaced.
    pub(super) fn text(&self, node: Node) -> (Cow<'b, [u8]>, bool) {
        unquote(self.raw(node))
    }

    /// Returns the first value contained in this one, or the value after it.
    pub(super) fn first(&self, node: Node) -> Node {
        node + 1
    }

    /// Returns the value after this one and everything it contains.
    pub(super) fn next(&self, node: Node) -> Node {
        self.entries[node as usize].next
    }

    /// Iterates over the elements of an array, or the keys and values of an object alternately.
    pub(super) fn children(&self, node: Node) -> impl Iterator<Item = Node> + '_ {
        let end = self.next(node);
        let mut at = self.first(node);
        std::iter::from_fn(move || {
            let child = at;
            (child < end).then(|| {
                at = self.next(child);
                child
            })
        })
    }

    /// Iterates over the keys and values of an object.
    pub(super) fn members(&self, node: Node) -> impl Iterator<Item = (Node, Node)> + '_ {
        let mut children = self.children(node);
        std::iter::from_fn(move || Some((children.next()?, children.next()?)))
    }
}

/// Decodes a string like Go: unpaired surrogates and bytes that are not UTF-8 become U+FFFD.
fn unquote(raw: &[u8]) -> (Cow<'_, [u8]>, bool) {
    if !raw.contains(&b'\\') {
        return (valid_utf8(raw), false);
    }
    let (mut text, mut replaced) = (Vec::with_capacity(raw.len()), false);
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'\\' {
            text.push(byte);
            at += 1;
            continue;
        }
        let escape = raw.get(at + 1).copied().unwrap_or_default();
        if escape != b'u' {
            at += 2;
            text.push(simple(escape));
            continue;
        }
        let unit = |at: usize| -> Option<u32> {
            let digits = raw.get(at..at + 6)?.strip_prefix(b"\\u")?;
            u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
        };
        let mut value = unit(at).unwrap_or(0xfffd);
        at += 6;
        if let (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) = (value, unit(at)) {
            value = 0x1_0000 + ((value - 0xd800) << 10) + (low - 0xdc00);
            at += 6;
        }
        let character = char::from_u32(value);
        replaced |= character.is_none();
        let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    (Cow::Owned(valid_utf8(&text).into_owned()), replaced)
}

/// Returns the text with U+FFFD for each byte that is not UTF-8.
pub(crate) fn valid_utf8(text: &[u8]) -> Cow<'_, [u8]> {
    if str::from_utf8(text).is_ok() {
        return Cow::Borrowed(text);
    }
    let mut valid = Vec::with_capacity(text.len() + 8);
    for chunk in text.utf8_chunks() {
        valid.extend_from_slice(chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            valid.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    Cow::Owned(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_go_reads_them() {
        for (raw, expected, replaced) in [
            (&b"plain"[..], "plain", false),
            (br#"\"\\\/\b\f\n\r\t\u00e9"#, "\"\\/\x08\x0c\n\r\t\u{e9}", false),
            (br"\ud83d\ude00", "\u{1f600}", false),
            (br"\ud83dx", "\u{fffd}x", true),
            (br"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}", true),
            (br"\ude00", "\u{fffd}", true),
            (b"a\xff\xfeb", "a\u{fffd}\u{fffd}b", false),
            (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}", false),
        ] {
            let (text, was_replaced) = unquote(raw);
            assert_eq!((&*text, was_replaced), (expected.as_bytes(), replaced));
        }
    }

    proptest::proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts(text in "[\\[\\]{}\",:0-9ntrue\\\\ .+-]{0,40}") {
            let valid = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            proptest::prop_assert_eq!(parse(text.as_bytes()).is_ok(), valid, "{}", text);
        }
    }
}
