//! A strict reader of DER, as far as certificates need it.
//!
//! Anything that DER does not allow (indefinite or overlong lengths, trailing bytes) is an error,
//! so that two readers of one certificate cannot see different things in it.

/// The bytes are not DER, or not of the expected type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Universal and context-specific tags, as their identifier octet.
pub(super) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;

    /// `[number]`, primitive.
    pub(crate) const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// `[number]`, constructed.
    pub(crate) const fn explicit(number: u8) -> u8 {
        0xa0 | number
    }
}

/// Reads one value after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(der: &'a [u8]) -> Reader<'a> {
        Reader(der)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails unless everything was read.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.is_at_end() { Ok(()) } else { Err(Malformed) }
    }

    /// Returns the next value's tag and content.
    pub(super) fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let (tag, _, content) = self.any_with_header()?;
        Ok((tag, content))
    }

    /// Returns the next value's tag, the whole value, and its content.
    pub(super) fn any_with_header(&mut self) -> Result<(u8, &'a [u8], &'a [u8]), Malformed> {
        let [tag, first, rest @ ..] = self.0 else { return Err(Malformed) };
        // Tag numbers above 30 do not occur in certificates.
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (length, rest) = match *first {
            short @ 0..0x80 => (usize::from(short), rest),
            long => {
                let count = usize::from(long & 0x7f);
                if count == 0 || count > 4 || rest.len() < count {
                    return Err(Malformed);
                }
                let (bytes, rest) = rest.split_at(count);
                let length = bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
                // The shortest form only.
                if bytes[0] == 0 || length < 0x80 {
                    return Err(Malformed);
                }
                (usize::try_from(length).map_err(|_| Malformed)?, rest)
            }
        };
        let content = rest.get(..length).ok_or(Malformed)?;
        let header = self.0.len() - rest.len();
        let whole = &self.0[..header + length];
        self.0 = &rest[length..];
        Ok((*tag, whole, content))
    }

    /// Returns the content of the next value, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.any()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    /// Returns the whole next value, which must have this tag.
    pub(super) fn expect_whole(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.any_with_header()? {
            (found, whole, _) if found == tag => Ok(whole),
            _ => Err(Malformed),
        }
    }

    /// Returns the content of the next value if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        match self.0.first() {
            Some(first) if *first == tag => self.expect(tag).map(Some),
            _ => Ok(None),
        }
    }

    /// Returns a SEQUENCE, to be read in turn.
    pub(super) fn sequence(&mut self) -> Result<Reader<'a>, Malformed> {
        self.expect(tag::SEQUENCE).map(Reader)
    }

    /// `BOOLEAN DEFAULT FALSE`. That an explicit `FALSE` is not DER is overlooked: Go accepts it.
    pub(super) fn optional_bool(&mut self) -> Result<bool, Malformed> {
        match self.optional(tag::BOOLEAN)? {
            None | Some([0]) => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err(Malformed),
        }
    }
}

/// Returns the only value in `der`, a SEQUENCE.
pub(super) fn only_sequence(der: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut outer = Reader::new(der);
    let inner = outer.sequence()?;
    outer.end()?;
    Ok(inner)
}

/// Returns the value of an INTEGER's content that is neither negative nor above [`u32::MAX`].
pub(super) fn small_integer(content: &[u8]) -> Result<u32, Malformed> {
    let content = match content {
        [] => return Err(Malformed),
        [0] => return Ok(0),
        // A leading zero is only right before a high bit.
        [0, rest @ ..] if rest[0] >= 0x80 => rest,
        [first, ..] if *first == 0 || *first >= 0x80 => return Err(Malformed),
        content => content,
    };
    if content.len() > 4 {
        return Err(Malformed);
    }
    Ok(content.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)))
}

/// Returns the bits of a BIT STRING's content, which must be whole bytes.
pub(super) fn whole_bytes(content: &[u8]) -> Result<&[u8], Malformed> {
    match content {
        [0, bytes @ ..] => Ok(bytes),
        _ => Err(Malformed),
    }
}

/// Returns an OBJECT IDENTIFIER's content in dotted form, for messages.
pub(super) fn dotted(oid: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc: u64 = 0;
    for byte in oid {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.extend([first, arc - 40 * first]);
            } else {
                arcs.push(arc);
            }
            arc = 0;
        }
    }
    arcs.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_definite_minimal_and_within_the_input() {
        let long = [&[0x04, 0x81, 0x80][..], &[7; 0x80]].concat();
        assert_eq!(Reader::new(&long).expect(tag::OCTET_STRING), Ok(&[7; 0x80][..]));
        for wrong in [
            &[0x04][..],
            &[0x04, 2, 1],
            &[0x30, 0x80, 0, 0],
            &[0x04, 0x81, 1, 1],
            &[0x04, 0x82, 0, 0x80],
            &[0x04, 0x85, 0, 0, 0, 0, 1],
            &[0x1f, 1, 1],
        ] {
            assert!(Reader::new(wrong).any().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn integers() {
        for (content, value) in [
            (&[0][..], Some(0)),
            (&[0x7f], Some(127)),
            (&[0, 0x80], Some(128)),
            (&[0, 0xff, 0xff, 0xff, 0xff], Some(u32::MAX)),
            (&[], None),
            (&[0x80], None),
            (&[0, 1], None),
            (&[1, 0, 0, 0, 0], None),
        ] {
            assert_eq!(small_integer(content).ok(), value, "{content:?}");
        }
    }

    #[test]
    fn object_identifiers() {
        assert_eq!(dotted(&[0x55, 0x1d, 0x25, 0x00]), "2.5.29.37.0");
        assert_eq!(dotted(&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53]), "1.3.6.1.4.1.57683");
    }
}
