//! Converts objects in responses, which kube-apiserver has encoded, to JSON.

use super::{MAX_PROTOBUF, cbor, yaml};
use crate::object::MediaType;
use crate::protobuf;

/// An object in another format, converted to JSON.
pub(crate) struct Converted {
    pub(crate) json: Vec<u8>,
    /// Whether parts were left out because of the limit.
    pub(crate) truncated: bool,
    /// A note for the event.
    pub(crate) note: Option<String>,
}

/// Converts an object in YAML, CBOR or protobuf to JSON of at most about `limit` bytes, by the
/// decoders that request bodies go through. Keys are sorted, but for those of protobuf, which are
/// in the order of Go's structs.
///
/// # Errors
/// The bytes are not an object in this format; the reason never quotes them.
pub(crate) fn to_json(
    media_type: MediaType,
    bytes: &[u8],
    limit: usize,
) -> Result<Converted, String> {
    let whole = |json| Converted { json, truncated: false, note: None };
    match media_type {
        MediaType::Yaml => {
            yaml::to_json(bytes).map(|(json, _)| whole(json)).map_err(|error| error.to_string())
        }
        MediaType::Cbor => {
            cbor::to_json(bytes).map(|(json, _)| whole(json)).map_err(|error| error.to_string())
        }
        MediaType::Protobuf => {
            let limit = limit.min(MAX_PROTOBUF);
            let mut json = Vec::with_capacity(bytes.len() * 2);
            let transcoded = protobuf::transcode(bytes, &mut json, limit);
            let transcoded = transcoded.map_err(|error| error.to_string())?;
            let note = transcoded.unknown.then(|| super::UNKNOWN_FIELDS.to_owned());
            Ok(Converted { json, truncated: transcoded.truncated, note })
        }
        MediaType::Json => Err("it is JSON already".to_owned()),
        MediaType::Other => Err("its Content-Type is unknown".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_becomes_json() {
        let json = |media_type, bytes: &[u8]| {
            to_json(media_type, bytes, 1 << 20).map(|converted| converted.json)
        };
        let yaml = json(MediaType::Yaml, b"b: [1, x, 017]\na:\n  c: yes\n").unwrap();
        assert_eq!(yaml, br#"{"a":{"c":true},"b":[1,"x",15]}"#);
        let cbor = json(MediaType::Cbor, b"\xd9\xd9\xf7\xa2AbB12aa\xd6Bhi").unwrap();
        assert_eq!(cbor, br#"{"a":"aGk=","b":"12"}"#);
        let protobuf = b"k8s\0\n\x0c\n\x02v1\x12\x06Status\x12\x03\x30\x94\x03";
        let protobuf = json(MediaType::Protobuf, protobuf).unwrap();
        assert!(protobuf.ends_with(b",\"code\":404}"));
        for media_type in [MediaType::Cbor, MediaType::Protobuf, MediaType::Other] {
            assert!(json(media_type, b"{").is_err(), "{media_type:?}");
        }
        assert!(json(MediaType::Yaml, b"a: [").is_err());
    }
}
