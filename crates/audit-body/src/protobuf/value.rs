//! The JSON of one value: a scalar, a nested message, or one of the Kubernetes types with their own
//! JSON encoding.

use super::table::{self, Type};
use super::transcode::{Error, Writer, bytes, fields};
use super::{Value, raw, scalar};
use crate::decode::Ambiguity;
use k8s_audit::json;

impl<'a> Writer<'a, '_> {
    /// Writes a value. Returns `false` if it does not fit; the caller then removes the part that
    /// was written.
    pub(super) fn value(&mut self, of: Type, value: Value<'a>) -> Result<bool, Error> {
        let out = &mut *self.out;
        match (of, value) {
            (Type::Bool, Value::Varint(number)) => {
                out.extend_from_slice(if number == 0 { b"false" } else { b"true" });
            }
            (Type::Int, Value::Varint(number)) => {
                scalar::push_int(out, number.cast_signed());
            }
            (Type::Int32, Value::Varint(number)) => {
                let number = number.cast_signed();
                let kept = number as i32;
                scalar::push_int(out, kept.into());
                let is_truncated = i64::from(kept) != number;
                self.note_ambiguity(is_truncated, Ambiguity::TruncatedInteger);
            }
            (Type::Double, Value::Fixed64(bits)) => {
                scalar::push_double(out, f64::from_bits(bits)).ok_or(Error::Malformed)?;
            }
            (_, Value::Bytes(bytes)) => return self.delimited(of, bytes),
            _ => return Err(Error::Malformed),
        }
        Ok(self.fits())
    }

    fn delimited(&mut self, of: Type, bytes: &'a [u8]) -> Result<bool, Error> {
        let out = &mut *self.out;
        if matches!(of, Type::Text | Type::Bytes)
            && bytes.len() > self.end.saturating_sub(out.len())
        {
            self.left_out.truncated = true;
            return Ok(false);
        }
        match of {
            Type::Text => {
                json::push_string(out, bytes);
                let odd = str::from_utf8(bytes).is_err();
                self.note_ambiguity(odd, Ambiguity::InvalidUtf8);
            }
            Type::Bytes => raw::push_base64(out, bytes),
            Type::Time | Type::MicroTime => {
                let in_range = match of {
                    Type::Time => scalar::push_time(out, bytes)?,
                    _ => scalar::push_micro_time(out, bytes)?,
                };
                self.note_ambiguity(!in_range, Ambiguity::TruncatedInteger);
            }
            Type::IntOrString => scalar::push_int_or_string(out, bytes)?,
            Type::Quantity => push_quantity(out, bytes)?,
            Type::Raw => return self.raw(only(bytes, 1)?.unwrap_or_default()),
            Type::Message(message) => {
                self.object(table::message(message), &[bytes])?;
                return Ok(true);
            }
            Type::Item(message) | Type::Claim(message) => {
                self.out.push(b'{');
                match of {
                    Type::Item(_) => self.type_meta(b"PartialObjectMetadata", self.api_version),
                    _ => self.type_meta(b"PersistentVolumeClaim", b"v1"),
                }
                self.members(table::message(message), &[bytes], &mut false)?;
                self.out.push(b'}');
                return Ok(true);
            }
            Type::Strings => {
                match only(bytes, 1)? {
                    Some(_) => self.list_of(Type::Text, bytes, 1)?,
                    None => out.extend_from_slice(b"null"),
                }
                return Ok(true);
            }
            Type::SchemaOrBool(schema) => {
                let (mut allows, mut other) = (false, None);
                for field in fields(bytes) {
                    match field? {
                        (1, Value::Varint(number)) => allows = number != 0,
                        (1, _) => return Err(Error::Malformed),
                        (2, value) => other = Some(self::bytes(value)?),
                        _ => {}
                    }
                }
                match other {
                    Some(bytes) => self.object(table::message(schema), &[bytes])?,
                    None => out.extend_from_slice(if allows { b"true" } else { b"false" }),
                }
                return Ok(true);
            }
            Type::SchemaOrList(schema) | Type::SchemaOrStrings(schema) => {
                let strings = matches!(of, Type::SchemaOrStrings(_));
                let element = if strings { Type::Text } else { Type::Message(schema) };
                match (only(bytes, 2)?, only(bytes, 1)?) {
                    (Some(_), _) => self.list_of(element, bytes, 2)?,
                    (None, Some(bytes)) => self.object(table::message(schema), &[bytes])?,
                    (None, None) => self.out.extend_from_slice(b"null"),
                }
                return Ok(true);
            }
            Type::Bool | Type::Int | Type::Int32 | Type::Double | Type::Inline(_) => {
                return Err(Error::Malformed);
            }
        }
        Ok(self.fits())
    }

    /// Writes a message that represents a list: its fields with this number.
    fn list_of(&mut self, of: Type, bytes: &'a [u8], number: u64) -> Result<(), Error> {
        self.out.push(b'[');
        let mut first = true;
        for field in fields(bytes) {
            match field? {
                (found, value) if found == number => self.element(b"", of, value, &mut first)?,
                _ => {}
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// Writes an embedded object, which is JSON, or protobuf in an envelope.
    fn raw(&mut self, bytes: &'a [u8]) -> Result<bool, Error> {
        let start = self.out.len();
        if !bytes.starts_with(b"k8s\0") {
            let ambiguities = raw::push(self.out, bytes);
            self.left_out.ambiguities = self.left_out.ambiguities.union(ambiguities);
            return Ok(self.fits());
        }
        match self.envelope(bytes, None) {
            Err(Error::UnknownKind { .. }) => {
                self.left_out.unknown = true;
                self.out.truncate(start);
                raw::push_base64(self.out, bytes);
                Ok(self.fits())
            }
            written => written.map(|()| true),
        }
    }

    fn fits(&mut self) -> bool {
        let fits = self.out.len() <= self.end;
        self.left_out.truncated |= !fits;
        fits
    }
}

/// `resource.Quantity`
pub(super) fn push_quantity(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    match only(bytes, 1)? {
        Some(text) if !text.is_empty() => json::push_string(out, text),
        _ => out.extend_from_slice(b"\"0\""),
    }
    Ok(())
}

/// Returns the last field with this number, which must be length-delimited.
fn only(message: &[u8], number: u64) -> Result<Option<&[u8]>, Error> {
    let mut last = None;
    for field in fields(message) {
        match field? {
            (found, value) if found == number => last = Some(bytes(value)?),
            _ => {}
        }
    }
    Ok(last)
}
