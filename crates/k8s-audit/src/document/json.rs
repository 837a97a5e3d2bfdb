//! Parses JSON into a [`Document`] like Go's decoder: invalid UTF-8 becomes U+FFFD, and the last of
//! duplicate keys wins.

use std::collections::HashMap;
use std::rc::Rc;

use super::tree::{Document, Duplicate, Entry, Node, Number, Position, SyntaxError, Value};

/// Maximum nesting depth. Far more than any object has, and safe for the stack.
const MAX_DEPTH: usize = 100;

/// Parses `text`, which must be a single value.
pub(super) fn parse(text: &[u8]) -> Result<Document, SyntaxError> {
    let mut reader =
        Reader { text, next: 0, line: 1, counted: 0, characters: 0, duplicates: Vec::new() };
    let root = reader.value(0)?;
    reader.skip_space();
    if reader.next < text.len() {
        return Err(reader.unexpected("after top-level value"));
    }
    Ok(Document { root, duplicates: reader.duplicates })
}

struct Reader<'t> {
    text: &'t [u8],
    next: usize,
    line: usize,
    /// The offset up to which the characters of this line were counted, and their number.
    counted: usize,
    characters: usize,
    duplicates: Vec<Duplicate>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        self.skip_space();
        let at = self.position();
        if depth > MAX_DEPTH {
            return Err(SyntaxError { at, message: "exceeded max depth".into(), help: None });
        }
        let start = self.next;
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?),
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return Err(self.unexpected("looking for beginning of value")),
        };
        let scalar = matches!(value, Value::Null | Value::Bool(_) | Value::Number(_));
        let written = &self.text[start..self.next];
        let plain = scalar.then(|| String::from_utf8_lossy(written).into());
        Ok(Node { at, value, plain })
    }

    fn object(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        self.next += 1;
        let mut entries: Vec<Entry> = Vec::new();
        let mut by_key: HashMap<Rc<str>, usize> = HashMap::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.next += 1;
            return Ok(Value::Map(entries.into()));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let key_at = self.position();
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.next += 1;
            let entry = Entry { key: key.clone(), key_at, node: self.value(depth + 1)? };
            if let Some(&index) = by_key.get(&key) {
                let first_at = entries[index].key_at;
                entries[index] = entry;
                self.duplicates.push(Duplicate { key, at: key_at, first_at });
            } else {
                by_key.insert(key, entries.len());
                entries.push(entry);
            }
            if !self.goes_on(b'}', "after object key:value pair")? {
                return Ok(Value::Map(entries.into()));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        self.next += 1;
        let mut elements = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.next += 1;
            return Ok(Value::List(elements.into()));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if !self.goes_on(b']', "after array element")? {
                return Ok(Value::List(elements.into()));
            }
        }
    }

    /// Returns whether a comma follows instead of `end`.
    fn goes_on(&mut self, end: u8, context: &str) -> Result<bool, SyntaxError> {
        self.skip_space();
        let more = match self.peek() {
            Some(b',') => true,
            Some(byte) if byte == end => false,
            _ => return Err(self.unexpected(context)),
        };
        self.next += 1;
        Ok(more)
    }

    fn string(&mut self) -> Result<Rc<str>, SyntaxError> {
        self.next += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.next += 1;
                    return Ok(String::from_utf8_lossy(&bytes).into());
                }
                Some(b'\\') => {
                    self.next += 1;
                    let character = self.escaped()?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(byte @ 0x20..) => {
                    bytes.push(byte);
                    self.next += 1;
                }
                _ => return Err(self.unexpected("in string literal")),
            }
        }
    }

    /// Parses the escape after a backslash. An unpaired surrogate is U+FFFD.
    fn escaped(&mut self) -> Result<char, SyntaxError> {
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.next += 1;
                let first = self.four_digits()?;
                let after_first = self.next;
                if (0xd800..0xdc00).contains(&first) && self.text[self.next..].starts_with(b"\\u") {
                    self.next += 2;
                    let second = self.four_digits()?;
                    if (0xdc00..0xe000).contains(&second) {
                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.next = after_first;
                }
                return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.next += 1;
        Ok(character)
    }

    fn four_digits(&mut self) -> Result<u32, SyntaxError> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("in \\u hexadecimal character escape"));
            };
            number = number * 16 + digit;
            self.next += 1;
        }
        Ok(number)
    }

    fn number(&mut self) -> Result<Number, SyntaxError> {
        let start = self.next;
        self.next += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.next += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.next += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.next += 1;
            self.next += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.some_digits("in exponent of numeric literal")?;
        }
        let text = String::from_utf8_lossy(&self.text[start..self.next]);
        // Numbers out of range do not matter, because no member is such a number.
        Ok(text
            .parse()
            .map_or_else(|_| Number::Float(text.parse().unwrap_or(f64::INFINITY)), Number::Integer))
    }

    fn some_digits(&mut self, context: &str) -> Result<(), SyntaxError> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.unexpected(context));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.next += 1;
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, SyntaxError> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.unexpected(&format!("in literal {word}")));
            }
            self.next += 1;
        }
        Ok(value)
    }

    fn skip_space(&mut self) {
        while let Some(space @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.next += 1;
            // Line feeds only occur between values.
            if space == b'\n' {
                self.line += 1;
                (self.counted, self.characters) = (self.next, 0);
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.next).copied()
    }

    /// Returns the position of the next byte.
    fn position(&mut self) -> Position {
        let since = &self.text[self.counted..self.next];
        self.characters += since.iter().filter(|b| **b & 0xc0 != 0x80).count();
        self.counted = self.next;
        Position { line: self.line, column: self.characters + 1 }
    }

    fn unexpected(&mut self, context: &str) -> SyntaxError {
        let rest = String::from_utf8_lossy(&self.text[self.next..]);
        let message = match rest.chars().next() {
            Some(character) => format!("invalid character {character:?} {context}"),
            None => "unexpected end of JSON input".to_owned(),
        };
        let at = self.position();
        let is_flow_yaml = context == "looking for beginning of object key string";
        let help = is_flow_yaml.then_some(
            "a file that begins with { is read as JSON: quote names, no comma at the end",
        );
        SyntaxError { at, message, help: help.map(Into::into) }
    }
}

#[cfg(test)]
mod tests;
