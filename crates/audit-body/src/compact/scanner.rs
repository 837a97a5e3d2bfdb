//! The state machine of Go's `encoding/json` scanner.

use super::{Compactor, Frame, MAX_DEPTH, Places, Problem};
use k8s_audit::json::scan::plain_end;

/// A number with no more characters than this and without an exponent is in the range of a float64.
const MAX_DIGITS: usize = 300;

/// The index and the kind of an error; on success usually the index up to which the text is valid.
type Scan<T> = Result<T, (usize, Problem)>;

/// What is expected next, or the token that the last byte was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
    String,
    Escape,
    HexDigits,
    /// A piece has ended with 0xe2, which is not copied yet: it may be U+2028 or U+2029.
    Separator,
    /// The same for 0xe2 0x80.
    SeparatorEnd,
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    Literal,
}

impl Compactor {
    /// Continues with the next piece.
    pub(super) fn scan(&mut self, piece: &[u8]) -> Scan<()> {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            at = match (self.state, byte) {
                (State::String, _) => self.string(piece, at)?,
                (State::Escape, _) => self.escape(piece, at)?,
                (State::HexDigits, _) => self.hex_digit(piece, at)?,
                (State::Separator, 0x80) => {
                    self.state = State::SeparatorEnd;
                    at + 1
                }
                (State::Separator, _) => self.separator(b"\xe2", at),
                (State::SeparatorEnd, 0xa8) => self.separator(b"\\u2028", at + 1),
                (State::SeparatorEnd, 0xa9) => self.separator(b"\\u2029", at + 1),
                (State::SeparatorEnd, _) => self.separator(b"\xe2\x80", at),
                (State::Literal, _) => self.literal(piece, at)?,
                (state, _) if state.is_in_number() => self.number(piece, at)?,

                (_, b' ' | b'\n' | b'\r' | b'\t') => self.space(piece, at),
                (State::CommaOrEnd, _) => self.comma_or_end(piece, at)?,
                (State::Key | State::KeyOrEnd, b'"') => {
                    self.key(piece, at);
                    self.string(piece, at + 1)?
                }
                (State::KeyOrEnd, b'}') | (State::ValueOrEnd, b']') => self.close(piece, at),
                (State::Colon, b':') => {
                    self.state = State::Value;
                    at + 1
                }
                (State::Value | State::ValueOrEnd, _) => self.value(piece, at)?,
                (State::Nothing, _) => return Err((at, Problem::Trailing)),
                _ => return Err((at, Problem::Unexpected)),
            };
        }
        Ok(())
    }

    fn value(&mut self, piece: &[u8], at: usize) -> Scan<usize> {
        let byte = piece[at];
        if self.places != Places::NOWHERE {
            self.enter(piece, at);
        }
        match byte {
            b'"' => {
                self.in_key = false;
                self.state = State::String;
                return self.string(piece, at + 1);
            }
            b'{' | b'[' => return self.open(byte == b'{', at),
            b'-' => self.state = State::Minus,
            b'0' => self.state = State::Zero,
            b'1'..=b'9' => self.state = State::Integer,
            b't' => self.expect(b"rue"),
            b'f' => self.expect(b"alse"),
            b'n' => self.expect(b"ull"),
            _ => return Err((at, Problem::Unexpected)),
        }
        Ok(at + 1)
    }

    fn open(&mut self, is_object: bool, at: usize) -> Scan<usize> {
        if self.frames.len() == MAX_DEPTH {
            return Err((at, Problem::TooDeep));
        }
        self.frames.push(Frame { is_object, skip_comma: false, places: self.places });
        if is_object {
            self.state = State::KeyOrEnd;
        } else {
            self.next_element();
            self.state = State::ValueOrEnd;
        }
        Ok(at + 1)
    }

    fn close(&mut self, piece: &[u8], at: usize) -> usize {
        self.frames.pop();
        self.end_value(piece, at + 1);
        at + 1
    }

    fn comma_or_end(&mut self, piece: &[u8], at: usize) -> Scan<usize> {
        let frame = self.frames.last_mut().expect("a container is open, or nothing would follow");
        match (piece[at], frame.is_object) {
            (b',', true) => {
                if std::mem::take(&mut frame.skip_comma) {
                    self.copy_to(piece, at);
                    self.copied = at + 1;
                }
                self.state = State::Key;
                // The usual case in compact JSON, without another iteration.
                if piece.get(at + 1) == Some(&b'"') {
                    self.key(piece, at + 1);
                    return self.string(piece, at + 2);
                }
            }
            (b',', false) => {
                self.next_element();
                self.state = State::Value;
            }
            (b'}', true) | (b']', false) => return Ok(self.close(piece, at)),
            _ => return Err((at, Problem::Unexpected)),
        }
        Ok(at + 1)
    }

    /// Handles the end of a value, which is before `at`.
    pub(super) fn end_value(&mut self, piece: &[u8], at: usize) {
        if self.frames.len() == self.instead_depth {
            self.leave(piece, at);
        }
        self.state = if self.frames.is_empty() { State::Nothing } else { State::CommaOrEnd };
    }

    fn space(&mut self, piece: &[u8], at: usize) -> usize {
        self.copy_to(piece, at);
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        let length = piece[at..].iter().position(|byte| !is_space(byte));
        self.copied = length.map_or(piece.len(), |length| at + length);
        self.copied
    }

    fn string(&mut self, piece: &[u8], mut at: usize) -> Scan<usize> {
        loop {
            at = plain_end(piece, at);
            let Some(&byte) = piece.get(at) else { return Ok(at) };
            match byte {
                b'"' => {
                    return Ok(self.end_string(piece, at));
                }
                b'\\' => {
                    self.state = State::Escape;
                    return Ok(at + 1);
                }
                b'<' => self.replace(piece, at, 1, b"\\u003c"),
                b'>' => self.replace(piece, at, 1, b"\\u003e"),
                b'&' => self.replace(piece, at, 1, b"\\u0026"),
                0xe2 => match piece[at + 1..] {
                    [0x80, 0xa8, ..] => self.replace(piece, at, 3, b"\\u2028"),
                    [0x80, 0xa9, ..] => self.replace(piece, at, 3, b"\\u2029"),
                    [] => {
                        self.state = State::Separator;
                        return Ok(at + 1);
                    }
                    [0x80] => {
                        self.state = State::SeparatorEnd;
                        return Ok(at + 2);
                    }
                    _ => {}
                },
                _ => return Err((at, Problem::Unexpected)),
            }
            // Either a replacement was copied, or one byte was read.
            at = self.copied.max(at + 1);
        }
    }

    fn end_string(&mut self, piece: &[u8], quote: usize) -> usize {
        if let Some(start) = self.wanted.take() {
            self.read_wanted(&piece[start..quote]);
        }
        if !self.in_key {
            self.end_value(piece, quote + 1);
        } else if piece.get(quote + 1) == Some(&b':') {
            self.state = State::Value;
            return quote + 2;
        } else {
            self.state = State::Colon;
        }
        quote + 1
    }

    fn escape(&mut self, piece: &[u8], at: usize) -> Scan<usize> {
        match piece[at] {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.state = State::String,
            b'u' => {
                self.odd = true;
                self.state = State::HexDigits;
                self.digits = 4;
            }
            _ => return Err((at, Problem::Unexpected)),
        }
        Ok(at + 1)
    }

    fn hex_digit(&mut self, piece: &[u8], at: usize) -> Scan<usize> {
        if !piece[at].is_ascii_hexdigit() {
            return Err((at, Problem::Unexpected));
        }
        self.digits -= 1;
        if self.digits == 0 {
            self.state = State::String;
        }
        Ok(at + 1)
    }

    /// Writes the bytes after 0xe2 at the end of an earlier piece, up to `at`.
    fn separator(&mut self, written: &[u8], at: usize) -> usize {
        self.emit(written);
        self.copied = at;
        self.state = State::String;
        at
    }

    fn expect(&mut self, rest: &'static [u8]) {
        self.literal = rest;
        self.state = State::Literal;
    }

    fn literal(&mut self, piece: &[u8], at: usize) -> Scan<usize> {
        match self.literal.split_first() {
            Some((expected, rest)) if *expected == piece[at] => self.literal = rest,
            _ => return Err((at, Problem::Unexpected)),
        }
        if self.literal.is_empty() {
            self.end_value(piece, at + 1);
        }
        Ok(at + 1)
    }

    fn number(&mut self, piece: &[u8], mut at: usize) -> Scan<usize> {
        use State::*;
        let start = at;
        while let Some(&byte) = piece.get(at) {
            self.state = match (self.state, byte) {
                (Minus, b'0') => Zero,
                (Minus | Integer, b'0'..=b'9') => Integer,
                (Zero | Integer, b'.') => Point,
                (Point | Fraction, b'0'..=b'9') => Fraction,
                (Zero | Integer | Fraction, b'e' | b'E') => Exponent,
                (Exponent, b'+' | b'-') => ExponentSign,
                (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
                (state, _) if state.ends_a_number() => {
                    self.odd |= state == ExponentDigits || at - start > MAX_DIGITS;
                    self.end_value(piece, at);
                    return Ok(at);
                }
                _ => return Err((at, Problem::Unexpected)),
            };
            at += 1;
        }
        // The number continues in the next piece, or is the whole text.
        self.odd = true;
        Ok(at)
    }
}

impl State {
    fn is_in_number(self) -> bool {
        use State::*;
        self.ends_a_number() || matches!(self, Minus | Point | Exponent | ExponentSign)
    }

    /// Whether the text read so far can be a complete number.
    pub(super) fn ends_a_number(self) -> bool {
        matches!(self, State::Zero | State::Integer | State::Fraction | State::ExponentDigits)
    }
}
