//! JSON as `sigs.k8s.io/json` decodes it into an object.

mod fold;
mod names;
mod plain;
mod scalar;
mod survey;
mod tape;
mod typed;
mod words;

use std::borrow::Cow;

use fold::folds_to;
use plain::Style;
use survey::Hints;
pub(crate) use tape::valid_utf8;
use tape::{Kind, Node, Tape};

use super::ambiguity::{Ambiguities, Ambiguity};
use super::resources;
use crate::decode::Resource;
use crate::protobuf::table;
use k8s_audit::event::ObjectMetadata;

/// A decoded JSON text.
pub(super) struct Decoded<'b> {
    pub(super) json: Cow<'b, [u8]>,
    /// The identity of the object, if it is already known.
    pub(super) metadata: Option<ObjectMetadata>,
    pub(super) ambiguities: Ambiguities,
}

impl<'b> Decoded<'b> {
    fn as_it_is(text: &'b [u8], metadata: ObjectMetadata) -> Decoded<'b> {
        let json = Cow::Borrowed(text);
        Decoded { json, metadata: Some(metadata), ambiguities: Ambiguities::default() }
    }

    fn made(tape: &Tape<'_>, json: Vec<u8>) -> Decoded<'b> {
        Decoded { json: Cow::Owned(json), metadata: None, ambiguities: tape.ambiguities }
    }
}

/// Decodes the object of a request for `resource`. `is_canonical`: the text is known to have no
/// duplicate keys, which saves a check.
///
/// # Errors
/// kube-apiserver also rejects it.
pub(super) fn object<'b>(
    text: &'b [u8],
    resource: &Resource<'_>,
) -> Result<Decoded<'b>, &'static str> {
    if let Some(metadata) = survey::survey(text, hints(resource)) {
        return Ok(Decoded::as_it_is(text, metadata));
    }
    let mut tape = tape::parse(text)?;
    let mut out = Vec::with_capacity(text.len() + 64);
    let (mut kind, mut api_version) = type_meta(&mut tape)?;
    let default = resources::kind(resource);
    if let Some(default) = default {
        if kind.is_empty() {
            kind = default.kind.as_bytes().to_vec();
        }
        complete(&mut api_version, resource);
    }
    match table::kind(&api_version, &kind) {
        Some(message) if is_object_or_null(&tape) => {
            let node = if tape.kind(0) == Kind::Object { Some(0) } else { None };
            write_typed(&mut tape, message, node, &kind, &api_version, &mut out)?;
        }
        Some(_) => return Err("the body is not an object"),
        None => write_custom(&mut tape, &mut out)?,
    }
    Ok(Decoded::made(&tape, out))
}

/// Decodes `DeleteOptions`, whatever their API group is.
///
/// # Errors
/// kube-apiserver also rejects them.
pub(super) fn delete_options(text: &[u8]) -> Result<Decoded<'_>, &'static str> {
    let hints = Hints { nulls: true, ..Hints::default() };
    if let Some(metadata) = survey::survey(text, hints) {
        return Ok(Decoded::as_it_is(text, metadata));
    }
    let mut tape = tape::parse(text)?;
    let mut out = Vec::with_capacity(text.len());
    type_meta(&mut tape)?;
    let message = table::kind(b"v1", b"DeleteOptions").ok_or("unknown kind")?;
    let node = if tape.kind(0) == Kind::Object { Some(0) } else { None };
    write_typed(&mut tape, message, node, b"DeleteOptions", b"v1", &mut out)?;
    Ok(Decoded::made(&tape, out))
}

/// Reads a patch, which is recorded unchanged except for invalid UTF-8.
///
/// # Errors
/// It is not JSON.
pub(super) fn patch(text: &[u8]) -> Result<Decoded<'_>, &'static str> {
    if let Some(metadata) = survey::survey(text, Hints::default()) {
        return Ok(Decoded::as_it_is(text, metadata));
    }
    let mut tape = tape::parse(text)?;
    // This also detects duplicate keys.
    plain::write(&mut tape, 0, Style::Decoded, &mut Vec::new()).or_else(|_| {
        let mut ignored = Vec::new();
        plain::write(&mut tape, 0, Style::Verbatim, &mut ignored)
    })?;
    let json = if tape.ambiguities.contains(Ambiguity::InvalidUtf8) {
        let mut out = Vec::with_capacity(text.len() + 64);
        plain::write(&mut tape, 0, Style::Verbatim, &mut out)?;
        Cow::Owned(out)
    } else {
        Cow::Borrowed(text)
    };
    Ok(Decoded { json, metadata: None, ambiguities: tape.ambiguities })
}

/// Returns what is ambiguous in JSON that is recorded unchanged; `None` if it is not JSON, apart
/// from invalid UTF-8.
pub(crate) fn ambiguities(text: &[u8]) -> Option<Ambiguities> {
    if survey::survey(text, Hints::default()).is_some() {
        return Some(Ambiguities::default());
    }
    let mut tape = tape::parse(text).ok()?;
    plain::write(&mut tape, 0, Style::Verbatim, &mut Vec::new()).ok()?;
    Some(tape.ambiguities)
}

/// Writes a custom resource. It has no schema here, but kube-apiserver reads its `metadata` into a
/// struct.
fn write_custom(tape: &mut Tape<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    let metadata = |(key, value): &(Node, Node)| {
        &*tape.text(*key).0 == b"metadata" && tape.kind(*value) == Kind::Object
    };
    let object_meta = table::kind(b"v1", b"Pod").and_then(|pod| pod.first()).map(|field| field.of);
    let has_metadata = tape.kind(0) == Kind::Object && tape.members(0).any(|m| metadata(&m));
    let (Some(table::Type::Message(object_meta)), true) = (object_meta, has_metadata) else {
        return plain::write(tape, 0, Style::Decoded, out);
    };
    out.push(b'{');
    for (index, (key, value)) in plain::unique_members(tape, 0).into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        plain::string(tape, key, out);
        out.push(b':');
        let is_metadata = &*tape.text(key).0 == b"metadata" && tape.kind(value) == Kind::Object;
        if is_metadata {
            let before = out.len();
            if typed::Writer::new(tape, out).message(object_meta, value).is_ok() {
                continue;
            }
            // kube-apiserver rejects it, or this proxy does not know its type.
            out.truncate(before);
        }
        plain::write(tape, value, Style::Decoded, out).inspect_err(|_| out.truncate(start))?;
    }
    out.push(b'}');
    Ok(())
}

