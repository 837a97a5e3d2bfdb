//! One quick pass over a JSON object that checks whether every decoder reads it alike.
//!
//! Nearly all bodies are such, and are recorded as they are. For the others there is
//! [`super::tape`].

use super::names;
use crate::audit::body::scan::plain_end;
use crate::audit::event::ObjectMetadata;

/// As deep as Go's scanner lets containers be in each other.
pub(super) const MAX_DEPTH: usize = 10_000;

/// Numbers of more characters, and those with an exponent, may be rounded when they are decoded.
const MAX_NUMBER: usize = 15;

/// So many keys are compared one by one; more are sorted.
const FEW_KEYS: usize = 16;

/// What else is odd in the bodies of a resource.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints {
    /// The object has to have `kind` and `apiVersion`.
    pub(super) object: bool,
    /// Any `null` counts as odd, but for that of a `creationTimestamp`.
    pub(super) nulls: bool,
    /// A member of the object with base64 in it, whose spelling is not kept.
    pub(super) binary: Option<&'static [u8]>,
    /// There is base64 anywhere in it.
    pub(super) binary_anywhere: bool,
}

/// Where in the object the pass is.
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

struct Level {
    is_object: bool,
    /// Where its keys begin.
    keys: usize,
}

struct Survey<'b> {
    text: &'b [u8],
    at: usize,
    hints: Hints,
    levels: Vec<Level>,
    /// The fingerprints of the keys of all open objects.
    keys: Vec<u64>,
    metadata: [&'b [u8]; 4],
    has_kind: bool,
    has_version: bool,
}

/// Returns the identity of the object that is all of `text`; `None` if it has to be looked at
/// closely: it is not valid JSON, or has something that decoders may read differently.
pub(super) fn survey(text: &[u8], hints: Hints) -> Option<ObjectMetadata> {
    let text = str::from_utf8(text).ok()?.as_bytes();
    let mut survey = Survey {
        text,
        at: 0,
        hints,
        levels: Vec::with_capacity(16),
        keys: Vec::with_capacity(64),
        metadata: [b""; 4],
        has_kind: false,
        has_version: false,
    };
    survey.run()?;
    if hints.object && !(survey.has_kind && survey.has_version) {
        return None;
    }
    let string = |at: usize| String::from_utf8_lossy(survey.metadata[at]).into_owned();
    Some(ObjectMetadata {
        name: string(0),
        namespace: string(1),
        uid: string(2),
        resource_version: string(3),
    })
}

impl<'b> Survey<'b> {
    fn run(&mut self) -> Option<()> {
        let mut place = Place::Elsewhere;
        loop {
            self.space();
            // A value.
            let byte = *self.text.get(self.at)?;
            if self.levels.is_empty() && self.hints.object && byte != b'{' {
                return None;
            }
            match byte {
                b'{' => {
                    let is_plain = matches!(place, Place::Elsewhere | Place::Metadata);
                    if !is_plain || self.levels.len() == MAX_DEPTH {
                        return None;
                    }
                    self.at += 1;
                    self.levels.push(Level { is_object: true, keys: self.keys.len() });
                    self.space();
                    if self.text.get(self.at) != Some(&b'}') {
                        let within_metadata = place == Place::Metadata;
                        place = self.key(within_metadata)?;
                        continue;
                    }
                    self.close();
                }
                b'[' => {
                    if place != Place::Elsewhere || self.levels.len() == MAX_DEPTH {
                        return None;
                    }
                    self.at += 1;
                    self.levels.push(Level { is_object: false, keys: self.keys.len() });
                    self.space();
                    if self.text.get(self.at) != Some(&b']') {
                        continue;
                    }
                    self.close();
                }
                b'"' => self.string_value(place)?,
                b'n' if place == Place::CreationTimestamp
                    || (place == Place::Elsewhere && !self.hints.nulls) =>
                {
                    self.literal(b"null")?;
                }
                b't' if place == Place::Elsewhere => self.literal(b"true")?,
                b'f' if place == Place::Elsewhere => self.literal(b"false")?,
                b'-' | b'0'..=b'9' if place == Place::Elsewhere => self.number()?,
                _ => return None,
            }
            // After a value.
            loop {
                self.space();
                let Some(level) = self.levels.last() else {
                    return (self.at == self.text.len()).then_some(());
                };
                match (self.text.get(self.at)?, level.is_object) {
                    (b',', true) => {
                        self.at += 1;
                        self.space();
                        // Only the members of `metadata` are looked at, and they come one after
                        // the other; `key` knows by the level whether it is still in them.
                        let within_metadata = self.levels.len() == 2 && self.in_metadata();
                        place = self.key(within_metadata)?;
                        break;
                    }
                    (b',', false) => {
                        self.at += 1;
                        place = Place::Elsewhere;
                        break;
                    }
                    (b'}', true) | (b']', false) => self.close(),
                    _ => return None,
                }
            }
        }
    }

