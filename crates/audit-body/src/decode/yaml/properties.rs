//! Anchors, tags and directives.

use super::Error;
use super::reader::width;
use super::scalars::hex;
use super::scanner::{Scanner, Token};

type Scan<T> = Result<T, Error>;

impl Scanner<'_> {
    pub(super) fn anchor(&mut self) -> Scan<Vec<u8>> {
        let mut name = Vec::new();
        self.reader.skip();
        self.reader.ensure(1)?;
        self.word(&mut name)?;
        let may_follow = self.reader.is_blank_or_end(0)
            || matches!(self.reader.byte(), b'?' | b':' | b',' | b']' | b'}' | b'%' | b'@' | b'`');
        if name.is_empty() || !may_follow {
            return Err(Error("did not find expected alphabetic or numeric character"));
        }
        Ok(name)
    }

    fn word(&mut self, text: &mut Vec<u8>) -> Scan<()> {
        while self.reader.is_word() {
            self.reader.read(text);
            self.reader.ensure(1)?;
        }
        Ok(())
    }

    pub(super) fn directive(&mut self) -> Scan<Token> {
        self.reader.skip();
        self.reader.ensure(1)?;
        let mut name = Vec::new();
        self.word(&mut name)?;
        if name.is_empty() {
            return Err(Error("could not find expected directive name"));
        }
        if !self.reader.is_blank_or_end(0) {
            return Err(Error("found unexpected non-alphabetical character"));
        }
        let token = match &name[..] {
            b"YAML" => {
                self.blanks()?;
                let major = self.version_number()?;
                if self.reader.byte() != b'.' {
                    return Err(Error("did not find expected digit or '.' character"));
                }
                self.reader.skip();
                Token::Version(major, self.version_number()?)
            }
            b"TAG" => {
                self.blanks()?;
                let handle = self.tag_handle(true)?;
                self.reader.ensure(1)?;
                if !self.reader.is_blank(0) {
                    return Err(Error("did not find expected whitespace"));
                }
                self.blanks_within_buffer();
                let prefix = self.tag_uri(&[])?;
                self.reader.ensure(1)?;
                if !self.reader.is_blank_or_end(0) {
                    return Err(Error("did not find expected whitespace or line break"));
                }
                Token::TagDirective { handle, prefix }
            }
            _ => return Err(Error("found unknown directive name")),
        };
        self.rest_of_line()?;
        Ok(token)
    }

    /// go-yaml does not fill its buffer here; what is behind it reads as a NUL.
    fn blanks_within_buffer(&mut self) {
        while self.reader.is_blank(0) {
            self.reader.skip();
        }
    }

    fn version_number(&mut self) -> Scan<u8> {
        self.reader.ensure(1)?;
        let (mut value, mut length) = (0, 0);
        while self.reader.byte().is_ascii_digit() {
            length += 1;
            if length > 2 {
                return Err(Error("found extremely long version number"));
            }
            value = value * 10 + (self.reader.byte() - b'0');
            self.reader.skip();
            self.reader.ensure(1)?;
        }
        if length == 0 {
            return Err(Error("did not find expected version number"));
        }
        Ok(value)
    }

    /// Blanks, a comment, and the line break.
    pub(super) fn rest_of_line(&mut self) -> Scan<()> {
        self.blanks()?;
        self.comment()?;
        if !self.reader.is_break_or_end(0) {
            return Err(Error("did not find expected comment or line break"));
        }
        if self.reader.is_break(0) {
            self.reader.ensure(2)?;
            self.reader.skip_line();
        }
        Ok(())
    }

    pub(super) fn tag(&mut self) -> Scan<Token> {
        self.reader.ensure(2)?;
        let (handle, suffix);
        if self.reader.at(1) == b'<' {
            self.reader.skip();
            self.reader.skip();
            (handle, suffix) = (Vec::new(), self.tag_uri(&[])?);
            if self.reader.byte() != b'>' {
                return Err(Error("did not find the expected '>'"));
            }
            self.reader.skip();
        } else {
            let begin = self.tag_handle(false)?;
            if begin.len() > 1 && begin.last() == Some(&b'!') {
                (handle, suffix) = (begin, self.tag_uri(&[])?);
            } else {
                let rest = self.tag_uri(&begin)?;
                // The tag `!` alone has no handle.
                let alone = rest.is_empty();
                (handle, suffix) =
                    if alone { (rest, b"!".to_vec()) } else { (b"!".to_vec(), rest) };
            }
        }
        self.reader.ensure(1)?;
        if !self.reader.is_blank_or_end(0) {
            return Err(Error("did not find expected whitespace or line break"));
        }
        Ok(Token::Tag { handle, suffix })
    }

    fn tag_handle(&mut self, directive: bool) -> Scan<Vec<u8>> {
        self.reader.ensure(1)?;
        if self.reader.byte() != b'!' {
            return Err(Error("did not find expected '!'"));
        }
        let mut handle = Vec::new();
        self.reader.read(&mut handle);
        self.reader.ensure(1)?;
        self.word(&mut handle)?;
        if self.reader.byte() == b'!' {
            self.reader.read(&mut handle);
        } else if directive && handle != b"!" {
            return Err(Error("did not find expected '!'"));
        }
        Ok(handle)
    }

    /// The rest of a tag of which `head` has been read; its `!` is not part of it.
    fn tag_uri(&mut self, head: &[u8]) -> Scan<Vec<u8>> {
        let mut uri = head.get(1..).unwrap_or_default().to_vec();
        let mut found = !head.is_empty();
        self.reader.ensure(1)?;
        while self.reader.is_word() || b";/?:@&=+$,.!~*'()[]%".contains(&self.reader.byte()) {
            if self.reader.byte() == b'%' {
                self.uri_escapes(&mut uri)?;
            } else {
                self.reader.read(&mut uri);
            }
            self.reader.ensure(1)?;
            found = true;
        }
        if found { Ok(uri) } else { Err(Error("did not find expected tag URI")) }
    }

    /// One character in escaped bytes.
    fn uri_escapes(&mut self, uri: &mut Vec<u8>) -> Scan<()> {
        let mut left = None;
        while left != Some(0) {
            self.reader.ensure(3)?;
            let digits = hex(self.reader.at(1)).zip(hex(self.reader.at(2)));
            let Some((high, low)) = digits.filter(|_| self.reader.byte() == b'%') else {
                return Err(Error("did not find URI escaped octet"));
            };
            let octet = (high << 4 | low) as u8;
            left = Some(match left {
                None => match width(octet) {
                    0 => return Err(Error("found an incorrect leading UTF-8 octet")),
                    width => width - 1,
                },
                Some(_) if octet & 0xc0 != 0x80 => {
                    return Err(Error("found an incorrect trailing UTF-8 octet"));
                }
                Some(left) => left - 1,
            });
            uri.push(octet);
            (0..3).for_each(|_| self.reader.skip());
        }
        Ok(())
    }
}
