//! Objects in Protocol Buffers, in which kubectl creates built-in kinds, as JSON.
//!
//! Unset and empty look alike in Kubernetes' encoding, so empty texts, zeros and falses are left
//! out, but for `replicas`, where 0 means something.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::object;
use audit_body::protobuf::{self, Value as Field};

/// Field number to name and type, by message.
type Messages = BTreeMap<&'static str, BTreeMap<u64, (&'static str, &'static str)>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let text = include_str!("protobuf_fields.txt");
    let messages = text.lines().filter(|line| !line.starts_with('#'));
    messages
        .filter_map(|line| line.split_once(": "))
        .map(|(name, fields)| (name, fields.split(", ").filter_map(field).collect()))
        .collect()
});

fn field(text: &'static str) -> Option<(u64, (&'static str, &'static str))> {
    let mut words = text.split(' ');
    Some((words.next()?.parse().ok()?, (words.next()?, words.next()?)))
}

/// The object in an envelope (`k8s\0`); none where it is not one, or of an unknown kind.
pub fn object(bytes: &[u8]) -> Option<Value> {
    let envelope = protobuf::envelope(bytes)?;
    let kind = std::str::from_utf8(envelope.kind).ok()?;
    let version = std::str::from_utf8(envelope.api_version).ok()?;
    MESSAGES.contains_key(kind).then(|| {
        let mut object = message(kind, envelope.raw);
        object.insert("apiVersion".into(), version.into());
        object.insert("kind".into(), kind.into());
        object.into()
    })
}

fn message(name: &str, bytes: &[u8]) -> Map<String, Value> {
    let mut object = Map::new();
    let Some(known) = MESSAGES.get(name) else { return object };
    for (number, value) in protobuf::fields(bytes) {
        let Some(&(name, kind)) = known.get(&number) else { continue };
        if let Some(kind) = kind.strip_prefix('+') {
            object.extend(message(kind, value.bytes()));
        } else if let Some(kind) = kind.strip_prefix("[]") {
            let list = object.entry(name).or_insert_with(|| json!([]));
            let list = list.as_array_mut().expect("only lists are stored under this name");
            list.push(scalar_or_message(kind, value));
        } else if let Some(kind) = kind.strip_prefix("{}") {
            let (key, value) = entry(kind, value.bytes());
            let map = object.entry(name).or_insert_with(|| json!({}));
            map[key] = value;
        } else {
            let value = scalar_or_message(kind, value);
            let empty = value == "" || value == false || value.is_null();
            if !empty && (value != 0 || name == "replicas") {
                object.insert(name.into(), value);
            }
        }
    }
    object
}

/// One entry of a map; key and value may be missing where they are empty.
fn entry(kind: &str, bytes: &[u8]) -> (String, Value) {
    let mut key = String::new();
    let mut value = scalar_or_message(kind, Field::Bytes(&[]));
    for (number, field) in protobuf::fields(bytes) {
        match number {
            1 => key = field.text(),
            2 => value = scalar_or_message(kind, field),
            _ => {}
        }
    }
    (key, value)
}

fn scalar_or_message(kind: &str, value: Field<'_>) -> Value {
    let first = |number| {
        let mut fields = protobuf::fields(value.bytes());
        fields.find(|(n, _)| *n == number).map(|(_, field)| field)
    };
    match kind {
        "text" => value.text().into(),
        "bool" => (value.number() != 0).into(),
        // Negative numbers are in two's complement.
        "int" => value.number().cast_signed().into(),
        "bytes" => object::base64(value.bytes()).into(),
        "quantity" => first(1).map_or(Value::Null, |text| text.text().into()),
        "int-or-string" => match first(1).map_or(0, Field::number) {
            0 => first(2).map_or(0, Field::number).cast_signed().into(),
            _ => first(3).map_or(Value::Null, |text| text.text().into()),
        },
        "json" => first(1).map_or(Value::Null, |text| {
            serde_json::from_slice(text.bytes()).unwrap_or(Value::Null)
        }),
        "list" => {
            let items = protobuf::fields(value.bytes()).filter(|(number, _)| *number == 1);
            items.map(|(_, item)| Value::from(item.text())).collect()
        }
        "time" => first(1).map_or(Value::Null, |seconds| {
            let time = OffsetDateTime::from_unix_timestamp(seconds.number().cast_signed()).ok();
            time.and_then(|time| time.format(&Rfc3339).ok()).map_or(Value::Null, Value::from)
        }),
        name => message(name, value.bytes()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubectl_sends() {
        let config_map =
            b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x1b\n\x11\n\x01x\x12\0\x1a\0\"\0*\0\
                           2\x008\0B\0\x12\x06\n\x01a\x12\x011\x1a\0\"\0";
        let expected = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "x"},
            "data": {"a": "1"},
        });
        assert_eq!(object(config_map).unwrap(), expected);
        assert_eq!(object(b"{}"), None);
        assert_eq!(object(b"k8s\0\n\x0b\n\x02v1\x12\x05Other"), None);
    }

    #[test]
    fn types_that_are_not_plain_messages() {
        let numbered = Field::Bytes(b"\x08\x00\x10\x50\x1a\x00");
        assert_eq!(scalar_or_message("int-or-string", numbered), 80);
        let named = Field::Bytes(b"\x08\x01\x10\x00\x1a\x04http");
        assert_eq!(scalar_or_message("int-or-string", named), "http");
        assert_eq!(scalar_or_message("quantity", Field::Bytes(b"\n\x021m")), "1m");
        assert_eq!(scalar_or_message("list", Field::Bytes(b"\n\x01a\n\x01b")), json!(["a", "b"]));
        let time = Field::Bytes(b"\x08\x80\x92\xb8\xc3\x05");
        assert_eq!(scalar_or_message("time", time), "2017-01-05T08:51:12Z");
        assert_eq!(scalar_or_message("time", Field::Bytes(b"")), Value::Null);
        assert_eq!(entry("bytes", b"\n\x01k\x12\x01f"), ("k".into(), "Zg==".into()));
    }

    #[test]
    fn every_message_that_is_named_is_known() {
        let plain =
            ["text", "int", "bool", "bytes", "time", "quantity", "int-or-string", "json", "list"];
        for (message, fields) in MESSAGES.iter() {
            for (name, kind) in fields.values() {
                let kind = kind.trim_start_matches(['+', '[', ']', '{', '}']);
                assert!(
                    plain.contains(&kind) || MESSAGES.contains_key(kind),
                    "{message}.{name}: {kind}"
                );
            }
        }
    }
}
