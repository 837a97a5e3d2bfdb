//! A YAML document as a tree in which each key and value has its location.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

/// The keys and values of a map, in their order.
#[derive(Default)]
pub(super) struct Entries(pub(super) Vec<(Spanned<String>, Spanned<Value>)>);

/// A value; scalars are texts.
pub(super) enum Value {
    One(String),
    Many(Vec<Spanned<Value>>),
    Map(Entries),
}

impl Value {
    /// The single values, each with its place.
    ///
    /// # Errors
    /// Where there is a map.
    pub(super) fn texts(&self, at: Location) -> Result<Vec<(String, Location)>, Location> {
        match self {
            Value::One(text) => Ok(vec![(text.clone(), at)]),
            Value::Map(_) => Err(at),
            Value::Many(values) => {
                let texts: Result<Vec<_>, _> =
                    values.iter().map(|value| value.value.texts(value.referenced)).collect();
                Ok(texts?.concat())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from flags to values, such as `secure-port: 6443`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                entries(&mut map)
            }
        }

        deserializer.deserialize_map(Map)
    }
}

fn entries<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Entries, A::Error> {
    let mut entries = Vec::new();
    while let Some(entry) = map.next_entry()? {
        entries.push(entry);
    }
    Ok(Entries(entries))
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::One(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::Many(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                entries(&mut map).map(Value::Map)
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}
