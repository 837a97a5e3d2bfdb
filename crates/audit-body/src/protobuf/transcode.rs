//! Transcodes a Kubernetes object from protobuf to the JSON that kube-apiserver logs for it: in the
//! order of the Go struct, with its `omitempty`, with embedded structs flattened, and with the JSON
//! of Kubernetes' own scalar types.
//!
//! Each message is read once: its fields are collected on a stack shared by all levels, sorted into
//! the order of the table, and written.

mod repeated;

use std::ops::Range;

use super::Value;
use super::table::{self, Empty, Field, Shape, Type};
use crate::decode::{Ambiguities, Ambiguity};
use k8s_audit::json;

/// Why a body has no JSON. The caller logs its bytes instead.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// The body does not begin with `k8s\0`.
    #[error("no Kubernetes protobuf envelope")]
    NoEnvelope,
    /// The table does not contain the kind.
    #[error("no protobuf description of kind {kind:?} in {api_version:?}")]
    UnknownKind {
        /// `apiVersion` of the envelope.
        api_version: String,
        /// `kind` of the envelope.
        kind: String,
    },
    /// The bytes are not a protobuf message of the kind.
    #[error("malformed protobuf")]
    Malformed,
}

/// What the JSON lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Transcoded {
    /// Fields or elements were left out because of the limit.
    pub truncated: bool,
    /// The message has fields, or embeds kinds, that the table does not contain, probably of a
    /// newer Kubernetes version. Such fields are left out; such embedded objects are written as
    /// base64.
    pub unknown: bool,
    /// Constructs that other decoders may read differently.
    pub ambiguities: Ambiguities,
}

/// Maximum nesting of messages, far above that of any real object. It bounds the stack.
const MAX_DEPTH: usize = 200;

/// Appends the JSON of `body`, an object in its `k8s\0` envelope, to `out`.
///
/// The JSON has at most about `limit` bytes: a field or element that does not fit is left out as a
/// whole, so that the JSON stays valid (names and brackets around it may slightly exceed the
/// limit). On errors `out` is unchanged. Hostile input can need up to 16 times `limit` of memory.
pub fn transcode(body: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<Transcoded, Error> {
    transcode_request(body, out, limit, None)
}

/// Like [`transcode`], for a request body. `kind` and `apiVersion` of the requested resource apply
/// if the envelope has none.
///
/// # Errors
/// As [`transcode`].
pub fn transcode_request(
    body: &[u8],
    out: &mut Vec<u8>,
    limit: usize,
    default: Option<(&[u8], &[u8])>,
) -> Result<Transcoded, Error> {
    let start = out.len();
    let mut writer = Writer {
        end: start.saturating_add(limit),
        out,
        most_entries: limit / 2 + 64,
        entries: Vec::with_capacity(64),
        depth: 0,
        api_version: b"",
        left_out: Transcoded::default(),
    };
    let written = writer.envelope(body, default);
    let left_out = writer.left_out;
    if written.is_err() {
        out.truncate(start);
    }
    written.map(|()| left_out)
}

pub(super) struct Writer<'a, 'o> {
    pub(super) out: &'o mut Vec<u8>,
    /// The maximum length of `out`.
    pub(super) end: usize,
    /// The maximum number of `entries`. Each entry results in at least two bytes of JSON, unless
    /// fields are repeated to use up memory.
    most_entries: usize,
    /// Fields of the current message and of those around it that are not written yet.
    entries: Vec<Entry<'a>>,
    depth: usize,
    /// `apiVersion` of the current object, which [`Type::Item`] repeats.
    pub(super) api_version: &'a [u8],
    pub(super) left_out: Transcoded,
}

struct Entry<'a> {
    /// The index of the field in the message's table.
    field: u16,
    value: Value<'a>,
    /// The message from the value on.
    tail: &'a [u8],
}

