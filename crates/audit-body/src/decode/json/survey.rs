//! A fast pass over a JSON object that checks whether every decoder reads it in the same way.
//!
//! This is so for nearly all bodies, which are then recorded unchanged. The others are decoded with
//! [`super::tape`].

use super::names::{Names, names};
use super::words::{self, string_end};
use k8s_audit::event::ObjectMetadata;

/// The maximum nesting of containers in Go's scanner.
pub(super) const MAX_DEPTH: usize = 10_000;

/// Longer numbers, and those with an exponent, may be rounded when they are decoded.
const MAX_NUMBER: usize = 15;

/// Up to this number of keys is compared with all previous ones; more are sorted.
const FEW_KEYS: usize = 32;

/// Additional constructs to detect in the bodies of a resource.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints {
    /// The object must have `kind` and `apiVersion`.
    pub(super) object: bool,
    /// Detect every `null`, except for that of a `creationTimestamp`.
    pub(super) nulls: bool,
    /// A member of the object with base64, whose spelling decoders do not preserve.
    pub(super) binary: Option<&'static [u8]>,
    /// Any member may contain base64.
    pub(super) binary_anywhere: bool,
}

/// The position in the object.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Elsewhere,
    Kind,
    ApiVersion,
    Metadata,
    Name,
    Namespace,
    Uid,
    ResourceVersion,
    CreationTimestamp,
}

/// The kind of container around a value.
#[derive(Clone, Copy, PartialEq)]
enum Container {
    /// There is none: the value is the whole text.
    None,
    Object,
    Array,
}

struct Level {
    container: Container,
    /// Whether it is `metadata` of the object.
    is_metadata: bool,
    /// The index of its first key in `keys`.
    keys: usize,
    /// A bit for each of its keys; a key whose bit is not set yet cannot be a duplicate.
    seen: u64,
}

struct Survey<'b> {
    text: &'b [u8],
    is_ascii: bool,
    hints: Hints,
    /// The names of which keys must not be variants.
    names: Option<&'static Names>,
    /// The containers around the current one, outermost first.
    outer: Vec<Level>,
    /// The fingerprints of the keys of all open objects.
    keys: Vec<u64>,
    metadata: [&'b [u8]; 4],
    has_kind: bool,
    has_version: bool,
}

/// Returns the identity of the object in `text`; `None` if the text must be decoded completely,
/// because it is not valid JSON or contains a construct that decoders may read differently.
pub(super) fn survey(text: &[u8], hints: Hints) -> Option<ObjectMetadata> {
    let is_ascii = text.is_ascii();
    if !is_ascii {
        str::from_utf8(text).ok()?;
    }
    let mut survey = Survey {
        text,
        is_ascii,
        hints,
        names: hints.object.then(names),
        outer: Vec::with_capacity(8),
        keys: Vec::with_capacity(64),
        metadata: [b""; 4],
        has_kind: false,
        has_version: false,
    };
    survey.run()?;
    if hints.object && !(survey.has_kind && survey.has_version) {
        return None;
    }
    // The whole text is UTF-8, so the text between two of its quotes is.
    let string = |at: usize| str::from_utf8(survey.metadata[at]).unwrap_or_default().to_owned();
    Some(ObjectMetadata {
        name: string(0),
        namespace: string(1),
        uid: string(2),
        resource_version: string(3),
    })
}

impl<'b> Survey<'b> {
    fn run(&mut self) -> Option<()> {
        let text = self.text;
        let mut level = Level { container: Container::None, is_metadata: false, keys: 0, seen: 0 };
        let mut at = space(text, 0);
        if self.hints.object && text.get(at) != Some(&b'{') {
            return None;
        }
        loop {
            let mut place = Place::Elsewhere;
            if level.container == Container::Object {
                (at, place) = self.key(at, &mut level)?;
            }
            match *text.get(at)? {
                b'"' => {
                    let (end, escaped) = string(text, at + 1, !self.hints.binary_anywhere)?;
                    if !matches!(place, Place::Elsewhere | Place::CreationTimestamp) {
                        self.string_value(place, &text[at + 1..end], escaped)?;
                    }
                    at = end + 1;
                    // The usual case in compact JSON.
                    if text.get(at..at + 2) == Some(b",\"") && level.container == Container::Object
                    {
                        at += 1;
                        continue;
                    }
                }
                open @ (b'{' | b'[') => {
                    let is_metadata = place == Place::Metadata;
                    let is_plain = place == Place::Elsewhere || is_metadata && open == b'{';
                    if !is_plain || self.outer.len() == MAX_DEPTH {
                        return None;
                    }
                    let container = if open == b'{' { Container::Object } else { Container::Array };
                    let keys = self.keys.len();
                    let inner = Level { container, is_metadata, keys, seen: 0 };
                    self.outer.push(std::mem::replace(&mut level, inner));
                    at = space(text, at + 1);
                    let close = if open == b'{' { b'}' } else { b']' };
                    if text.get(at) != Some(&close) {
                        continue;
                    }
                }
                b'n' if place == Place::CreationTimestamp
                    || (place == Place::Elsewhere && !self.hints.nulls) =>
                {
                    at += literal(&text[at..], b"null")?;
                }
                b't' if place == Place::Elsewhere => at += literal(&text[at..], b"true")?,
                b'f' if place == Place::Elsewhere => at += literal(&text[at..], b"false")?,
                b'-' | b'0'..=b'9' if place == Place::Elsewhere => at += number(&text[at..])?,
                _ => return None,
            }
            // After a value.
            loop {
                at = space(text, at);
                if level.container == Container::None {
                    return (at == text.len()).then_some(());
                }
                match (text.get(at)?, level.container) {
                    (b',', _) => {
                        at = space(text, at + 1);
                        break;
                    }
                    (b'}', Container::Object) | (b']', Container::Array) => {
                        at += 1;
                        level = self.close(&level)?;
                    }
                    _ => return None,
                }
            }
        }
    }

