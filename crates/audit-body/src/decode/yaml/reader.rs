//! The characters of a YAML stream, read in the same pieces as go-yaml reads them.
//!
//! The pieces matter: what is behind the first document is read only as far as its last piece goes,
//! so only that far can it be found invalid; and a byte order mark is looked for at the start of
//! the buffer, wherever the reader is in it.

use super::Error;

/// The bytes that go-yaml takes from its input at a time.
const PIECE: usize = 512;

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Unknown,
    Utf8,
    Utf16 { low: usize },
}

/// A position in characters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    pub(super) index: usize,
    pub(super) line: usize,
    pub(super) column: usize,
}

pub(super) struct Reader<'b> {
    input: &'b [u8],
    /// What has been taken from `input` and not been decoded: this range of it.
    raw: std::ops::Range<usize>,
    /// Whether the end of `input` has been read.
    end: bool,
    encoding: Encoding,
    /// Characters in UTF-8.
    buffer: Vec<u8>,
    position: usize,
    /// Characters of the buffer that have not been read.
    unread: usize,
    pub(super) mark: Mark,
}

impl<'b> Reader<'b> {
    pub(super) fn new(input: &'b [u8]) -> Reader<'b> {
        // go-yaml takes an empty input for a line break.
        let input = if input.is_empty() { b"\n" } else { input };
        Reader {
            input,
            raw: 0..0,
            end: false,
            encoding: Encoding::Unknown,
            buffer: Vec::with_capacity(3 * PIECE),
            position: 0,
            unread: 0,
            mark: Mark::default(),
        }
    }

    /// Makes sure that `length` characters can be looked at. Behind the end there are NULs.
    #[inline]
    pub(super) fn ensure(&mut self, length: usize) -> Result<(), Error> {
        if self.unread >= length { Ok(()) } else { self.fill(length) }
    }

    /// The byte at an offset from the current character.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> u8 {
        self.buffer.get(self.position + offset).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn byte(&self) -> u8 {
        self.at(0)
    }

    /// Whether the buffer, not the current character, begins with a byte order mark.
    pub(super) fn buffer_begins_with_bom(&self) -> bool {
        self.buffer.starts_with(b"\xef\xbb\xbf")
    }

    fn fill(&mut self, length: usize) -> Result<(), Error> {
        if self.encoding == Encoding::Unknown {
            self.determine_encoding();
        }
        self.buffer.drain(..self.position.min(self.buffer.len()));
        self.position = 0;
        let mut is_first = true;
        while self.unread < length {
            if !is_first || self.raw.is_empty() {
                self.take_piece();
            }
            is_first = false;
            while !self.raw.is_empty() {
                let Some((character, width)) = self.decode()? else { break };
                if !is_allowed(character) {
                    return Err(Error("control characters are not allowed"));
                }
                self.raw.start += width;
                let mut utf8 = [0; 4];
                self.buffer.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
                self.unread += 1;
            }
            if self.end {
                self.buffer.push(0);
                self.unread += 1;
                break;
            }
        }
        while self.buffer.len() < length {
            self.buffer.push(0);
        }
        Ok(())
    }

    fn take_piece(&mut self) {
        let room = PIECE - self.raw.len();
        let rest = self.input.len() - self.raw.end;
        if room == 0 || self.end {
            return;
        }
        self.end = rest == 0;
        self.raw.end += rest.min(room);
    }

    fn determine_encoding(&mut self) {
        while !self.end && self.raw.len() < 3 {
            self.take_piece();
        }
        let (encoding, width) = match &self.input[self.raw.clone()] {
            [0xff, 0xfe, ..] => (Encoding::Utf16 { low: 0 }, 2),
            [0xfe, 0xff, ..] => (Encoding::Utf16 { low: 1 }, 2),
            [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
            _ => (Encoding::Utf8, 0),
        };
        self.encoding = encoding;
        self.raw.start += width;
    }

    /// The next character of the piece and its width; `None` if the next piece has its end.
    fn decode(&self) -> Result<Option<(char, usize)>, Error> {
        let raw = &self.input[self.raw.clone()];
        match self.encoding {
            Encoding::Utf16 { low } => self.utf16(raw, low),
            _ => self.utf8(raw),
        }
    }

    fn utf8(&self, raw: &[u8]) -> Result<Option<(char, usize)>, Error> {
        let (width, first) = match raw[0] {
            byte @ 0..=0x7f => return Ok(Some((char::from(byte), 1))),
            byte @ 0xc0..=0xdf => (2, byte & 0x1f),
            byte @ 0xe0..=0xef => (3, byte & 0x0f),
            byte @ 0xf0..=0xf7 => (4, byte & 0x07),
            _ => return Err(Error("invalid leading UTF-8 octet")),
        };
        let Some(rest) = raw.get(1..width) else {
            return if self.end { Err(Error("incomplete UTF-8 octet sequence")) } else { Ok(None) };
        };
        let mut value = u32::from(first);
        for byte in rest {
            if byte & 0xc0 != 0x80 {
                return Err(Error("invalid trailing UTF-8 octet"));
            }
            value = value << 6 | u32::from(byte & 0x3f);
        }
        if value < [0, 0, 0x80, 0x800, 0x1_0000][width] {
            return Err(Error("invalid length of a UTF-8 sequence"));
        }
        let character = char::from_u32(value).ok_or(Error("invalid Unicode character"))?;
        Ok(Some((character, width)))
    }

    fn utf16(&self, raw: &[u8], low: usize) -> Result<Option<(char, usize)>, Error> {
        let unit = |at: usize| -> Option<u32> {
            let (a, b) = (raw.get(at)?, raw.get(at + 1)?);
            let (low, high) = if low == 0 { (a, b) } else { (b, a) };
            Some(u32::from(*low) | u32::from(*high) << 8)
        };
        let incomplete = |message| if self.end { Err(Error(message)) } else { Ok(None) };
        let Some(first) = unit(0) else { return incomplete("incomplete UTF-16 character") };
        let (value, width) = match first {
            0xdc00..=0xdfff => return Err(Error("unexpected low surrogate area")),
            0xd800..=0xdbff => match unit(2) {
                None => return incomplete("incomplete UTF-16 surrogate pair"),
                Some(second @ 0xdc00..=0xdfff) => {
                    (0x1_0000 + ((first & 0x3ff) << 10) + (second & 0x3ff), 4)
                }
                Some(_) => return Err(Error("expected low surrogate area")),
            },
            value => (value, 2),
        };
        let character = char::from_u32(value).ok_or(Error("invalid Unicode character"))?;
        Ok(Some((character, width)))
    }
}

/// Reading on.
impl Reader<'_> {
    /// Passes over a character.
    pub(super) fn skip(&mut self) {
        self.mark.index += 1;
        self.mark.column += 1;
        self.unread = self.unread.saturating_sub(1);
        self.position += width(self.byte()).max(1);
    }

    /// Passes over a line break, if there is one.
    pub(super) fn skip_line(&mut self) {
        if self.byte() == b'\r' && self.at(1) == b'\n' {
            self.mark.index += 2;
            self.unread = self.unread.saturating_sub(2);
            self.position += 2;
        } else if self.is_break(0) {
            self.mark.index += 1;
            self.unread = self.unread.saturating_sub(1);
            self.position += width(self.byte());
        } else {
            return;
        }
        self.mark.column = 0;
        self.mark.line += 1;
    }

    /// Copies a character to `text`.
    pub(super) fn read(&mut self, text: &mut Vec<u8>) {
        let width = width(self.byte()).max(1);
        let end = (self.position + width).min(self.buffer.len());
        text.extend_from_slice(&self.buffer[self.position..end]);
        self.position += width;
        self.mark.index += 1;
        self.mark.column += 1;
        self.unread = self.unread.saturating_sub(1);
    }

    /// Copies a line break to `text`: a line feed, or one of Unicode's separators as it is.
    pub(super) fn read_line(&mut self, text: &mut Vec<u8>) {
        let (written, width): (&[u8], _) = match [self.byte(), self.at(1), self.at(2)] {
            [b'\r', b'\n', _] => {
                self.mark.index += 1;
                self.unread = self.unread.saturating_sub(1);
                (b"\n", 2)
            }
            [b'\r' | b'\n', ..] => (b"\n", 1),
            [0xc2, 0x85, _] => (b"\n", 2),
            [0xe2, 0x80, 0xa8] => (b"\xe2\x80\xa8", 3),
            [0xe2, 0x80, 0xa9] => (b"\xe2\x80\xa9", 3),
            _ => return,
        };
        text.extend_from_slice(written);
        self.position += width;
        self.mark.index += 1;
        self.mark.column = 0;
        self.mark.line += 1;
        self.unread = self.unread.saturating_sub(1);
    }

    pub(super) fn is_break(&self, offset: usize) -> bool {
        match self.at(offset) {
            b'\r' | b'\n' => true,
            0xc2 => self.at(offset + 1) == 0x85,
            0xe2 => self.at(offset + 1) == 0x80 && matches!(self.at(offset + 2), 0xa8 | 0xa9),
            _ => false,
        }
    }

    pub(super) fn is_blank(&self, offset: usize) -> bool {
        matches!(self.at(offset), b' ' | b'\t')
    }

    /// Whether there is the end, which is a NUL, as there can be no other.
    pub(super) fn is_end(&self) -> bool {
        self.byte() == 0
    }

    pub(super) fn is_break_or_end(&self, offset: usize) -> bool {
        self.at(offset) == 0 || self.is_break(offset)
    }

    pub(super) fn is_blank_or_end(&self, offset: usize) -> bool {
        self.is_blank(offset) || self.is_break_or_end(offset)
    }

    /// A letter, a digit, `_` or `-`.
    pub(super) fn is_word(&self) -> bool {
        let byte = self.byte();
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
    }

    /// Whether a line begins here with `---` or `...`.
    pub(super) fn is_document_indicator(&self) -> bool {
        let begin = [self.byte(), self.at(1), self.at(2)];
        self.mark.column == 0 && (&begin == b"---" || &begin == b"...") && self.is_blank_or_end(3)
    }
}

/// The bytes of a character, by its first one; 0 for one that is none.
pub(super) fn width(byte: u8) -> usize {
    match byte {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 0,
    }
}

fn is_allowed(character: char) -> bool {
    matches!(character,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}'
        | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}
