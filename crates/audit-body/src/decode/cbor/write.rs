//! Writes a CBOR data item as JSON, like Go's encoder after decoding into an `interface{}`.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::Error;
use super::head::Head;
use super::tape::{Encoding, Node, Tape};
use super::time;
use crate::decode::number::push_float;
use crate::redacted::hex;
use k8s_audit::json::push_string;

/// Keys and values.
type Members<'b> = Vec<(Cow<'b, [u8]>, Node)>;

/// The part of a container that is still to be written.
enum Part<'b> {
    /// The members sorted by key in reverse order, so that the next one is last.
    Members(Members<'b>, bool),
    /// The elements from the first to before the second node.
    Elements(Node, Node, bool),
}

/// Writes the JSON of the item; keys are sorted.
pub(super) fn to_json(tape: &Tape<'_>) -> Result<Vec<u8>, Error> {
    let (mut out, mut parts) = (Vec::new(), Vec::new());
    value(tape, 0, &mut out, &mut parts)?;
    while let Some(part) = parts.pop() {
        match part {
            Part::Members(mut members, first) => match members.pop() {
                None => out.push(b'}'),
                Some((key, member)) => {
                    if !first {
                        out.push(b',');
                    }
                    push_string(&mut out, &key);
                    out.push(b':');
                    parts.push(Part::Members(members, false));
                    value(tape, member, &mut out, &mut parts)?;
                }
            },
            Part::Elements(at, end, _) if at == end => out.push(b']'),
            Part::Elements(at, end, first) => {
                if !first {
                    out.push(b',');
                }
                parts.push(Part::Elements(tape.next(at), end, false));
                value(tape, at, &mut out, &mut parts)?;
            }
        }
    }
    Ok(out)
}

fn value<'b>(
    tape: &Tape<'b>,
    node: Node,
    out: &mut Vec<u8>,
    parts: &mut Vec<Part<'b>>,
) -> Result<(), Error> {
    let head = tape.head(node)?;
    if tape.is_time(node) {
        let text = match head {
            Head::Text(_) => time::of_text(&tape.bytes(node)?),
            Head::Unsigned(seconds) => time::of_seconds(seconds as i64, 0),
            Head::Negative(seconds) => time::of_seconds(!(seconds as i64), 0),
            Head::Float(seconds) => time::of_float(seconds),
            _ => None,
        };
        push_string(out, text.ok_or(Error("a time that Go cannot represent"))?.as_bytes());
        return Ok(());
    }
    match head {
        Head::Null => out.extend_from_slice(b"null"),
        Head::Bool(true) => out.extend_from_slice(b"true"),
        Head::Bool(false) => out.extend_from_slice(b"false"),
        Head::Unsigned(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Head::Negative(number) => {
            out.extend_from_slice((!(number as i64)).to_string().as_bytes());
        }
        Head::Float(number) => {
            push_float(out, number).ok_or(Error("a number that is not finite"))?;
        }
        Head::Text(_) | Head::Bytes(_) => push_string(out, &text(tape, node)?),
        Head::Array(_) => {
            out.push(b'[');
            parts.push(Part::Elements(tape.first(node), tape.next(node), true));
        }
        Head::Map(_) => {
            out.push(b'{');
            parts.push(Part::Members(members(tape, node)?, true));
        }
        Head::Tag(_) | Head::Break => return Err(Error("unexpected break")),
    }
    Ok(())
}

/// Returns the text of a string; byte strings are encoded according to the tag around them.
fn text<'b>(tape: &Tape<'b>, node: Node) -> Result<Cow<'b, [u8]>, Error> {
    let bytes = tape.bytes(node)?;
    if matches!(tape.head(node)?, Head::Text(_)) {
        return Ok(bytes);
    }
    Ok(match tape.encoding(node) {
        Encoding::Plain => bytes,
        Encoding::Base64Url => Cow::Owned(BASE64_URL_SAFE_NO_PAD.encode(bytes).into_bytes()),
        Encoding::Base64 => Cow::Owned(BASE64_STANDARD.encode(bytes).into_bytes()),
        Encoding::Base16 => Cow::Owned(hex(&bytes).into_bytes()),
    })
}

/// Returns the members of a map in reverse order of their keys.
fn members<'b>(tape: &Tape<'b>, map: Node) -> Result<Members<'b>, Error> {
    let mut members = Members::new();
    let (mut at, end) = (tape.first(map), tape.next(map));
    while at < end {
        let key = match tape.head(at)? {
            // Go keeps the previous content of its variable: empty, or the key of the preceding
            // member.
            Head::Null if members.is_empty() => Cow::Borrowed(&b""[..]),
            Head::Null => return Err(DUPLICATE),
            _ => text(tape, at)?,
        };
        let member = tape.next(at);
        members.push((key, member));
        at = tape.next(member);
    }
    members.sort_unstable_by(|(left, _), (right, _)| right.cmp(left));
    if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(DUPLICATE);
    }
    Ok(members)
}

const DUPLICATE: Error = Error("found duplicate map key");
