//! Parses JSON like go-jose: names are case-sensitive, and duplicate names at any depth are
//! invalid.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an object in their order, with unique names.
#[derive(Debug)]
pub(super) struct Members(Vec<(String, Value)>);

impl Members {
    /// Parses an object.
    ///
    /// # Errors
    /// Returns an error if the text is not an object, or contains a duplicate name at any depth.
    pub(super) fn parse(text: &[u8]) -> Result<Members, serde_json::Error> {
        serde_json::from_slice::<Unique>(text)?;
        let AllMembers(members) = serde_json::from_slice(text)?;
        let read = |(name, raw): (String, &RawValue)| {
            serde_json::from_str(raw.get()).map(|value: Value| (name, value))
        };
        members.into_iter().map(read).collect::<Result<_, _>>().map(Members)
    }

    /// Returns a member; `None` if it is missing or null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        found.filter(|value| !value.is_null())
    }

    /// Returns a string member; an empty string if it is missing or null.
    ///
    /// # Errors
    /// Returns an error if the member is not a string.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, WrongType> {
        self.get(name).map_or(Ok(""), |value| value.as_str().ok_or(WrongType(name)))
    }

    /// Returns a member that is a list of strings; `None` if it is missing or null.
    ///
    /// # Errors
    /// Returns an error if the member is not a list of strings.
    pub(super) fn texts(&self, name: &'static str) -> Result<Option<Vec<&str>>, WrongType> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let texts = value.as_array().ok_or(WrongType(name))?.iter().map(|item| match item {
            Value::Null => Some(""),
            item => item.as_str(),
        });
        texts.collect::<Option<_>>().map(Some).ok_or(WrongType(name))
    }
}

/// A member has the wrong type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the member {0:?} is of the wrong type")]
pub struct WrongType(&'static str);

/// All members of an object in their order, including duplicates.
#[derive(Debug)]
pub(super) struct AllMembers<'t>(pub(super) Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for AllMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = AllMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(AllMembers(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Any value without duplicate names.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
                while list.next_element::<Unique>()?.is_some() {}
                Ok(Unique)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut names = std::collections::HashSet::new();
                while let Some((name, Unique)) = map.next_entry::<String, Unique>()? {
                    if !names.insert(name) {
                        return Err(A::Error::custom("a member occurs twice"));
                    }
                }
                Ok(Unique)
            }
        }
        deserializer.deserialize_any(Any)
    }
}