impl<'a> Writer<'a, '_> {
    /// An object with its `kind` and `apiVersion`.
    pub(super) fn envelope(
        &mut self,
        bytes: &'a [u8],
        default: Option<(&'a [u8], &'a [u8])>,
    ) -> Result<(), Error> {
        let bytes = bytes.strip_prefix(b"k8s\0").ok_or(Error::NoEnvelope)?;
        let (mut api_version, mut kind, mut object) = (None, None, None);
        let mut types = 0;
        for field in self.fields(bytes) {
            match field? {
                (1, type_meta) => {
                    types += 1;
                    for field in self.fields(self::bytes(type_meta)?) {
                        let (place, value) = match field? {
                            (1, value) => (&mut api_version, value),
                            (2, value) => (&mut kind, value),
                            _ => continue,
                        };
                        let repeats = place.replace(self::bytes(value)?).is_some();
                        self.note_ambiguity(repeats && types == 1, Ambiguity::RepeatedField);
                    }
                }
                (2, raw) => {
                    let repeats = object.replace(self::bytes(raw)?).is_some();
                    self.note_ambiguity(repeats, Ambiguity::RepeatedEnvelopeMember);
                }
                (3 | 4, value) => drop(self::bytes(value)?),
                _ => {}
            }
        }
        self.note_ambiguity(types > 1, Ambiguity::RepeatedEnvelopeMember);
        let text = |given: Option<&'a [u8]>, default: Option<&'a [u8]>| {
            given.filter(|text| !text.is_empty()).or(default).unwrap_or_default()
        };
        let kind = text(kind, default.map(|(kind, _)| kind));
        let api_version = text(api_version, default.map(|(_, api_version)| api_version));
        let object = object.unwrap_or_default();
        let Some(message) = table::kind(api_version, kind) else {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            return Err(Error::UnknownKind { api_version: text(api_version), kind: text(kind) });
        };
        self.out.push(b'{');
        self.type_meta(kind, api_version);
        let around = std::mem::replace(&mut self.api_version, api_version);
        self.members(message, &[object], &mut false)?;
        self.api_version = around;
        self.out.push(b'}');
        Ok(())
    }

    pub(super) fn type_meta(&mut self, kind: &[u8], api_version: &[u8]) {
        self.out.extend_from_slice(b"\"kind\":");
        json::push_string(self.out, kind);
        // Lists of the core group's resources and versions have no `apiVersion`.
        if !api_version.is_empty() {
            self.out.extend_from_slice(b",\"apiVersion\":");
            json::push_string(self.out, api_version);
        }
    }

    pub(super) fn object(
        &mut self,
        message: &'static [Field],
        parts: &[&'a [u8]],
    ) -> Result<(), Error> {
        self.out.push(b'{');
        self.members(message, parts, &mut true)?;
        self.out.push(b'}');
        Ok(())
    }

    /// Writes the members of an object from all messages that were decoded into it, like one
    /// message. `first`: no member has been written yet.
    pub(super) fn members(
        &mut self,
        message: &'static [Field],
        parts: &[&'a [u8]],
        first: &mut bool,
    ) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::Malformed);
        }
        let start = self.entries.len();
        self.note(message, parts)?;
        let end = self.entries.len();
        let mut at = start;
        for (index, field) in message.iter().enumerate() {
            let from = at;
            while at < end && usize::from(self.entries[at].field) == index {
                at += 1;
            }
            self.member(field, from..at, first)?;
        }
        self.entries.truncate(start);
        self.depth -= 1;
        Ok(())
    }

    /// Collects the fields of a message in the order of the table; occurrences of the same field in
    /// the order on the wire.
    fn note(&mut self, message: &'static [Field], parts: &[&'a [u8]]) -> Result<(), Error> {
        let start = self.entries.len();
        let mut sorted = true;
        let mut last = 0;
        for part in parts {
            self.note_part(message, part, &mut last, &mut sorted)?;
        }
        if !sorted {
            self.entries[start..].sort_by_key(|entry| entry.field);
        }
        Ok(())
    }

    fn note_part(
        &mut self,
        message: &'static [Field],
        bytes: &'a [u8],
        last: &mut usize,
        sorted: &mut bool,
    ) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.note_key(rest);
            let (number, value) = super::field(&mut rest).ok_or(Error::Malformed)?;
            // Usually it is the same field again, or one soon after it.
            let after = message.iter().skip(*last).position(|field| field.number == number);
            let index = match after {
                Some(after) => *last + after,
                None => match message.iter().position(|field| field.number == number) {
                    Some(index) => index,
                    None => {
                        self.left_out.unknown = true;
                        continue;
                    }
                },
            };
            *sorted &= index >= *last;
            *last = index;
            if self.entries.len() >= self.most_entries {
                self.left_out.truncated = true;
                break;
            }
            let tail = &bytes[bytes.len() - rest.len() - value.bytes().len()..];
            self.entries.push(Entry { field: index as u16, value, tail });
        }
        Ok(())
    }

    /// Records ambiguities in the key of the field at the start of `rest`.
    fn note_key(&mut self, rest: &[u8]) {
        // Keys of one byte are never ambiguous.
        if rest.first().is_some_and(|byte| *byte >= 0x80 || byte & 7 == 3) {
            let mut rest = rest;
            let key = super::varint(&mut rest).unwrap_or_default();
            self.note_ambiguity(key >> 3 > i32::MAX as u64, Ambiguity::WrappedFieldNumber);
            self.note_ambiguity(key & 7 == 3, Ambiguity::Groups);
        }
    }

    pub(super) fn note_ambiguity(&mut self, is: bool, ambiguity: Ambiguity) {
        if is {
            self.left_out.ambiguities.insert(ambiguity);
        }
    }

    /// Returns the fields of a message, and records ambiguities in their keys.
    fn fields(&mut self, message: &'a [u8]) -> Vec<Result<(u64, Value<'a>), Error>> {
        let mut rest = message;
        let mut all = Vec::new();
        while !rest.is_empty() {
            self.note_key(rest);
            let field = super::field(&mut rest).ok_or(Error::Malformed);
            let failed = field.is_err();
            all.push(field);
            if failed {
                break;
            }
        }
        all
    }

    /// Writes one field with its name, unless it is left out.
    fn member(
        &mut self,
        field: &'static Field,
        entries: Range<usize>,
        first: &mut bool,
    ) -> Result<(), Error> {
        let last = entries.clone().last().map(|index| self.entries[index].value);
        let repeats = field.shape == Shape::One && entries.len() > 1;
        self.note_ambiguity(repeats, Ambiguity::RepeatedField);
        if let Type::Inline(message) = field.of {
            let parts = self.parts(entries)?;
            return self.members(table::message(message), &parts, first);
        }
        match (last, field.empty) {
            (None, Empty::Pointer | Empty::Omit) => return Ok(()),
            (Some(value), Empty::Omit) if field.shape == Shape::One && is_zero(field.of, value) => {
                let all = &self.entries[entries];
                let fits = all.iter().all(|entry| is_of_wire_type(field.of, entry.value));
                let is_truncated = matches!(value, Value::Varint(number) if number != 0);
                self.note_ambiguity(is_truncated, Ambiguity::TruncatedInteger);
                return if fits { Ok(()) } else { Err(Error::Malformed) };
            }
            _ => {}
        }
        let (start, was_first) = (self.out.len(), *first);
        if self.is_full() {
            return Ok(());
        }
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(field.name.as_bytes());
        self.out.extend_from_slice(b"\":");
        match (last, field.shape) {
            (None, _) if field.empty == Empty::Null => self.out.extend_from_slice(b"null"),
            (_, Shape::List) => self.list(field.of, entries)?,
            (_, Shape::Map) => self.map(field.of, entries)?,
            (value, Shape::One) => {
                let fits = match (field.of, repeats) {
                    (_, false) => self.value(field.of, value.unwrap_or(zero(field.of)))?,
                    (Type::Message(message), true) => {
                        let parts = self.parts(entries)?;
                        self.object(table::message(message), &parts)?;
                        true
                    }
                    (_, true) => self.repeated(field.of, entries)?,
                };
                if !fits {
                    self.out.truncate(start);
                    *first = was_first;
                }
            }
        }
        Ok(())
    }

    fn is_full(&mut self) -> bool {
        let full = self.out.len() >= self.end;
        self.left_out.truncated |= full;
        full
    }
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(super::varint(rest)?).ok()?;
    super::take(rest, length)
}

