//! Generates protobuf of the built-in kinds that decoders interpret differently.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::generate::Random;

/// A field: its key in the encoding, and its value.
#[derive(Clone)]
struct Field {
    key: u64,
    value: Wire,
    /// Number of superfluous bytes in the length or number.
    padding: usize,
}

#[derive(Clone)]
enum Wire {
    Number(u64),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
    /// A group, including its end.
    Group(Vec<Field>),
}

/// Encodes an object in its envelope; `None` for kinds that are not supported here.
pub(super) fn write(random: &mut Random, kind: &str, object: &Value) -> Option<Vec<u8>> {
    let mut members = vec![message(1, metadata(&object["metadata"]))];
    match kind {
        "ConfigMap" => {
            map(2, &object["data"], str::as_bytes, &mut members);
            map_of_bytes(3, &object["binaryData"], &mut members);
            members.push(number(4, 0));
        }
        "Secret" => {
            map_of_bytes(2, &object["data"], &mut members);
            members.push(text(3, &object["type"]));
            map(4, &object["stringData"], str::as_bytes, &mut members);
        }
        "Role" => {
            for rule in object["rules"].as_array()? {
                let mut fields = Vec::new();
                for (at, name) in
                    [(1, "verbs"), (2, "apiGroups"), (3, "resources"), (4, "resourceNames")]
                {
                    let values = rule[name].as_array().into_iter().flatten();
                    fields.extend(values.map(|value| text(at, value)));
                }
                members.push(message(2, fields));
            }
        }
        "ClusterRoleBinding" => {
            for subject in object["subjects"].as_array()? {
                let names = ["kind", "apiGroup", "name", "namespace"];
                members.push(message(2, texts(subject, &names)));
            }
            members.push(message(3, texts(&object["roleRef"], &["apiGroup", "kind", "name"])));
        }
        _ => return None,
    }
    for _ in 0..random.below(4) {
        change(random, &mut members);
    }
    let mut type_meta = vec![text(1, &object["apiVersion"]), text(2, &object["kind"])];
    if random.once_in(12) {
        change(random, &mut type_meta);
    }
    let mut envelope = vec![message(1, type_meta), message(2, members)];
    if random.once_in(12) {
        envelope.push(bytes(4, b"application/json"));
    }
    if random.once_in(10) {
        change(random, &mut envelope);
    }
    let mut out = b"k8s\0".to_vec();
    push(&envelope, &mut out);
    Some(out)
}

fn metadata(metadata: &Value) -> Vec<Field> {
    let mut fields = texts(metadata, &["name", "generateName"]);
    map(11, &metadata["labels"], str::as_bytes, &mut fields);
    map(12, &metadata["annotations"], str::as_bytes, &mut fields);
    fields
}

fn bytes(number: u64, bytes: &[u8]) -> Field {
    Field { key: number << 3 | 2, value: Wire::Bytes(bytes.to_vec()), padding: 0 }
}

fn number(number: u64, value: u64) -> Field {
    Field { key: number << 3, value: Wire::Number(value), padding: 0 }
}

fn message(number: u64, fields: Vec<Field>) -> Field {
    Field { key: number << 3 | 2, value: Wire::Message(fields), padding: 0 }
}

fn text(number: u64, value: &Value) -> Field {
    bytes(number, value.as_str().unwrap_or_default().as_bytes())
}

fn texts(object: &Value, names: &[&str]) -> Vec<Field> {
    let all = names.iter().enumerate();
    all.map(|(index, name)| text(index as u64 + 1, &object[*name])).collect()
}

fn map(number: u64, value: &Value, of: impl Fn(&str) -> &[u8], fields: &mut Vec<Field>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let value = bytes(2, of(value.as_str().unwrap_or_default()));
        fields.push(message(number, vec![bytes(1, key.as_bytes()), value]));
    }
}

fn map_of_bytes(number: u64, value: &Value, fields: &mut Vec<Field>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let decoded = BASE64_STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
        fields.push(message(number, vec![bytes(1, key.as_bytes()), bytes(2, &decoded)]));
    }
}

/// Changes one place in a message.
fn change(random: &mut Random, fields: &mut Vec<Field>) {
    if fields.is_empty() {
        return fields.push(bytes(1, b"decoy"));
    }
    let at = random.below(fields.len());
    if let Wire::Message(inner) = &mut fields[at].value
        && !random.once_in(4)
    {
        return change(random, inner);
    }
    let field = &mut fields[at];
    match random.below(14) {
        0 => field.key += 1 << 35,
        1 => field.key += (1 + random.below(30) as u64) << 3,
        2 => field.key = field.key & !7 | *random.one(&[0, 1, 2, 5, 6]),
        3 => field.padding = 1 + random.below(8),
        4 => field.value = Wire::Bytes(random.one(&[&b"\xff\xfe"[..], b"", b"\x0a\x00"]).to_vec()),
        5 => {
            let copy = field.clone();
            fields.push(copy);
        }
        6 => drop(fields.remove(at)),
        7 => {
            let last = fields.len() - 1;
            fields.swap(at, last);
        }
        8 => {
            let key = (1 + random.below(15) as u64) << 3 | 3;
            let group = Wire::Group(vec![bytes(1, b"decoy")]);
            fields.insert(at, Field { key, value: group, padding: 0 });
        }
        9 | 10 => {
            let mut decoy = bytes(1, b"decoy");
            decoy.key = field.key;
            fields.push(decoy);
        }
        11 => {
            let mut copy = field.clone();
            match &mut copy.value {
                Wire::Message(inner) => change(random, inner),
                Wire::Number(number) => *number = 1 << 32,
                other => *other = Wire::Bytes(b"cluster-admin".to_vec()),
            }
            fields.push(copy);
        }
        12 => {
            let mut early = field.clone();
            early.value = Wire::Bytes(b"decoy".to_vec());
            early.key &= !7;
            early.key |= 2;
            fields.insert(0, early);
        }
        _ => fields.push(bytes(100, b"unknown")),
    }
}

fn varint(mut value: u64, padding: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8 | if padding > 0 { 0x80 } else { 0 });
    for left in (0..padding).rev() {
        out.push(if left > 0 { 0x80 } else { 0 });
    }
}

fn push(fields: &[Field], out: &mut Vec<u8>) {
    for Field { key, value, padding } in fields {
        varint(*key, 0, out);
        match value {
            Wire::Number(number) => varint(*number, *padding, out),
            Wire::Bytes(bytes) => {
                varint(bytes.len() as u64, *padding, out);
                out.extend_from_slice(bytes);
            }
            Wire::Message(inner) => {
                let mut content = Vec::new();
                push(inner, &mut content);
                varint(content.len() as u64, *padding, out);
                out.extend_from_slice(&content);
            }
            Wire::Group(inner) => {
                push(inner, out);
                varint(key + 1, 0, out);
            }
        }
    }
}
