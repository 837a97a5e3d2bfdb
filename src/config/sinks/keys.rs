//! Deserializes the keys of a `sinks` entry into several structs.
//!
//! Each struct takes the keys that are its fields; keys that no struct has taken are unknown. In a
//! single struct, `#[serde(flatten)]` and `#[serde(tag)]` would do the same, but they lose the
//! locations of the values.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_yaml::{Location, Spanned};

use super::super::boolean_flag::parse_bool;
use super::super::parse::alternatives;
use super::super::tree::{Entries, Value};

/// Minimum similarity of a known key to be suggested for an unknown one, from 0 to 1.
const SIMILAR: f64 = 0.8;

/// The keys of an entry.
#[derive(Default)]
pub(in crate::config) struct Keys {
    members: Vec<(Spanned<String>, Spanned<Value>)>,
    /// The fields of the structs that were read so far.
    known: Vec<&'static str>,
}

impl Keys {
    pub(super) fn new(Entries(members): Entries) -> Keys {
        Keys { members, known: Vec::new() }
    }

    /// Deserializes a struct from the keys that are its fields, except for those in `without`.
    ///
    /// # Errors
    /// Returns an error about the first invalid value.
    pub(in crate::config) fn read<T: DeserializeOwned>(
        &mut self,
        without: &[&str],
    ) -> Result<T, KeyError> {
        T::deserialize(Struct { keys: self, without })
    }

    /// Returns the fields of the structs that were read so far.
    #[cfg(test)]
    pub(in crate::config) fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// Returns an error if no struct has a field for a key. `owner` describes the entry in the
    /// error, such as `a sink of type file`.
    pub(super) fn check_unknown(&self, owner: &str) -> Result<(), KeyError> {
        let unknown = self.members.iter().find(|(key, _)| !self.known.contains(&&*key.value));
        let Some((key, _)) = unknown else { return Ok(()) };
        let similarity = |known: &str| strsim::jaro(&key.value, known);
        let nearest = self.known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let nearest = nearest.filter(|known| similarity(known) >= SIMILAR);
        let (key, at) = (&key.value, key.referenced);
        let message = match nearest {
            Some(nearest) => format!("{owner} has no {key:?}; did you mean {nearest:?}?"),
            None => format!("{owner} has no {key:?}; it has {}", self.known.join(", ")),
        };
        Err(KeyError { at: Some(at), message })
    }

    /// Returns the location of a key's value.
    pub(super) fn location(&self, wanted: &str) -> Option<Location> {
        let found = self.members.iter().find(|(key, _)| key.value == wanted);
        found.map(|(_, value)| value.referenced)
    }
}

/// An error about the keys of an entry, such as an invalid value.
#[derive(Debug)]
pub(in crate::config) struct KeyError {
    /// The location of the value or key, if the error is not about the whole entry.
    pub(super) at: Option<Location>,
    pub(super) message: String,
}

impl KeyError {
    pub(super) fn new(at: Option<Location>, message: impl Into<String>) -> KeyError {
        KeyError { at, message: message.into() }
    }
}

impl Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for KeyError {}

impl de::Error for KeyError {
    fn custom<T: Display>(message: T) -> KeyError {
        KeyError { at: None, message: message.to_string() }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> KeyError {
        let accepted = alternatives(expected);
        de::Error::custom(format!("{variant:?} is not supported; write {accepted}"))
    }

    fn missing_field(field: &'static str) -> KeyError {
        de::Error::custom(format!("{field} is missing"))
    }
}

/// Deserializes one struct.
struct Struct<'a> {
    keys: &'a mut Keys,
    without: &'a [&'a str],
}

impl<'de> Deserializer<'de> for Struct<'_> {
    type Error = KeyError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        let fields: Vec<_> =
            fields.iter().copied().filter(|field| !self.without.contains(field)).collect();
        let members = self.keys.members.iter();
        let mut own = Vec::new();
        for (key, value) in members {
            if let Some(field) = fields.iter().find(|field| **field == key.value) {
                own.push((*field, value));
            }
        }
        self.keys.known.extend(fields);
        visitor.visit_map(Members { rest: own.into_iter(), next: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, KeyError> {
        Err(de::Error::custom("the keys of a sink are the fields of a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The keys and values of one struct.
struct Members<'a> {
    rest: std::vec::IntoIter<(&'static str, &'a Spanned<Value>)>,
    next: Option<(&'static str, &'a Spanned<Value>)>,
}

impl<'de> de::MapAccess<'de> for Members<'_> {
    type Error = KeyError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, KeyError> {
        self.next = self.rest.next();
        let key = self.next.map(|(key, _)| seed.deserialize(key.into_deserializer()));
        key.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, KeyError> {
        let Some((key, value)) = self.next.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(Texts(value)).map_err(|error| KeyError {
            at: Some(error.at.unwrap_or(value.referenced)),
            message: format!("{key}: {}", error.message),
        })
    }
}

/// Deserializes a value of which all scalars are texts, so that a number may be written as `"5"` or
/// `5`.
struct Texts<'a>(&'a Spanned<Value>);

impl<'a> Texts<'a> {
    fn text(&self) -> Result<&'a str, KeyError> {
        match &self.0.value {
            Value::One(scalar) => Ok(&scalar.text),
            Value::Many(_) => Err(de::Error::custom("write a single value, not a list")),
            Value::Map(_) => Err(de::Error::custom("write a value, not a map")),
        }
    }

    fn number<T: std::str::FromStr<Err: Display>>(&self) -> Result<T, KeyError> {
        let text = self.text()?;
        text.parse().map_err(|error| de::Error::custom(format!("{text:?} is invalid: {error}")))
    }
}

/// Methods that parse a number.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
            visitor.$visit(self.number::<$type>()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Texts<'_> {
    type Error = KeyError;

    numbers! {
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
        deserialize_f32 visit_f32 f32
        deserialize_f64 visit_f64 f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        let text = self.text()?;
        let value = parse_bool(text)
            .map_err(|error| KeyError::new(None, format!("{text:?} is invalid: {error}")))?;
        visitor.visit_bool(value)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        let text: StrDeserializer<'_, KeyError> = self.text()?.into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    /// Accepts a YAML list or a comma-separated text.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyError> {
        let Texts(value) = self;
        let texts = value.value.texts(value.referenced).map_err(|at| KeyError {
            at: Some(at),
            message: "write a value or a list of values, not a map".to_owned(),
        })?;
        let parts = texts.iter().flat_map(|(text, _)| text.split(','));
        visitor.visit_seq(de::value::SeqDeserializer::new(parts))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}
