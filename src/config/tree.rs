//! Parses a YAML document into a tree in which each key and value has its location.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

/// The keys and values of a map, in document order.
#[derive(Default)]
pub(super) struct Entries(pub(super) Vec<(Spanned<String>, Spanned<Value>)>);

impl Entries {
    /// Parses a document, which must be a map or empty.
    ///
    /// # Errors
    /// Returns an error if the document is not YAML, or not a map.
    pub(super) fn parse(document: &str) -> Result<Entries, serde_yaml::Error> {
        let entries: Option<Entries> = serde_yaml::from_str(document)?;
        let mut entries = entries.unwrap_or_default();
        entries.restore_scalars(document);
        Ok(entries)
    }

    fn restore_scalars(&mut self, document: &str) {
        for (_, value) in &mut self.0 {
            restore_scalar(value, document);
        }
    }
}

/// A value. Scalars are kept as text.
pub(super) enum Value {
    One(Scalar),
    Many(Vec<Spanned<Value>>),
    Map(Entries),
}

/// A scalar.
pub(super) struct Scalar {
    pub(super) text: String,
    /// YAML parsed the scalar as a boolean or a number, so that `text` may differ from the
    /// document.
    is_converted: bool,
}

/// Restores the text that booleans and numbers have in the document. The flag determines the type
/// of its value, not YAML, which turns `no` into false, `007` into 7, and `1.10` into 1.1: `no` may
/// be the name of a node.
fn restore_scalar(value: &mut Spanned<Value>, document: &str) {
    let span = value.defined.span();
    match &mut value.value {
        Value::One(scalar) if scalar.is_converted => {
            let start = span.byte_offset().and_then(|offset| usize::try_from(offset).ok());
            let length = span.byte_len().and_then(|length| usize::try_from(length).ok());
            let source = start.zip(length).and_then(|(at, length)| document.get(at..at + length));
            if let Some(source) = source {
                source.trim().clone_into(&mut scalar.text);
            }
        }
        Value::One(_) => {}
        Value::Many(values) => values.iter_mut().for_each(|value| restore_scalar(value, document)),
        Value::Map(entries) => entries.restore_scalars(document),
    }
}

impl Value {
    /// Returns the scalars, each with its location.
    ///
    /// # Errors
    /// Returns the location of a map, which is not allowed here.
    pub(super) fn texts(&self, at: Location) -> Result<Vec<(String, Location)>, Location> {
        match self {
            Value::One(scalar) => Ok(vec![(scalar.text.clone(), at)]),
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

fn converted(value: impl ToString) -> Value {
    Value::One(Scalar { text: value.to_string(), is_converted: true })
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
                Ok(Value::One(Scalar { text: text.to_owned(), is_converted: false }))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(converted(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(converted(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(converted(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(converted(value))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(document: &str) -> Vec<String> {
        let Entries(entries) = Entries::parse(document).unwrap();
        let texts = entries.iter().flat_map(|(_, value)| {
            value.value.texts(value.referenced).unwrap_or_else(|_| panic!("a map: {document}"))
        });
        texts.map(|(text, _)| text).collect()
    }

    #[test]
    fn a_value_without_quotes_keeps_its_text() {
        let values = [
            "n",
            "N",
            "no",
            "No",
            "y",
            "yes",
            "on",
            "OFF",
            "true",
            "True",
            "FALSE",
            "007",
            "0o17",
            "0x1F",
            "+1",
            "-0",
            "1.10",
            "1e3",
            "1_000",
            "12:30",
            "2026-01-02",
            "1.5.0",
            "é1",
            "10s",
        ];
        for value in values {
            for document in [
                format!("node: {value}\n"),
                format!("node: {value}"),
                format!("# é\nnode:   {value}   # comment\n"),
                format!("node: \"{value}\"\n"),
                format!("{{node: {value}}}"),
                format!("node: !!str {value}\n"),
                format!("node: &node {value}\n"),
            ] {
                assert_eq!(texts(&document), [value], "{document:?}");
            }
            for document in [
                format!("node: [{value}, {value}]\n"),
                format!("node:\n- {value}\n- {value}\n"),
                format!("node: &node {value}\ncluster: *node\n"),
            ] {
                assert_eq!(texts(&document), [value, value], "{document:?}");
            }
        }
    }

    #[test]
    fn a_value_of_several_lines_is_folded() {
        assert_eq!(texts("node: no\n  yes\n"), ["no yes"]);
        assert_eq!(texts("node: >-\n  1\n  2\n"), ["1 2"]);
    }
}
