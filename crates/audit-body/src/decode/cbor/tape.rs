//! A flat list of the values in a CBOR data item, in their order.

use std::borrow::Cow;

use super::Error;
use super::head::{self, Head};
use crate::decode::ambiguity::{Ambiguities, Ambiguity};

/// The maximum nesting of arrays, maps and tags in `fxamacker/cbor`.
const MAX_DEPTH: usize = 10_000;

/// The tag that marks data as CBOR; it has no effect.
const SELF_DESCRIBED: u64 = 55_799;

/// The index of a value.
pub(super) type Node = u32;

/// How a byte string or a time is converted to text; determined by the innermost tag around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The bytes are the text.
    Plain,
    Base64Url,
    Base64,
    Base16,
}

#[derive(Debug)]
struct Entry {
    /// The index of its head, after its tags.
    start: u32,
    /// The first value that is not contained in this one.
    next: Node,
    encoding: Encoding,
    /// Whether it has tag 0 or 1, and is a time.
    is_time: bool,
}

#[derive(Debug)]
pub(super) struct Tape<'b> {
    input: &'b [u8],
    entries: Vec<Entry>,
    pub(super) ambiguities: Ambiguities,
}

/// A container whose end has not been reached.
struct Open {
    node: Node,
    is_map: bool,
    /// The number of items still to come; keys and values count separately. `None` if a break ends
    /// the container.
    left: Option<u64>,
    /// The number of items so far.
    count: u64,
    encoding: Encoding,
    depth: usize,
}

/// Parses an input that must be a single data item.
pub(super) fn parse(input: &[u8]) -> Result<Tape<'_>, Error> {
    if u32::try_from(input.len()).is_err() {
        return Err(Error("the body is too long"));
    }
    let ambiguities = Ambiguities::default();
    let mut tape = Tape { input, entries: Vec::new(), ambiguities };
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    loop {
        tape.item(&mut at, &mut open)?;
        // Close containers that are complete.
        while let Some(container) = open.last() {
            match container.left {
                Some(0) => {}
                None if input.get(at) == Some(&0xff) => {
                    if container.is_map && container.count % 2 == 1 {
                        return Err(Error("unexpected break"));
                    }
                    at += 1;
                }
                _ => break,
            }
            let next = tape.entries.len() as Node;
            tape.entries[container.node as usize].next = next;
            open.pop();
        }
        if open.is_empty() {
            return if at == input.len() { Ok(tape) } else { Err(Error("extraneous data")) };
        }
    }
}

