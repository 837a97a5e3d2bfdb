//! The Protocol Buffers wire format, the `k8s\0` envelope around Kubernetes objects, and
//! ([`transcode`]) their JSON.

#[rustfmt::skip]
mod generated;
mod raw;
mod scalar;
pub(super) mod table;
mod transcode;
mod value;

pub use transcode::{Error, Transcoded, transcode, transcode_request};

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2: strings, bytes and nested messages.
    Bytes(&'a [u8]),
    /// Wire type 1: a double.
    Fixed64(u64),
    /// Wire type 5, which Kubernetes does not use.
    Fixed32(u32),
    /// Wire types 3 and 4, which Kubernetes does not use; the content of the group is skipped.
    Group,
}

impl<'a> Value<'a> {
    /// Returns the bytes of a length-delimited field; for others, none.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// Returns the text of a string field, with replacement characters for bytes that are not
    /// UTF-8.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// Returns the number of a varint field; 0 for others.
    pub fn number(self) -> u64 {
        match self {
            Value::Varint(number) => number,
            _ => 0,
        }
    }
}

/// Iterates over the fields of a message: field number and value. Ends at the first malformed byte.
pub fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || field(&mut rest))
}

/// Consumes the next field of `rest` like the code that gogo/protobuf generates: the field number
/// is truncated to 32 bits. Returns `None` at the end and if the field is malformed; in the latter
/// case `rest` is not empty.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let mut after = *rest;
    let key = varint(&mut after)?;
    let number = u64::try_from((key >> 3) as i32).ok().filter(|number| *number > 0)?;
    let value = value(key, &mut after)?;
    *rest = after;
    Some((number, value))
}

fn value<'a>(key: u64, rest: &mut &'a [u8]) -> Option<Value<'a>> {
    Some(match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        3 => {
            skip_group(rest)?;
            Value::Group
        }
        5 => Value::Fixed32(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)),
        _ => return None,
    })
}

/// Skips the rest of a group and nested groups. The field numbers of end tags are not checked.
fn skip_group(rest: &mut &[u8]) -> Option<()> {
    let mut depth = 1_usize;
    while depth > 0 {
        let key = varint(rest)?;
        match key & 7 {
            3 => depth += 1,
            4 => depth -= 1,
            _ => drop(value(key, rest)?),
        }
    }
    Some(())
}

/// A Kubernetes object in its envelope (`runtime.Unknown` behind the magic `k8s\0`).
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    /// `apiVersion` of the object.
    pub api_version: &'a [u8],
    /// `kind` of the object.
    pub kind: &'a [u8],
    /// The object's own message.
    pub raw: &'a [u8],
}

/// Removes the envelope; `None` if `bytes` do not begin with the magic.
pub fn envelope(bytes: &[u8]) -> Option<Envelope<'_>> {
    let mut envelope = Envelope::default();
    for (number, value) in fields(bytes.strip_prefix(b"k8s\0")?) {
        match number {
            1 => {
                for (number, value) in fields(value.bytes()) {
                    match number {
                        1 => envelope.api_version = value.bytes(),
                        2 => envelope.kind = value.bytes(),
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = value.bytes(),
            _ => {}
        }
    }
    Some(envelope)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_removed() {
        let bytes = b"k8s\0\n\x0c\n\x02v1\x12\x06Status\x12\x03\x30\x94\x03\x1a\0\"\0";
        let envelope = envelope(bytes).unwrap();
        assert_eq!((envelope.api_version, envelope.kind), (&b"v1"[..], &b"Status"[..]));
        assert_eq!(fields(envelope.raw).collect::<Vec<_>>(), [(6, Value::Varint(404))]);
        assert!(super::envelope(b"{}").is_none());
    }

    #[test]
    fn field_numbers_are_truncated_and_groups_skipped() {
        let message = b"\x8a\x80\x80\x80\x80\x01\x01a\xc3>\x1b\x08\x01\x1c\xc4>\x10\x07";
        let fields: Vec<_> = fields(message).collect();
        assert_eq!(fields, [(1, Value::Bytes(b"a")), (1000, Value::Group), (2, Value::Varint(7))]);
        for malformed in
            [&b"\x00\x01"[..], b"\xc3>\x08\x01", b"\xc4>", b"\xfa\xff\xff\xff\xff\x7f\x00"]
        {
            assert_eq!(super::fields(malformed).next(), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            fields(&bytes).for_each(drop);
            let _ = envelope(&[b"k8s\0", &bytes[..]].concat());
        }
    }
}

#[cfg(test)]
mod corpus_tests;
