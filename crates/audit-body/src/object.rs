//! The identity of the object in a request body, which even level `Metadata` uses.

use http::{HeaderMap, header};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use k8s_audit::event::ObjectMetadata;

/// Returns the identity of an object in JSON; `None` if it cannot be read.
pub(super) fn metadata(body: &[u8]) -> Option<ObjectMetadata> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let metadata = json.deserialize_map(ObjectVisitor).ok()?;
    json.end().ok()?;
    Some(metadata)
}

/// The format of a body, from its `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json` and the JSON patch types, and bodies without a `Content-Type`.
    Json,
    /// `application/yaml`, `application/apply-patch+yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
    /// `application/cbor`, and `application/cbor-seq`, of which the first item is read.
    Cbor,
    /// Anything else.
    Other,
}

impl MediaType {
    /// Reads the format from the headers of a message.
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
        } else if is("application/cbor") || is("application/cbor-seq") {
            MediaType::Cbor
        } else {
            MediaType::Other
        }
    }
}

/// Reads `metadata` of an object and skips the rest. Of duplicate keys the last one counts, as in
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
    fn identity_is_read() {
        let all = ObjectMetadata {
            namespace: "ns".into(),
            name: "a".into(),
            uid: "u".into(),
            resource_version: "7".into(),
        };
        let json = br#"{"spec":{"metadata":{"name":"x"}},"metadata":{"name":"a","namespace":"ns","uid":"u","resourceVersion":"7","labels":{"name":"y"}}}"#;
        assert_eq!(metadata(json), Some(all));
        let twice = br#"{"metadata":{"name":"a","name":"b"},"metadata":{"name":"c"}}"#;
        assert_eq!(metadata(twice), Some(named("c")));
        assert_eq!(metadata(b"{\"metadata\":null}"), Some(named("")));
        for bad in [&b"{\"metadata\":"[..], b"[]", b"", b"{\"metadata\":3}", b"{} x"] {
            assert_eq!(metadata(bad), None);
        }
    }
}