    /// Whether the key before this level, at the top, was `metadata`.
    fn in_metadata(&self) -> bool {
        let start = self.levels[1].keys;
        start > 0 && self.keys[start - 1] == fingerprint(b"metadata").folded
    }

    /// Reads a key with its colon, and returns where its value is.
    fn key(&mut self, within_metadata: bool) -> Option<Place> {
        if self.text.get(self.at) != Some(&b'"') {
            return None;
        }
        let start = self.at + 1;
        self.at = start;
        if self.string()? {
            return None;
        }
        let key = &self.text[start..self.at - 1];
        let first = self.levels.last().map_or(0, |level| level.keys);
        let print = fingerprint(key);
        let others = &self.keys[first..];
        if others.len() < FEW_KEYS && others.contains(&print.folded)
            || self.hints.object && names::is_variant(key, print)
        {
            return None;
        }
        self.keys.push(print.folded);
        self.space();
        if self.text.get(self.at) != Some(&b':') {
            return None;
        }
        self.at += 1;
        match self.levels.len() {
            1 => match key {
                b"kind" => Some(Place::Kind),
                b"apiVersion" => Some(Place::ApiVersion),
                b"metadata" => Some(Place::Metadata),
                _ if self.hints.binary == Some(key) => None,
                _ => Some(Place::Elsewhere),
            },
            2 if within_metadata => Some(match key {
                b"name" => Place::Name,
                b"namespace" => Place::Namespace,
                b"uid" => Place::Uid,
                b"resourceVersion" => Place::ResourceVersion,
                b"creationTimestamp" => Place::CreationTimestamp,
                _ => Place::Elsewhere,
            }),
            _ if key == b"creationTimestamp" => Some(Place::CreationTimestamp),
            _ => Some(Place::Elsewhere),
        }
    }

    fn string_value(&mut self, place: Place) -> Option<()> {
        let start = self.at + 1;
        self.at = start;
        let escaped = self.string()?;
        let text = &self.text[start..self.at - 1];
        let slot = match place {
            Place::Elsewhere | Place::CreationTimestamp => return Some(()),
            Place::Metadata => return None,
            Place::Kind => {
                self.has_kind = !text.is_empty();
                return (!escaped).then_some(());
            }
            Place::ApiVersion => {
                self.has_version = !text.is_empty();
                return (!escaped).then_some(());
            }
            Place::Name => 0,
            Place::Namespace => 1,
            Place::Uid => 2,
            Place::ResourceVersion => 3,
        };
        self.metadata[slot] = text;
        (!escaped).then_some(())
    }

    /// Passes over a string and its closing quote. Returns whether it has escapes.
    fn string(&mut self) -> Option<bool> {
        let mut escaped = false;
        loop {
            self.at = plain_end(self.text, self.at);
            match *self.text.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => {
                    escaped = true;
                    match *self.text.get(self.at + 1)? {
                        b'u' => {
                            let digits = self.text.get(self.at + 2..self.at + 6)?;
                            let is_surrogate = matches!(digits[0], b'd' | b'D')
                                && !matches!(digits[1], b'0'..=b'7');
                            if is_surrogate || !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 6;
                        }
                        b'n' | b'r' if self.hints.binary_anywhere => return None,
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(literal).then(|| self.at += literal.len())
    }

    fn number(&mut self) -> Option<()> {
        let length = number_length(&self.text[self.at..])?;
        let number = &self.text[self.at..self.at + length];
        let has_exponent = number.iter().any(|byte| byte | 32 == b'e');
        self.at += length;
        // Go reads -0 as the integer 0, others as a float.
        (length <= MAX_NUMBER && !has_exponent && number != b"-0").then_some(())
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn close(&mut self) {
        self.at += 1;
        let Some(level) = self.levels.pop() else { return };
        let keys = &mut self.keys[level.keys..];
        if keys.len() > FEW_KEYS {
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                // Nothing can follow this, so that the pass fails.
                self.at = usize::MAX / 2;
            }
        }
        self.keys.truncate(level.keys);
    }
}

/// The length of the number at the start of `text`, which follows Go's grammar; `None` if there is
/// none.
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

/// Two numbers for a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Print {
    /// Equal for equal keys, and hardly ever for others.
    pub(super) exact: u64,
    /// Equal also for keys that differ in the case of their letters.
    pub(super) folded: u64,
}

pub(super) fn fingerprint(key: &[u8]) -> Print {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    // The bit in which the cases of an ASCII letter differ.
    const CASE: u64 = 0x2020_2020_2020_2020;
    let mix = |print: u64, word: u64| (print ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (mut exact, mut folded) = (key.len() as u64, key.len() as u64);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.try_into().map_or(0, u64::from_le_bytes);
        (exact, folded) = (mix(exact, word), mix(folded, word | CASE));
    }
    let word = chunks.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let last = |print: u64, word: u64| (print ^ word).wrapping_mul(FACTOR);
    Print { exact: last(exact, word), folded: last(folded, word | CASE) }
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