fn write_typed(
    tape: &mut Tape<'_>,
    message: &'static [table::Field],
    node: Option<Node>,
    kind: &[u8],
    api_version: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let mut writer = typed::Writer::new(tape, out);
    match node {
        Some(node) => writer.object(message, node, kind, api_version),
        // `null` does not change the object.
        None => writer.empty(kind, api_version),
    }
}

fn is_object_or_null(tape: &Tape<'_>) -> bool {
    matches!(tape.kind(0), Kind::Object | Kind::Null)
}

/// Returns `kind` and `apiVersion`, for which Go ignores the case of the names.
fn type_meta(tape: &mut Tape<'_>) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
    let (mut kind, mut api_version) = (Vec::new(), Vec::new());
    match tape.kind(0) {
        Kind::Object => {}
        Kind::Null => return Ok((kind, api_version)),
        _ => return Err("the body is not an object"),
    }
    let members: Vec<_> = tape.members(0).collect();
    for (key, value) in members {
        let name = tape.text(key).0;
        let (place, exact) = if folds_to(&name, "kind") {
            (&mut kind, &*name == b"kind")
        } else if folds_to(&name, "apiVersion") {
            (&mut api_version, &*name == b"apiVersion")
        } else {
            continue;
        };
        match tape.kind(value) {
            Kind::Null => continue,
            Kind::String => {}
            _ => return Err("kind or apiVersion is not a string"),
        }
        if !exact {
            tape.ambiguities.insert(Ambiguity::CaseVariantKeys);
        }
        if !place.is_empty() {
            tape.ambiguities.insert(Ambiguity::DuplicateKeys);
        }
        *place = tape.text(value).0.into_owned();
    }
    Ok((kind, api_version))
}

/// Completes an `apiVersion` from the resource, like Go: if it is missing, or if it lacks the
/// version of the same group.
fn complete(api_version: &mut Vec<u8>, resource: &Resource<'_>) {
    if api_version.is_empty() || api_version == b"/" {
        *api_version = if resource.group.is_empty() {
            resource.version.to_vec()
        } else {
            [resource.group, b"/", resource.version].concat()
        };
    }
}

fn hints(resource: &Resource<'_>) -> Hints {
    let is_typed = resources::is_built_in(resource.group);
    let binary: Option<&'static [u8]> = match (resource.group, resource.resource) {
        (b"", b"secrets") => Some(b"data"),
        (b"", b"configmaps") => Some(b"binaryData"),
        _ => None,
    };
    let binary_anywhere = matches!(
        resource.group,
        b"certificates.k8s.io"
            | b"admissionregistration.k8s.io"
            | b"apiextensions.k8s.io"
            | b"apiregistration.k8s.io"
    );
    Hints { object: true, nulls: is_typed, binary, binary_anywhere }
}

#[cfg(test)]
mod tests;
