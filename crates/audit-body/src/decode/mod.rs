//! Request bodies, decoded like kube-apiserver's Go decoders do.
//!
//! The API server acts on the result of its decoders: `sigs.k8s.io/json`, go-yaml v2 behind
//! `sigs.k8s.io/yaml`, `fxamacker/cbor`, and the code that gogo/protobuf generates. [`decode`]
//! returns the same, and reports constructs that other decoders may read differently. Objects in
//! responses go through the same decoders.

mod ambiguity;
mod cbor;
mod content_type;
mod json;
mod number;
mod resources;
mod response;
mod yaml;

use std::borrow::Cow;

pub use ambiguity::{Ambiguities, Ambiguity};
pub use content_type::Format;
pub(super) use json::{ambiguities as json_ambiguities, valid_utf8};
pub(super) use number::push_float;
pub(super) use response::to_json;

use super::RequestBodyKind;
use super::object;
use super::protobuf;
use k8s_audit::event::ObjectMetadata;

/// What is known about a request body before it is decoded.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The format, by the `Content-Type`.
    pub format: Format,
    /// What kube-apiserver expects the body to be.
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
    /// A note for the event, for example about members that the JSON lacks.
    pub note: Option<String>,
}

/// Why a body cannot be decoded, here and usually in kube-apiserver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The error; it never quotes the body.
    pub message: String,
    /// The ambiguous constructs before the error.
    pub ambiguities: Ambiguities,
}

/// Decodes a complete request body.
///
/// # Errors
/// The body is not what its format and kind require. kube-apiserver rejects it with 400, so there
/// is no object to record. If it accepts it nevertheless, the event must contain the raw bytes and
/// this error.
pub fn decode<'b>(request: &Request<'_>, body: &'b [u8]) -> Result<Decoded<'b>, DecodeError> {
    match request.format {
        Format::Json => from_json(request, Cow::Borrowed(body), Ambiguities::default()),
        Format::Yaml => {
            let error = |error: yaml::Error| DecodeError::new(&error.to_string());
            match yaml::to_json(body).map_err(error) {
                Ok((json, ambiguities)) => from_json(request, Cow::Owned(json), ambiguities),
                Err(error) if request.kind == RequestBodyKind::Patch => {
                    rejected_patch(request, body, error)
                }
                Err(error) => Err(error),
            }
        }
        Format::Protobuf => from_protobuf(request, body),
        Format::Cbor => {
            let error = |error: cbor::Error| DecodeError::new(&error.to_string());
            let (json, ambiguities) = cbor::to_json(body).map_err(error)?;
            from_json(request, Cow::Owned(json), ambiguities)
        }
        Format::Unsupported => Err(DecodeError::new("its Content-Type is not supported")),
    }
}

/// An apply patch that is not YAML can still be JSON, which kube-apiserver records when it rejects
/// the patch.
fn rejected_patch<'b>(
    request: &Request<'_>,
    body: &'b [u8],
    error: DecodeError,
) -> Result<Decoded<'b>, DecodeError> {
    match from_json(request, Cow::Borrowed(body), error.ambiguities) {
        Ok(decoded) => Ok(Decoded { note: Some(error.message), ..decoded }),
        Err(_) => Err(error),
    }
}

fn from_json<'b>(
    request: &Request<'_>,
    text: Cow<'b, [u8]>,
    before: Ambiguities,
) -> Result<Decoded<'b>, DecodeError> {
    fn decode<'t>(
        request: &Request<'_>,
        text: &'t [u8],
    ) -> Result<json::Decoded<'t>, &'static str> {
        match request.kind {
            RequestBodyKind::Object => json::object(text, &request.resource),
            RequestBodyKind::Patch => json::patch(text),
            RequestBodyKind::DeleteOptions => json::delete_options(text),
        }
    }
    let error = |error: &str| DecodeError { ambiguities: before, ..DecodeError::new(error) };
    let (json, metadata, ambiguities) = match text {
        Cow::Borrowed(text) => {
            let json::Decoded { json, metadata, ambiguities } =
                decode(request, text).map_err(error)?;
            (json, metadata, ambiguities)
        }
        Cow::Owned(text) => {
            let json::Decoded { json, metadata, ambiguities } =
                decode(request, &text).map_err(error)?;
            let made = match json {
                Cow::Owned(json) => Some(json),
                Cow::Borrowed(_) => None,
            };
            (Cow::Owned(made.unwrap_or(text)), metadata, ambiguities)
        }
    };
    let is_object = request.kind == RequestBodyKind::Object;
    let metadata = || metadata.or_else(|| object::metadata(&json));
    let metadata = if is_object { metadata() } else { None };
    Ok(Decoded { json, metadata, ambiguities: ambiguities.union(before), note: None })
}

fn from_protobuf<'b>(request: &Request<'_>, body: &[u8]) -> Result<Decoded<'b>, DecodeError> {
    let resource = &request.resource;
    let api_version = match resource.group {
        b"" => resource.version.to_vec(),
        group => [group, b"/", resource.version].concat(),
    };
    let kind = match request.kind {
        RequestBodyKind::DeleteOptions => Some("DeleteOptions"),
        RequestBodyKind::Object => resources::kind(resource).map(|default| default.kind),
        RequestBodyKind::Patch => None,
    };
    let default = kind.map(|kind| (kind.as_bytes(), &api_version[..]));
    let mut json = Vec::with_capacity(body.len() * 2);
    let transcoded = protobuf::transcode_request(body, &mut json, MAX_PROTOBUF, default)
        .map_err(|error| DecodeError::new(&error.to_string()))?;
    let metadata = match request.kind {
        RequestBodyKind::Object => object::metadata(&json),
        _ => None,
    };
    let note = if transcoded.truncated {
        Some("its protobuf message is too long to be converted")
    } else if transcoded.unknown {
        Some(UNKNOWN_FIELDS)
    } else {
        None
    };
    Ok(Decoded {
        json: Cow::Owned(json),
        metadata,
        ambiguities: transcoded.ambiguities,
        note: note.map(str::to_owned),
    })
}

const UNKNOWN_FIELDS: &str = "it has protobuf fields of a newer Kubernetes, which are left out";

/// The maximum size of the JSON of a protobuf message.
const MAX_PROTOBUF: usize = 24 << 20;

impl DecodeError {
    fn new(message: &str) -> DecodeError {
        DecodeError { message: message.to_owned(), ambiguities: Ambiguities::default() }
    }
}

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod go_tests;
