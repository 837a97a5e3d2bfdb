//! Scalars: block, quoted and plain ones.

use super::Error;
use super::scanner::Scanner;

type Scan<T> = Result<T, Error>;

impl Scanner<'_> {
    pub(super) fn block_scalar(&mut self, literal: bool) -> Scan<Vec<u8>> {
        self.reader.skip();
        self.reader.ensure(1)?;
        let (keep, strip, increment) = self.block_header()?;
        self.rest_of_line()?;
        let mut indent = if increment > 0 { self.indent.max(0) + increment } else { 0 };
        let (mut text, mut leading_break, mut breaks) = (Vec::new(), Vec::new(), Vec::new());
        self.block_breaks(&mut indent, &mut breaks)?;
        self.reader.ensure(1)?;
        let mut leading_blank = false;
        while self.column() == indent && !self.reader.is_end() {
            let trailing_blank = self.reader.is_blank(0);
            let folds = !literal && leading_break.first() == Some(&b'\n');
            if folds && !leading_blank && !trailing_blank {
                if breaks.is_empty() {
                    text.push(b' ');
                }
                leading_break.clear();
            } else {
                text.append(&mut leading_break);
            }
            text.append(&mut breaks);
            leading_blank = self.reader.is_blank(0);
            while !self.reader.is_break_or_end(0) {
                self.reader.read(&mut text);
                self.reader.ensure(1)?;
            }
            self.reader.ensure(2)?;
            self.reader.read_line(&mut leading_break);
            self.block_breaks(&mut indent, &mut breaks)?;
        }
        if !strip {
            text.append(&mut leading_break);
        }
        if keep {
            text.append(&mut breaks);
        }
        Ok(text)
    }

    /// Whether to keep all line breaks at the end, or none; and the indentation, if it is given.
    fn block_header(&mut self) -> Scan<(bool, bool, isize)> {
        let (mut keep, mut strip, mut increment) = (false, false, 0);
        let mut parts = 0;
        while parts < 2 {
            match self.reader.byte() {
                sign @ (b'+' | b'-') if !keep && !strip => {
                    (keep, strip) = (sign == b'+', sign == b'-');
                }
                b'0' if increment == 0 => {
                    return Err(Error("found an indentation indicator equal to 0"));
                }
                digit @ b'1'..=b'9' if increment == 0 => increment = isize::from(digit - b'0'),
                _ => break,
            }
            self.reader.skip();
            self.reader.ensure(1)?;
            parts += 1;
        }
        Ok((keep, strip, increment))
    }

    /// Indentation and empty lines; they determine the indentation, if it is 0.
    fn block_breaks(&mut self, indent: &mut isize, breaks: &mut Vec<u8>) -> Scan<()> {
        let mut deepest = 0;
        loop {
            self.reader.ensure(1)?;
            while (*indent == 0 || self.column() < *indent) && self.reader.byte() == b' ' {
                self.reader.skip();
                self.reader.ensure(1)?;
            }
            deepest = deepest.max(self.column());
            if (*indent == 0 || self.column() < *indent) && self.reader.byte() == b'\t' {
                return Err(Error("found a tab character where an indentation space is expected"));
            }
            if !self.reader.is_break(0) {
                break;
            }
            self.reader.ensure(2)?;
            self.reader.read_line(breaks);
        }
        if *indent == 0 {
            *indent = deepest.max(self.indent + 1).max(1);
        }
        Ok(())
    }

    pub(super) fn quoted_scalar(&mut self, single: bool) -> Scan<Vec<u8>> {
        self.reader.skip();
        let mut text = Vec::new();
        let mut folding = Folding::default();
        let quote = if single { b'\'' } else { b'"' };
        loop {
            self.reader.ensure(4)?;
            if self.reader.is_document_indicator() {
                return Err(Error("found unexpected document indicator"));
            }
            if self.reader.is_end() {
                return Err(Error("found unexpected end of stream"));
            }
            let mut leading_blanks = false;
            while !self.reader.is_blank_or_end(0) {
                let byte = self.reader.byte();
                if single && byte == b'\'' && self.reader.at(1) == b'\'' {
                    text.push(b'\'');
                    self.reader.skip();
                    self.reader.skip();
                } else if byte == quote {
                    break;
                } else if byte == b'\\' && !single && self.reader.is_break(1) {
                    self.reader.ensure(3)?;
                    self.reader.skip();
                    self.reader.skip_line();
                    leading_blanks = true;
                    break;
                } else if byte == b'\\' && !single {
                    self.escape(&mut text)?;
                } else {
                    self.reader.read(&mut text);
                }
                self.reader.ensure(2)?;
            }
            self.reader.ensure(1)?;
            if self.reader.byte() == quote {
                break;
            }
            while self.reader.is_blank(0) || self.reader.is_break(0) {
                self.blank_or_break(&mut leading_blanks, &mut folding)?;
            }
            if leading_blanks {
                folding.fold(&mut text);
            } else {
                text.append(&mut folding.blanks);
            }
        }
        self.reader.skip();
        Ok(text)
    }

    fn blank_or_break(&mut self, leading_blanks: &mut bool, folding: &mut Folding) -> Scan<()> {
        if self.reader.is_blank(0) {
            if *leading_blanks {
                self.reader.skip();
            } else {
                self.reader.read(&mut folding.blanks);
            }
        } else {
            self.reader.ensure(2)?;
            if *leading_blanks {
                self.reader.read_line(&mut folding.breaks);
            } else {
                folding.blanks.clear();
                self.reader.read_line(&mut folding.first_break);
                *leading_blanks = true;
            }
        }
        self.reader.ensure(1)
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Scan<()> {
        let mut length = 0;
        let written: &[u8] = match self.reader.at(1) {
            b'0' => b"\0",
            b'a' => b"\x07",
            b'b' => b"\x08",
            b't' | b'\t' => b"\t",
            b'n' => b"\n",
            b'v' => b"\x0b",
            b'f' => b"\x0c",
            b'r' => b"\r",
            b'e' => b"\x1b",
            b' ' => b" ",
            b'"' => b"\"",
            b'\'' => b"'",
            b'\\' => b"\\",
            b'N' => b"\xc2\x85",
            b'_' => b"\xc2\xa0",
            b'L' => b"\xe2\x80\xa8",
            b'P' => b"\xe2\x80\xa9",
            digits @ (b'x' | b'u' | b'U') => {
                length = match digits {
                    b'x' => 2,
                    b'u' => 4,
                    _ => 8,
                };
                b""
            }
            _ => return Err(Error("found unknown escape character")),
        };
        text.extend_from_slice(written);
        self.reader.skip();
        self.reader.skip();
        if length == 0 {
            return Ok(());
        }
        self.reader.ensure(length)?;
        let mut value = 0;
        for at in 0..length {
            let digit = hex(self.reader.at(at));
            value = value << 4 | digit.ok_or(Error("did not find expected hexdecimal number"))?;
        }
        let character = char::from_u32(value);
        let character = character.ok_or(Error("found invalid Unicode character escape code"))?;
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        (0..length).for_each(|_| self.reader.skip());
        Ok(())
    }

    pub(super) fn plain_scalar(&mut self) -> Scan<Vec<u8>> {
        let (mut text, mut folding) = (Vec::new(), Folding::default());
        let mut leading_blanks = false;
        let indent = self.indent + 1;
        loop {
            self.reader.ensure(4)?;
            if self.reader.is_document_indicator() || self.reader.byte() == b'#' {
                break;
            }
            while !self.reader.is_blank_or_end(0) {
                let byte = self.reader.byte();
                let ends = (byte == b':' && self.reader.is_blank_or_end(1))
                    || (self.flow_level > 0
                        && matches!(byte, b',' | b'?' | b'[' | b']' | b'{' | b'}'));
                if ends {
                    break;
                }
                if std::mem::take(&mut leading_blanks) {
                    folding.fold(&mut text);
                } else {
                    text.append(&mut folding.blanks);
                }
                self.reader.read(&mut text);
                self.reader.ensure(2)?;
            }
            if !(self.reader.is_blank(0) || self.reader.is_break(0)) {
                break;
            }
            self.reader.ensure(1)?;
            while self.reader.is_blank(0) || self.reader.is_break(0) {
                if leading_blanks && self.column() < indent && self.reader.byte() == b'\t' {
                    return Err(Error("found a tab character that violates indentation"));
                }
                self.blank_or_break(&mut leading_blanks, &mut folding)?;
            }
            if self.flow_level == 0 && self.column() < indent {
                break;
            }
        }
        if leading_blanks {
            self.simple_key_allowed = true;
        }
        Ok(text)
    }
}

/// White space in a scalar whose meaning depends on what follows.
#[derive(Default)]
struct Folding {
    blanks: Vec<u8>,
    first_break: Vec<u8>,
    breaks: Vec<u8>,
}

impl Folding {
    /// A single line break is a space, and of several the first one goes.
    fn fold(&mut self, text: &mut Vec<u8>) {
        if self.first_break.first() != Some(&b'\n') {
            text.append(&mut self.first_break);
        } else if self.breaks.is_empty() {
            text.push(b' ');
        }
        self.first_break.clear();
        text.append(&mut self.breaks);
    }
}

pub(super) fn hex(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}
