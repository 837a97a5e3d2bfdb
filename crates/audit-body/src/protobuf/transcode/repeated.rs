//! Fields that occur several times: lists, maps, and those that should occur once.

use std::ops::Range;

use super::{Entry, Error, Writer, bytes, delimited, zero};
use crate::decode::Ambiguity;
use crate::protobuf::table::Type;
use crate::protobuf::{self, Value};
use k8s_audit::json;

impl<'a> Writer<'a, '_> {
    /// Returns the messages of these entries.
    pub(super) fn parts(&self, entries: Range<usize>) -> Result<Vec<&'a [u8]>, Error> {
        self.entries[entries].iter().map(|entry| bytes(entry.value)).collect()
    }

    /// Writes a field that occurs several times although it is neither repeated nor a message of
    /// the table.
    pub(super) fn repeated(&mut self, of: Type, entries: Range<usize>) -> Result<bool, Error> {
        let start = self.out.len();
        match of {
            // Messages with their own JSON encoding, into which all occurrences are decoded.
            Type::IntOrString | Type::Quantity => {
                let all = self.parts(entries)?.concat();
                match of {
                    Type::Quantity => protobuf::value::push_quantity(self.out, &all)?,
                    _ => protobuf::scalar::push_int_or_string(self.out, &all)?,
                }
                Ok(true)
            }
            _ => {
                let mut fits = true;
                for index in entries {
                    self.out.truncate(start);
                    fits = self.value(of, self.entries[index].value)?;
                }
                Ok(fits)
            }
        }
    }

    pub(super) fn list(&mut self, of: Type, entries: Range<usize>) -> Result<(), Error> {
        self.out.push(b'[');
        let mut first = true;
        for index in entries {
            match (of, self.entries[index].value) {
                // The packed encoding of proto3.
                (Type::Int | Type::Int32 | Type::Bool, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let number = protobuf::varint(&mut packed).ok_or(Error::Malformed)?;
                        self.element(b"", of, Value::Varint(number), &mut first)?;
                    }
                }
                (_, value) => self.element(b"", of, value, &mut first)?,
            }
        }
        self.out.push(b']');
        Ok(())
    }

    pub(super) fn map(&mut self, of: Type, entries: Range<usize>) -> Result<(), Error> {
        let mut sorted = Vec::with_capacity(entries.len());
        for index in entries {
            let Entry { value, tail, .. } = self.entries[index];
            let length = bytes(value)?.len();
            sorted.push(self.map_entry(of, tail, length)?);
        }
        sorted.sort_by_key(|(key, _)| *key);
        self.out.push(b'{');
        let mut first = true;
        for (index, (key, value)) in sorted.iter().enumerate() {
            // Of duplicate keys the last one counts.
            let is_last = sorted.get(index + 1).is_none_or(|(next, _)| next != key);
            self.note_ambiguity(!is_last, Ambiguity::DuplicateKeys);
            if is_last {
                self.note_ambiguity(str::from_utf8(key).is_err(), Ambiguity::InvalidUtf8);
                let mut name = Vec::with_capacity(key.len() + 3);
                json::push_string(&mut name, key);
                name.push(b':');
                self.element(&name, of, *value, &mut first)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Returns the key and the value of a map entry, which has `length` bytes of `tail`. Like the
    /// generated Go code, this ignores wire types, and may read beyond the entry up to the end of
    /// the message around it.
    fn map_entry(
        &mut self,
        of: Type,
        tail: &'a [u8],
        length: usize,
    ) -> Result<(&'a [u8], Value<'a>), Error> {
        let (mut key, mut value) = (&b""[..], zero(of));
        let mut rest = tail;
        let (mut keys, mut values) = (0, 0);
        while tail.len() - rest.len() < length {
            self.note_key(rest);
            let mut after = rest;
            let tag = protobuf::varint(&mut after).ok_or(Error::Malformed)?;
            match (tag >> 3) as i32 {
                1 => {
                    keys += 1;
                    key = delimited(&mut after).ok_or(Error::Malformed)?;
                }
                2 => {
                    values += 1;
                    value = match of {
                        Type::Bool | Type::Int | Type::Int32 => {
                            Value::Varint(protobuf::varint(&mut after).ok_or(Error::Malformed)?)
                        }
                        Type::Double => protobuf::value(1, &mut after).ok_or(Error::Malformed)?,
                        _ => Value::Bytes(delimited(&mut after).ok_or(Error::Malformed)?),
                    };
                }
                _ => {
                    protobuf::value(tag, &mut after).ok_or(Error::Malformed)?;
                    if tail.len() - after.len() > length {
                        return Err(Error::Malformed);
                    }
                }
            }
            rest = after;
        }
        self.note_ambiguity(keys > 1 || values > 1, Ambiguity::RepeatedField);
        Ok((key, value))
    }

    /// Writes one element of a list, or of a map with its name.
    pub(in crate::protobuf) fn element(
        &mut self,
        name: &[u8],
        of: Type,
        value: Value<'a>,
        first: &mut bool,
    ) -> Result<(), Error> {
        let start = self.out.len();
        if self.is_full() || name.len() > self.end - start {
            self.left_out.truncated = true;
            return Ok(());
        }
        if !*first {
            self.out.push(b',');
        }
        self.out.extend_from_slice(name);
        match self.value(of, value)? {
            true => *first = false,
            false => self.out.truncate(start),
        }
        Ok(())
    }
}
