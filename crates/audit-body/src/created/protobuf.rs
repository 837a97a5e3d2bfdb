//! Finds the name of an object in protobuf in the part of the message that has arrived.

use super::{Created, Lookup, is_object};

/// Searches the beginning of a message in kube-apiserver's envelope. gogo/protobuf writes fields in
/// the order of their numbers: `typeMeta`, then the object, which begins with its metadata, which
/// begins with `name` and `generateName`.
pub(super) fn look(message: &[u8]) -> Lookup {
    match find(message) {
        Ok(Some(created)) => Lookup::Found(created),
        Ok(None) => Lookup::Nothing,
        Err(TooShort) => Lookup::More,
    }
}

/// More of the message is needed.
struct TooShort;

fn find(message: &[u8]) -> Result<Option<Created>, TooShort> {
    const MAGIC: &[u8] = b"k8s\0";
    let known = message.len().min(MAGIC.len());
    if message[..known] != MAGIC[..known] {
        return Ok(None);
    }
    let mut rest = message.get(MAGIC.len()..).ok_or(TooShort)?;
    let Some(type_meta) = text(&mut rest, 0x0a)? else { return Ok(None) };
    let mut type_meta = type_meta;
    // apiVersion, kind
    let _ = text(&mut type_meta, 0x0a)?;
    let kind = text(&mut type_meta, 0x12)?.unwrap_or_default();
    if !is_object(&String::from_utf8_lossy(kind)) {
        return Ok(None);
    }
    // The values of these fields may be incomplete.
    if !open(&mut rest, 0x12)? || !open(&mut rest, 0x0a)? {
        return Ok(None);
    }
    let mut member = |tag| Ok(text(&mut rest, tag)?.unwrap_or_default());
    let (name, prefix) = (member(0x0a)?, member(0x12)?);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(Created { name: text(name), generate_name: text(prefix) }))
}

/// Consumes the tag and the length of a field; `false` if the next field is another one.
fn open(rest: &mut &[u8], tag: u8) -> Result<bool, TooShort> {
    let (first, mut after) = rest.split_first().ok_or(TooShort)?;
    if *first != tag {
        return Ok(false);
    }
    length(&mut after)?;
    *rest = after;
    Ok(true)
}

/// Consumes a field and returns its value; `None` if the next field is another one.
fn text<'m>(rest: &mut &'m [u8], tag: u8) -> Result<Option<&'m [u8]>, TooShort> {
    let (first, mut after) = rest.split_first().ok_or(TooShort)?;
    if *first != tag {
        return Ok(None);
    }
    let length = length(&mut after)?;
    let (value, after) = after.split_at_checked(length).ok_or(TooShort)?;
    *rest = after;
    Ok(Some(value))
}

fn length(rest: &mut &[u8]) -> Result<usize, TooShort> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(TooShort)?;
        *rest = after;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(value)
}