impl<'b> Tape<'b> {
    /// Reads one item. Of a container, only the head is read.
    fn item(&mut self, at: &mut usize, open: &mut Vec<Open>) -> Result<(), Error> {
        let (mut encoding, mut depth, mut is_key) = (Encoding::Plain, 0, false);
        if let Some(container) = open.last_mut() {
            (encoding, depth) = (container.encoding, container.depth);
            is_key = container.is_map && container.count % 2 == 0;
            container.count += 1;
            container.left = container.left.map(|left| left - 1);
        }
        let (mut start, mut is_time, mut tags) = (*at, false, 0);
        let mut head = head::read(self.input, at)?;
        while let Head::Tag(number) = head {
            tags += 1;
            // The first tag does not count as a level.
            depth += usize::from(tags > 1);
            if depth > MAX_DEPTH {
                return Err(Error("exceeded max nested level 10000"));
            }
            (start, head) = (*at, head::read(self.input, at)?);
            self.tag(number, (head, is_key), &mut encoding, &mut is_time)?;
        }
        let node = self.entries.len() as Node;
        self.entries.push(Entry { start: start as u32, next: node + 1, encoding, is_time });
        if is_key && !matches!(head, Head::Text(_) | Head::Bytes(_) | Head::Null) {
            return Err(Error("a key is not a string"));
        }
        let (is_map, left) = match head {
            Head::Unsigned(number) | Head::Negative(number) => {
                let fits = number <= i64::MAX as u64;
                return if fits { Ok(()) } else { Err(Error("an integer overflows 64 bits")) };
            }
            Head::Text(length) => return self.string(at, length, true),
            Head::Bytes(length) => return self.string(at, length, false),
            Head::Bool(_) | Head::Null | Head::Float(_) => return Ok(()),
            Head::Break | Head::Tag(_) => return Err(Error("unexpected break")),
            Head::Array(count) => (false, count),
            Head::Map(count) => {
                let doubled = count.map(|count| count.checked_mul(2));
                let too_many = Error("exceeded max number of key-value pairs");
                (true, doubled.map(|count| count.ok_or(too_many)).transpose()?)
            }
        };
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(Error("exceeded max nested level 10000"));
        }
        open.push(Open { node, is_map, left, count: 0, encoding, depth });
        Ok(())
    }

    /// Applies a tag to the item after it.
    fn tag(
        &mut self,
        number: u64,
        (content, is_key): (Head, bool),
        encoding: &mut Encoding,
        is_time: &mut bool,
    ) -> Result<(), Error> {
        let wrong = Err(Error("a tag has content of another type than it requires"));
        if *is_time {
            return wrong;
        }
        match (number, content) {
            (0, Head::Text(_)) | (1, Head::Unsigned(_) | Head::Negative(_) | Head::Float(_)) => {
                *is_time = true;
            }
            (0 | 1, _) => return wrong,
            (2 | 3, _) => return Err(Error("a bignum")),
            (21, _) => *encoding = Encoding::Base64Url,
            (22, _) => *encoding = Encoding::Base64,
            (23, _) => *encoding = Encoding::Base16,
            _ => {}
        }
        // The effect of other tags depends on the type of the target: for example, keys are encoded
        // in a map, but not in a struct.
        let is_plain = match number {
            SELF_DESCRIBED => true,
            22 => matches!(content, Head::Bytes(_)) && !is_key,
            _ => false,
        };
        if !is_plain {
            self.ambiguities.insert(Ambiguity::CborTag);
        }
        Ok(())
    }

    /// Validates a string, and skips it.
    fn string(&mut self, at: &mut usize, length: Option<usize>, text: bool) -> Result<(), Error> {
        let mut is_valid = true;
        let mut chunk = |length, at: &mut usize| -> Result<(), Error> {
            is_valid &= str::from_utf8(head::content(self.input, at, length)?).is_ok();
            Ok(())
        };
        match length {
            Some(length) => chunk(length, at)?,
            None => loop {
                match head::read(self.input, at)? {
                    Head::Break => break,
                    Head::Text(Some(length)) if text => chunk(length, at)?,
                    Head::Bytes(Some(length)) if !text => chunk(length, at)?,
                    _ => return Err(Error("wrong chunk of a string")),
                }
            },
        }
        match (is_valid, text) {
            (true, _) => {}
            (false, true) => return Err(Error("invalid UTF-8 string")),
            // Go treats them as text, and replaces what is not UTF-8 when it writes JSON.
            (false, false) => {
                let entry = self.entries.last();
                if entry.is_some_and(|entry| entry.encoding == Encoding::Plain) {
                    self.ambiguities.insert(Ambiguity::InvalidUtf8);
                }
            }
        }
        Ok(())
    }

    pub(super) fn head(&self, node: Node) -> Result<Head, Error> {
        head::read(self.input, &mut (self.entries[node as usize].start as usize))
    }

    pub(super) fn encoding(&self, node: Node) -> Encoding {
        self.entries[node as usize].encoding
    }

    pub(super) fn is_time(&self, node: Node) -> bool {
        self.entries[node as usize].is_time
    }

    /// Returns the bytes of a string, with its chunks joined.
    pub(super) fn bytes(&self, node: Node) -> Result<Cow<'b, [u8]>, Error> {
        let mut at = self.entries[node as usize].start as usize;
        let (Head::Text(length) | Head::Bytes(length)) = head::read(self.input, &mut at)? else {
            return Ok(Cow::Borrowed(b""));
        };
        if let Some(length) = length {
            return Ok(Cow::Borrowed(head::content(self.input, &mut at, length)?));
        }
        let mut all = Vec::new();
        while let Head::Text(Some(length)) | Head::Bytes(Some(length)) =
            head::read(self.input, &mut at)?
        {
            all.extend_from_slice(head::content(self.input, &mut at, length)?);
        }
        Ok(Cow::Owned(all))
    }

    /// Returns the first value contained in this one, or the value after it.
    pub(super) fn first(&self, node: Node) -> Node {
        node + 1
    }

    /// Returns the value after this one and everything it contains.
    pub(super) fn next(&self, node: Node) -> Node {
        self.entries[node as usize].next
    }
}
