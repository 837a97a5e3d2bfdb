//! What a request's own object says of its identity: the part of a body that even level
//! `Metadata` shows.

use http::{HeaderMap, header};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::event::ObjectMetadata;
use super::protobuf;

/// The identity of the object in a request's body; `None` if it cannot be read.
pub fn metadata(media_type: MediaType, body: &[u8]) -> Option<ObjectMetadata> {
    match media_type {
        MediaType::Json => from_json(body),
        MediaType::Yaml => from_yaml(body),
        MediaType::Protobuf => from_protobuf(body),
        MediaType::Other => None,
    }
}

/// How a body is encoded, by its `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`, the patches in it, and what carries no type.
    Json,
    /// `application/yaml`, `application/apply-patch+yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
    /// Anything else.
    Other,
}

impl MediaType {
    /// From the headers that come with a body.
    pub fn of(headers: &HeaderMap) -> MediaType {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return MediaType::Json };
        let value = value.as_bytes();
        let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
        let media_type = value[..end].trim_ascii();
        let is = |known: &str| media_type.eq_ignore_ascii_case(known.as_bytes());
        if media_type.is_empty()
            || is("application/json")
            || is("application/json-patch+json")
            || is("application/merge-patch+json")
            || is("application/strategic-merge-patch+json")
        {
            MediaType::Json
        } else if is("application/yaml") || is("application/apply-patch+yaml") {
            MediaType::Yaml
        } else if is("application/vnd.kubernetes.protobuf") {
            MediaType::Protobuf
        } else {
            MediaType::Other
        }
    }
}

fn from_json(body: &[u8]) -> Option<ObjectMetadata> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let metadata = json.deserialize_map(ObjectVisitor).ok()?;
    json.end().ok()?;
    Some(metadata)
}

fn from_yaml(body: &[u8]) -> Option<ObjectMetadata> {
    let object: serde_json::Value = serde_yaml::from_str(std::str::from_utf8(body).ok()?).ok()?;
    (&object).deserialize_map(ObjectVisitor).ok()
}

/// `metadata` is field 1 of every Kubernetes object, and its members' numbers never change.
fn from_protobuf(body: &[u8]) -> Option<ObjectMetadata> {
    let object = protobuf::envelope(body)?.raw;
    let mut metadata = ObjectMetadata::default();
    for (_, value) in protobuf::fields(object).filter(|(number, _)| *number == 1) {
        for (number, value) in protobuf::fields(value.bytes()) {
            match number {
                1 => metadata.name = value.text(),
                3 => metadata.namespace = value.text(),
                5 => metadata.uid = value.text(),
                6 => metadata.resource_version = value.text(),
                _ => {}
            }
        }
    }
    Some(metadata)
}

/// Reads `metadata` of an object and skips the rest; of duplicate keys the last one counts, as in
/// Go.
struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = ObjectMetadata;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectMetadata, A::Error> {
        let mut metadata = ObjectMetadata::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "metadata" {
                let MetadataMembers(members) = map.next_value()?;
                metadata = members;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(metadata)
    }
}

struct MetadataMembers(ObjectMetadata);

impl<'de> serde::Deserialize<'de> for MetadataMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MetadataMembers, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = ObjectMetadata;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("object metadata")
            }

            fn visit_unit<E>(self) -> Result<ObjectMetadata, E> {
                Ok(ObjectMetadata::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectMetadata, A::Error> {
                let mut metadata = ObjectMetadata::default();
                while let Some(key) = map.next_key::<String>()? {
                    let member = match key.as_str() {
                        "namespace" => &mut metadata.namespace,
                        "name" => &mut metadata.name,
                        "uid" => &mut metadata.uid,
                        "resourceVersion" => &mut metadata.resource_version,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = map.next_value::<Option<String>>()?.unwrap_or_default();
                }
                Ok(metadata)
            }
        }
        deserializer.deserialize_any(Members).map(MetadataMembers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> ObjectMetadata {
        ObjectMetadata { name: name.into(), ..ObjectMetadata::default() }
    }

    #[test]
    fn identity_is_read_from_each_encoding() {
        let all = ObjectMetadata {
            namespace: "ns".into(),
            name: "a".into(),
            uid: "u".into(),
            resource_version: "7".into(),
        };
        let json = br#"{"spec":{"metadata":{"name":"x"}},"metadata":{"name":"a","namespace":"ns","uid":"u","resourceVersion":"7","labels":{"name":"y"}}}"#;
        assert_eq!(metadata(MediaType::Json, json), Some(all.clone()));
        let yaml = b"metadata:\n  name: a\n  namespace: ns\n  uid: u\n  resourceVersion: \"7\"\n";
        assert_eq!(metadata(MediaType::Yaml, yaml), Some(all.clone()));
        let protobuf = b"k8s\0\x12\x0f\n\x0d\n\x01a\x1a\x02ns*\x01u2\x017";
        assert_eq!(metadata(MediaType::Protobuf, protobuf), Some(all));
    }

    #[test]
    fn odd_bodies() {
        let twice = br#"{"metadata":{"name":"a","name":"b"},"metadata":{"name":"c"}}"#;
        assert_eq!(metadata(MediaType::Json, twice), Some(named("c")));
        assert_eq!(metadata(MediaType::Json, b"{\"metadata\":null}"), Some(named("")));
        for bad in [&b"{\"metadata\":"[..], b"[]", b"", b"{\"metadata\":3}", b"{} x"] {
            assert_eq!(metadata(MediaType::Json, bad), None);
        }
    }
}
