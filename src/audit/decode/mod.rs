//! Request bodies, decoded like kube-apiserver's Go decoders do.
//!
//! What the API server acts on is what its decoders make of the bytes: `sigs.k8s.io/json`,
//! go-yaml v2 behind `sigs.k8s.io/yaml`, and the code that gogo/protobuf generates. [`decode`]
//! returns that, and which constructs of the body depend on the decoder. Nothing here does I/O.

mod ambiguity;
mod content_type;

use std::borrow::Cow;

pub use ambiguity::{Ambiguities, Ambiguity};
pub use content_type::Format;

use super::body;
use super::event::ObjectMetadata;
use super::object::{self, MediaType};
use super::recording::RequestBodyKind;

/// What is known about a request body before it is decoded.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The format, by the `Content-Type`.
    pub format: Format,
    /// What the body is to kube-apiserver.
    pub kind: RequestBodyKind,
    /// The resource in the URL: API group (empty for the core group), version, resource and
    /// subresource.
    pub resource: Resource<'a>,
}

/// A resource as in the URL of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resource<'a> {
    /// The API group; empty for the core group.
    pub group: &'a [u8],
    /// The version, such as `v1`.
    pub version: &'a [u8],
    /// The resource, such as `configmaps`.
    pub resource: &'a [u8],
    /// The subresource, or empty.
    pub subresource: &'a [u8],
}

/// A request body as kube-apiserver reads it.
#[derive(Debug)]
pub struct Decoded<'b> {
    /// The object as valid UTF-8 JSON without duplicate keys; the body itself where that is the
    /// same. Patches are recorded verbatim, as in kube-apiserver, so they may have duplicate keys.
    /// Not yet compacted, redacted or truncated.
    pub json: Cow<'b, [u8]>,
    /// The identity of the object; `None` for a patch and for `DeleteOptions`.
    pub metadata: Option<ObjectMetadata>,
    /// The constructs that make the meaning of the body depend on its decoder.
    pub ambiguities: Ambiguities,
    /// What else the event has to say about the body, such as members that the JSON lacks.
    pub note: Option<String>,
}

/// Why kube-apiserver does not accept a body either, or why it cannot be decoded here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// What is wrong; never quotes the body.
    pub message: String,
    /// The constructs found up to there.
    pub ambiguities: Ambiguities,
}

/// Decodes a complete request body.
///
/// # Errors
/// The body is not what its format and kind require. kube-apiserver refuses it with 400 then, so
/// there is no object to record. Should it accept it all the same, the event has to carry the raw
/// bytes and this error.
pub fn decode<'b>(request: &Request<'_>, body: &'b [u8]) -> Result<Decoded<'b>, DecodeError> {
    let error = |message: String| DecodeError { message, ambiguities: Ambiguities::default() };
    let (media_type, json) = match request.format {
        Format::Json => (MediaType::Json, Cow::Borrowed(body)),
        Format::Yaml => {
            (MediaType::Yaml, Cow::Owned(body::yaml_to_json(body).map_err(error)?.json))
        }
        Format::Protobuf => (
            MediaType::Protobuf,
            Cow::Owned(body::protobuf_to_json(body, usize::MAX).map_err(error)?.json),
        ),
        Format::Cbor | Format::Unsupported => {
            return Err(error("its Content-Type is unknown".to_owned()));
        }
    };
    let metadata = match request.kind {
        RequestBodyKind::Object => object::metadata(media_type, body),
        _ => None,
    };
    Ok(Decoded { json, metadata, ambiguities: Ambiguities::default(), note: None })
}
