//! Finds the name of an object in JSON that arrives in pieces.

use super::{Created, Lookup, is_object};

/// Longer strings are neither a kind nor a name.
const LONGEST: usize = 1 << 10;

/// Reads members until the name is known: `kind` of the object, `name` and `generateName` of its
/// `metadata`. kube-apiserver writes the members of its own types in their order, `name` first and
/// `generateName` right after it, and those of custom resources sorted.
#[derive(Default)]
pub(super) struct Scanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Outside deeper members: the next string is a key.
    at_key: bool,
    /// The current string, if its content is needed.
    text: Option<Vec<u8>>,
    key: Key,
    in_metadata: bool,
    has_name: bool,
    kind: String,
    created: Created,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Key {
    Kind,
    Metadata,
    Name,
    GenerateName,
    #[default]
    Other,
}

impl Scanner {
    /// Takes the next piece.
    pub(super) fn look(&mut self, piece: &[u8]) -> Lookup {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            if self.in_string {
                at = self.string(piece, at);
                if !self.in_string && self.end_string() {
                    return self.result();
                }
                continue;
            }
            at += 1;
            if self.depth == 0 && byte != b'{' {
                match byte.is_ascii_whitespace() {
                    true => continue,
                    false => return Lookup::Nothing,
                }
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    let wanted = self.at_key || self.key != Key::Other && self.key != Key::Metadata;
                    let here = self.depth == 1 || self.depth == 2 && self.in_metadata;
                    self.text = (here && wanted).then(Vec::new);
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    let is_metadata = self.depth == 2 && self.key == Key::Metadata && byte == b'{';
                    self.in_metadata |= is_metadata;
                    self.at_key = byte == b'{' && (self.depth == 1 || is_metadata);
                    self.key = Key::Other;
                }
                b'}' | b']' => {
                    if self.depth == 2 && self.in_metadata {
                        return self.result();
                    }
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return self.result();
                    }
                }
                b',' if self.depth == 1 || self.depth == 2 && self.in_metadata => {
                    self.at_key = true;
                    self.key = Key::Other;
                }
                _ => {}
            }
        }
        Lookup::More
    }

    /// Continues a string. Returns the index after it, or the end of the piece.
    fn string(&mut self, piece: &[u8], mut at: usize) -> usize {
        let start = at;
        loop {
            if self.escaped && at < piece.len() {
                self.escaped = false;
                at += 1;
            }
            let rest = piece.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'"', b'\\', rest) else {
                self.keep(&piece[start..]);
                return piece.len();
            };
            at += found + 1;
            if piece[at - 1] == b'"' {
                self.keep(&piece[start..at - 1]);
                self.in_string = false;
                return at;
            }
            self.escaped = true;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(text) = &mut self.text {
            let room = LONGEST.saturating_sub(text.len());
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Handles the end of a string. Returns whether the name is known.
    fn end_string(&mut self) -> bool {
        let Some(text) = self.text.take() else { return false };
        if self.at_key {
            self.at_key = false;
            self.key = match (self.depth, text.as_slice()) {
                (1, b"kind") => Key::Kind,
                (1, b"metadata") => Key::Metadata,
                (2, b"name") => Key::Name,
                (2, b"generateName") => Key::GenerateName,
                _ => Key::Other,
            };
            return self.has_name && self.depth == 2 && self.key != Key::GenerateName;
        }
        let value = unescaped(text);
        match self.key {
            Key::Kind => self.kind = value,
            Key::Name => {
                self.created.name = value;
                self.has_name = true;
                return !self.created.generate_name.is_empty();
            }
            Key::GenerateName => {
                self.created.generate_name = value;
                return self.has_name;
            }
            Key::Metadata | Key::Other => {}
        }
        false
    }

    fn result(&mut self) -> Lookup {
        match is_object(&self.kind) {
            true => Lookup::Found(std::mem::take(&mut self.created)),
            false => Lookup::Nothing,
        }
    }
}

/// A fast path for the usual case: an object of a built-in type with its name in the first piece.
pub(super) fn of_built_in(piece: &[u8]) -> Option<Created> {
    fn text<'p>(rest: &mut &'p [u8], before: &[u8]) -> Option<&'p [u8]> {
        let after = rest.strip_prefix(before)?;
        let (text, after) = after.split_at_checked(memchr::memchr(b'"', after)?)?;
        *rest = &after[1..];
        (!text.contains(&b'\\')).then_some(text)
    }
    let mut rest = piece;
    let kind = text(&mut rest, b"{\"kind\":\"")?;
    text(&mut rest, b",\"apiVersion\":\"")?;
    let name = text(&mut rest, b",\"metadata\":{\"name\":\"")?;
    if !is_object(std::str::from_utf8(kind).ok()?) {
        return None;
    }
    let generate_name = text(&mut rest, b",\"generateName\":\"").unwrap_or_default();
    // The rest of the piece must show whether there is a `generateName`.
    let certain = !generate_name.is_empty()
        || rest.first() == Some(&b'}')
        || rest.get(..3).is_some_and(|next| next != b",\"g");
    let text = |bytes: &[u8]| Some(std::str::from_utf8(bytes).ok()?.to_owned());
    certain.then_some(Created { name: text(name)?, generate_name: text(generate_name)? })
}

fn unescaped(text: Vec<u8>) -> String {
    if text.contains(&b'\\') {
        let quoted = [&b"\""[..], &text, b"\""].concat();
        if let Ok(text) = serde_json::from_slice(&quoted) {
            return text;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
