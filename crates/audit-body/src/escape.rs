//! Decodes JSON strings.

use k8s_audit::json::scan::plain_end;

/// Decodes a valid JSON string in pieces, with or without its quotes.
///
/// As in Go, an unpaired surrogate becomes U+FFFD. Bytes that are not UTF-8 are kept.
#[derive(Debug, Default)]
pub(super) struct Unescaper {
    state: State,
    /// The first half of a surrogate pair.
    high: Option<u32>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Plain,
    Escape,
    Hex {
        seen: u8,
        value: u32,
    },
}

impl Unescaper {
    /// Decodes the next piece and passes the result to `write`.
    pub(super) fn decode(&mut self, mut piece: &[u8], mut write: impl FnMut(&[u8])) {
        while let Some((&byte, rest)) = piece.split_first() {
            match self.state {
                State::Plain if byte == b'\\' => self.state = State::Escape,
                State::Plain if byte == b'"' => {}
                State::Plain => {
                    let length = plain_length(piece);
                    self.flush(&mut write);
                    write(&piece[..length]);
                    piece = &piece[length..];
                    continue;
                }
                State::Escape if byte == b'u' => self.state = State::Hex { seen: 0, value: 0 },
                State::Escape => {
                    self.flush(&mut write);
                    write(&[simple(byte)]);
                    self.state = State::Plain;
                }
                State::Hex { seen, value } => {
                    let value = value << 4 | (byte as char).to_digit(16).unwrap_or(0);
                    if seen == 3 {
                        self.state = State::Plain;
                        self.unit(value, &mut write);
                    } else {
                        self.state = State::Hex { seen: seen + 1, value };
                    }
                }
            }
            piece = rest;
        }
    }

    /// Ends the string.
    pub(super) fn end(mut self, mut write: impl FnMut(&[u8])) {
        self.flush(&mut write);
    }

    /// Writes U+FFFD for an unpaired surrogate.
    fn flush(&mut self, write: &mut impl FnMut(&[u8])) {
        if self.high.take().is_some() {
            push(char::REPLACEMENT_CHARACTER, write);
        }
    }

    fn unit(&mut self, unit: u32, write: &mut impl FnMut(&[u8])) {
        if let (Some(high), 0xdc00..=0xdfff) = (self.high, unit) {
            self.high = None;
            let point = 0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
            push(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), write);
            return;
        }
        self.flush(write);
        match unit {
            0xd800..=0xdbff => self.high = Some(unit),
            other => push(char::from_u32(other).unwrap_or(char::REPLACEMENT_CHARACTER), write),
        }
    }
}

/// Returns the number of bytes before an escape or a quote.
fn plain_length(piece: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length = plain_end(piece, length);
        match piece.get(length) {
            None | Some(b'\\' | b'"') => return length,
            Some(_) => length += 1,
        }
    }
}

fn push(character: char, write: &mut impl FnMut(&[u8])) {
    write(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Returns the character that a backslash and `byte` stand for; `byte` is not `u`.
pub(super) fn simple(byte: u8) -> u8 {
    match byte {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        itself => itself,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_go_reads_them() {
        for (given, expected) in [
            ("plain é", "plain é"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\x08\x0c\n\r\t"),
            (r"managed\u0046ields", "managedFields"),
            (r"\ud83d\ude00", "😀"),
            (r"\uD83D\uDE00!", "😀!"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\ud83d\n", "\u{fffd}\n"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\ude00", "\u{fffd}"),
        ] {
            for step in 1..=given.len() {
                let mut decoded = Vec::new();
                let mut unescaper = Unescaper::default();
                for piece in given.as_bytes().chunks(step) {
                    unescaper.decode(piece, |bytes| decoded.extend_from_slice(bytes));
                }
                unescaper.end(|bytes| decoded.extend_from_slice(bytes));
                assert_eq!(String::from_utf8(decoded).unwrap(), expected, "{given} by {step}");
            }
        }
    }
}