    /// Reads the key at `at` with its colon. Returns the index of the value, and the position of
    /// the value in the object.
    #[inline]
    fn key(&mut self, at: usize, level: &mut Level) -> Option<(usize, Place)> {
        let text = self.text;
        if text.get(at) != Some(&b'"') {
            return None;
        }
        let start = at + 1;
        let (end, folded) = words::key(text, start);
        if text.get(end) != Some(&b'"') {
            return None;
        }
        let key = &text[start..end];
        let bit = 1 << (folded >> 58);
        if level.seen & bit != 0 {
            let others = &self.keys[level.keys..];
            if others.len() < FEW_KEYS && others.contains(&folded) {
                return None;
            }
        }
        level.seen |= bit;
        if let Some(names) = self.names
            && names.has_variant(key, folded, self.is_ascii || key.is_ascii())
        {
            return None;
        }
        self.keys.push(folded);
        let at = match text.get(end + 1..end + 3) {
            Some([b':', next]) if *next > b' ' => end + 2,
            _ => {
                let colon = space(text, end + 1);
                if text.get(colon) != Some(&b':') {
                    return None;
                }
                space(text, colon + 1)
            }
        };
        let place = match self.outer.len() {
            1 => match key {
                b"kind" => Place::Kind,
                b"apiVersion" => Place::ApiVersion,
                b"metadata" => Place::Metadata,
                _ if self.hints.binary == Some(key) => return None,
                _ => Place::Elsewhere,
            },
            2 if level.is_metadata => match key {
                b"name" => Place::Name,
                b"namespace" => Place::Namespace,
                b"uid" => Place::Uid,
                b"resourceVersion" => Place::ResourceVersion,
                b"creationTimestamp" => Place::CreationTimestamp,
                _ => Place::Elsewhere,
            },
            _ if key == b"creationTimestamp" => Place::CreationTimestamp,
            _ => Place::Elsewhere,
        };
        Some((at, place))
    }

    /// Handles a string that belongs to the identity of the object.
    fn string_value(&mut self, place: Place, text: &'b [u8], escaped: bool) -> Option<()> {
        match place {
            Place::Metadata => return None,
            Place::Elsewhere | Place::CreationTimestamp => {}
            Place::Kind => self.has_kind = !text.is_empty(),
            Place::ApiVersion => self.has_version = !text.is_empty(),
            Place::Name => self.metadata[0] = text,
            Place::Namespace => self.metadata[1] = text,
            Place::Uid => self.metadata[2] = text,
            Place::ResourceVersion => self.metadata[3] = text,
        }
        (!escaped).then_some(())
    }

    /// Leaves a container, and returns the one around it; `None` if the container has duplicate
    /// keys.
    fn close(&mut self, level: &Level) -> Option<Level> {
        let keys = &mut self.keys[level.keys..];
        if keys.len() > FEW_KEYS {
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return None;
            }
        }
        self.keys.truncate(level.keys);
        self.outer.pop()
    }
}