/// Like [`super::fields`], but returns an error if the message is malformed.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Value<'_>), Error>> {
    let mut rest = message;
    std::iter::from_fn(move || match super::field(&mut rest) {
        Some(field) => Some(Ok(field)),
        None => (!std::mem::take(&mut rest).is_empty()).then_some(Err(Error::Malformed)),
    })
}

pub(super) fn bytes(value: Value<'_>) -> Result<&[u8], Error> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(Error::Malformed),
    }
}

/// Whether Go's `omitempty` treats the value as empty.
fn is_zero(of: Type, value: Value<'_>) -> bool {
    match value {
        Value::Varint(number) if of == Type::Int32 => number as i32 == 0,
        Value::Varint(number) => number == 0,
        Value::Fixed64(bits) => f64::from_bits(bits) == 0.0,
        Value::Fixed32(bits) => bits == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Group => false,
    }
}

/// Whether values of this type have this wire type.
fn is_of_wire_type(of: Type, value: Value<'_>) -> bool {
    match value {
        Value::Varint(_) => matches!(of, Type::Bool | Type::Int | Type::Int32),
        Value::Fixed64(_) => of == Type::Double,
        Value::Bytes(_) => !matches!(of, Type::Bool | Type::Int | Type::Int32 | Type::Double),
        Value::Fixed32(_) | Value::Group => false,
    }
}

/// The zero value as encoded on the wire.
fn zero(of: Type) -> Value<'static> {
    match of {
        Type::Bool | Type::Int | Type::Int32 => Value::Varint(0),
        Type::Double => Value::Fixed64(0),
        _ => Value::Bytes(b""),
    }
}

#[cfg(test)]
mod tests;
