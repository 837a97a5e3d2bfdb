//! What a request's own object says of its identity: the part of a body that even level
//! `Metadata` shows.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::event::ObjectMetadata;
use super::protobuf;
use crate::body::Tap;
use crate::status::Status;

/// Bodies longer than this are not looked at; kube-apiserver refuses them (3 MiB).
const LIMIT: usize = 3 << 20;

/// Keeps a request body while it streams by.
pub struct ObjectTap {
    seen: Vec<Bytes>,
    length: usize,
    captured: CapturedObject,
}

/// What an [`ObjectTap`] has kept, once the body has ended.
#[derive(Clone, Default)]
pub struct CapturedObject(Arc<Mutex<Option<Vec<Bytes>>>>);

impl ObjectTap {
    /// A tap, and where its result will be.
    pub fn new() -> (ObjectTap, CapturedObject) {
        let captured = CapturedObject::default();
        (ObjectTap { seen: Vec::new(), length: 0, captured: captured.clone() }, captured)
    }
}

impl Tap for ObjectTap {
    fn data(&mut self, data: &Bytes) {
        self.length += data.len();
        if self.length > LIMIT {
            self.seen = Vec::new();
        } else {
            self.seen.push(data.clone());
        }
    }

    fn end(&mut self) {
        if self.length <= LIMIT
            && let Ok(mut captured) = self.captured.0.lock()
        {
            *captured = Some(std::mem::take(&mut self.seen));
        }
    }
}

impl CapturedObject {
    /// The identity of the object in the body; `None` if the body has not ended, was too long, or
    /// cannot be read.
    pub fn metadata(&self, headers: MediaType) -> Option<ObjectMetadata> {
        let chunks = self.0.lock().ok()?.take()?;
        let body = match chunks.as_slice() {
            [one] => one.clone(),
            many => many.iter().fold(BytesMut::new(), joined).freeze(),
        };
        match headers {
            MediaType::Json => from_json(&body),
            MediaType::Yaml => from_yaml(&body),
            MediaType::Protobuf => Some(from_protobuf(&body)?),
            MediaType::Other => None,
        }
    }
}

fn joined(mut all: BytesMut, chunk: &Bytes) -> BytesMut {
    all.extend_from_slice(chunk);
    all
}

/// How a body is encoded, by its `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`, and what carries no type.
    Json,
    /// `application/yaml`
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
        if media_type.is_empty() || media_type.eq_ignore_ascii_case(b"application/json") {
            MediaType::Json
        } else if media_type.eq_ignore_ascii_case(b"application/yaml") {
            MediaType::Yaml
        } else if media_type.eq_ignore_ascii_case(b"application/vnd.kubernetes.protobuf") {
            MediaType::Protobuf
        } else {
            MediaType::Other
        }
    }
}

/// Whether kube-apiserver read the request's object before it gave this answer; only then does
/// the object add to `objectRef`.
pub fn was_read(answer: &Status) -> bool {
    let message = answer.message.as_str();
    match answer.code {
        200..=399 => true,
        // Of these only what admission and the name checks say comes after reading.
        400 => {
            message.contains("of the provided object does not match")
                || (message.starts_with("the name") && message.contains("does not match"))
                || message.contains("denied the request")
        }
        // Authorization refuses with "… cannot …"; admission in its own words.
        403 => !message.is_empty() && !message.contains("\" cannot "),
        404 => !message.is_empty() && !message.contains("could not find the requested resource"),
        422 => !answer.details.as_ref().is_some_and(|d| d.kind.ends_with("Options")),
        409 | 429 | 500 | 503 | 504 => !message.is_empty(),
        _ => false,
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

    fn captured(media_type: MediaType, chunks: &[&'static [u8]]) -> Option<ObjectMetadata> {
        let (mut tap, captured) = ObjectTap::new();
        assert_eq!(captured.metadata(media_type), None, "nothing before the end");
        for chunk in chunks {
            tap.data(&Bytes::from_static(chunk));
        }
        tap.end();
        captured.metadata(media_type)
    }

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
        let json: &[&[u8]] = &[
            br#"{"spec":{"metadata":{"name":"x"}},"metadata":{"na"#,
            br#"me":"a","namespace":"ns","uid":"u","resourceVersion":"7","labels":{"name":"y"}}}"#,
        ];
        assert_eq!(captured(MediaType::Json, json), Some(all.clone()));
        let yaml: &[&[u8]] =
            &[b"metadata:\n  name: a\n  namespace: ns\n  uid: u\n  resourceVersion: \"7\"\n"];
        assert_eq!(captured(MediaType::Yaml, yaml), Some(all.clone()));
        let protobuf: &[&[u8]] = &[b"k8s\0\x12\x0f\n\x0d\n\x01a\x1a\x02ns*\x01u2\x017"];
        assert_eq!(captured(MediaType::Protobuf, protobuf), Some(all));
    }

    #[test]
    fn odd_bodies() {
        let twice: &[&[u8]] = &[br#"{"metadata":{"name":"a","name":"b"},"metadata":{"name":"c"}}"#];
        assert_eq!(captured(MediaType::Json, twice), Some(named("c")));
        assert_eq!(captured(MediaType::Json, &[b"{\"metadata\":null}"]), Some(named("")));
        for bad in [&b"{\"metadata\":"[..], b"[]", b"", b"{\"metadata\":3}", b"{} x"] {
            let (mut tap, captured) = ObjectTap::new();
            tap.data(&Bytes::copy_from_slice(bad));
            tap.end();
            assert_eq!(captured.metadata(MediaType::Json), None);
        }
        let (mut tap, captured) = ObjectTap::new();
        tap.data(&Bytes::from(vec![b' '; LIMIT]));
        tap.data(&Bytes::from_static(b"{}"));
        tap.end();
        assert_eq!(captured.metadata(MediaType::Json), None, "too long");
    }
}