/// Skips the string whose first character is at `at`. Returns the index of its closing quote, and
/// whether it has escapes; `None` if it is invalid. `line_breaks`: escaped line breaks are
/// accepted.
// Not inlined, so that its loop can use all registers.
#[inline(never)]
fn string(text: &[u8], at: usize, line_breaks: bool) -> Option<(usize, bool)> {
    let mut end = string_end(text, at);
    let mut escaped = false;
    loop {
        match text.get(end..end + 2) {
            Some([b'"', _]) => return Some((end, escaped)),
            Some([b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b't']) => {}
            Some([b'\\', b'n' | b'r']) if line_breaks => {}
            Some([b'\\', b'u']) => end += unicode_escape(&text[end + 2..])?,
            // The string may end with the text.
            _ => return (text.get(end) == Some(&b'"')).then_some((end, escaped)),
        }
        escaped = true;
        end = string_end(text, end + 2);
    }
}

/// Returns the length of the digits at the start of `text`; `None` if they are invalid or encode an
/// unpaired surrogate.
fn unicode_escape(text: &[u8]) -> Option<usize> {
    let digits: &[u8; 4] = text.first_chunk()?;
    let is_surrogate = matches!(digits[0], b'd' | b'D') && !matches!(digits[1], b'0'..=b'7');
    let is_plain = !is_surrogate && digits.iter().all(u8::is_ascii_hexdigit);
    is_plain.then_some(digits.len())
}

/// Returns the index of the first character at or after `at` that is not white space.
#[inline]
fn space(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(byte) if *byte <= b' ' => more_space(text, at),
        _ => at,
    }
}

#[inline(never)]
fn more_space(text: &[u8], at: usize) -> usize {
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    at + text[at..].iter().take_while(is_space).count()
}

fn literal(text: &[u8], literal: &[u8]) -> Option<usize> {
    text.starts_with(literal).then_some(literal.len())
}

/// Returns the length of a number that every decoder reads in the same way.
fn number(text: &[u8]) -> Option<usize> {
    let length = number_length(text)?;
    let number = &text[..length];
    let has_exponent = number.iter().any(|byte| byte | 32 == b'e');
    // Go reads -0 as the integer 0, other decoders as a float.
    (length <= MAX_NUMBER && !has_exponent && number != b"-0").then_some(length)
}

/// Returns the length of the number at the start of `text` by Go's grammar; `None` if there is no
/// number.
pub(super) fn number_length(text: &[u8]) -> Option<usize> {
    let digits =
        |at: usize| text[at.min(text.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Hints = Hints { object: true, nulls: true, binary: None, binary_anywhere: false };

    fn name(text: &str) -> Option<String> {
        survey(text.as_bytes(), OBJECT).map(|metadata| metadata.name)
    }

    #[test]
    fn plain_objects_are_surveyed() {
        let meta = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"#;
        for (rest, expected) in [
            (r#""name":"a"},"spec":{"name":"b","x":[1,{"y":"\u003c"}]}}"#, Some("a")),
            (r#""labels":{"name":"l"},"name":"a","creationTimestamp":null}} "#, Some("a")),
            (r#"},"metadata2":{"name":"b"}}"#, Some("")),
            (r#""name":"a","name":"b"}}"#, None),
            (r#""name":null}}"#, None),
            (r#""name":"a"},"kind":"x"}"#, None),
            (r#""name":"a"},"Kind":"x"}"#, None),
            (r#""name":"a"},"spec":{"HOSTNETWORK":true}}"#, None),
            (r#""name":"a"},"data":{"A":1,"a":2}}"#, None),
            (r#""labels":{"app":"x"}},"data":{"A":1,"b":2}}"#, Some("")),
            (r#""name":"\u0061"}}"#, None),
            (r#""name":"a"},"n":12345678901234567890}"#, None),
            (r#""name":"a"},"n":"\ud800"}"#, None),
            (r#""name":"a"},"n":-0}"#, None),
            (r#""name":"a"}}x"#, None),
            (r#""name":"a"},"s":"	"}"#, None),
            (r#""name":"a"},}"#, None),
            (r#""name":"a"}"#, None),
        ] {
            assert_eq!(name(&format!("{meta}{rest}")).as_deref(), expected, "{rest}");
        }
        assert_eq!(name("{\"kind\":\"x\",\"metadata\":{}}"), None);
        assert_eq!(name("[]"), None);
    }

    #[test]
    fn many_keys_are_compared_too() {
        let keys: Vec<String> = (0..40).map(|key| format!("\"k{key}\":1")).collect();
        let object =
            |keys: &str| survey(format!("{{{keys}}}").as_bytes(), Hints::default()).is_some();
        assert!(object(&keys.join(",")));
        assert!(!object(&format!("{},\"k3\":2", keys.join(","))));
    }

    proptest::proptest! {
        #[test]
        fn what_is_surveyed_is_valid(text in "[\\[\\]{}\",:0-9a-z\\\\ .+-]{0,40}") {
            if survey(text.as_bytes(), Hints::default()).is_some() {
                let valid = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
                proptest::prop_assert!(valid, "{}", text);
            }
        }
    }
}
