//! JSON values without a schema.

use std::collections::HashMap;

use super::tape::{Kind, Node, Tape};
use crate::decode::ambiguity::Ambiguity;
use crate::decode::number::push_float;
use k8s_audit::json::push_string;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Unchanged, except for invalid UTF-8.
    Verbatim,
    /// Like after decoding into a Go `interface{}` and encoding again: of duplicate keys the last
    /// one counts, and numbers are `int64` or `float64`.
    Decoded,
}

enum Part {
    Members(Vec<(Node, Node)>, bool),
    Elements(Node, Node, bool),
}

/// Appends a value.
///
/// # Errors
/// A number is out of the range of `float64`.
pub(super) fn write(
    tape: &mut Tape<'_>,
    node: Node,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let mut parts = Vec::new();
    value(tape, node, style, out, &mut parts)?;
    while let Some(part) = parts.pop() {
        match part {
            Part::Members(mut members, first) => match members.pop() {
                None => out.push(b'}'),
                Some((key, member)) => {
                    if !first {
                        out.push(b',');
                    }
                    string(tape, key, out);
                    out.push(b':');
                    parts.push(Part::Members(members, false));
                    value(tape, member, style, out, &mut parts)?;
                }
            },
            Part::Elements(at, end, _) if at == end => out.push(b']'),
            Part::Elements(at, end, first) => {
                if !first {
                    out.push(b',');
                }
                parts.push(Part::Elements(tape.next(at), end, false));
                value(tape, at, style, out, &mut parts)?;
            }
        }
    }
    Ok(())
}

fn value(
    tape: &mut Tape<'_>,
    node: Node,
    style: Style,
    out: &mut Vec<u8>,
    parts: &mut Vec<Part>,
) -> Result<(), &'static str> {
    match tape.kind(node) {
        Kind::Null => out.extend_from_slice(b"null"),
        Kind::True => out.extend_from_slice(b"true"),
        Kind::False => out.extend_from_slice(b"false"),
        Kind::String => string(tape, node, out),
        Kind::Number if style == Style::Verbatim => out.extend_from_slice(tape.raw(node)),
        Kind::Number => number(tape.raw(node), out)?,
        Kind::Array => {
            out.push(b'[');
            parts.push(Part::Elements(tape.first(node), tape.next(node), true));
        }
        Kind::Object => {
            out.push(b'{');
            let (unique, all) = (unique_members(tape, node), tape.members(node));
            let mut members: Vec<_> = if style == Style::Verbatim { all.collect() } else { unique };
            members.reverse();
            parts.push(Part::Members(members, true));
        }
    }
    Ok(())
}

/// Returns the members of an object sorted by key, of duplicates the last one.
pub(super) fn unique_members(tape: &mut Tape<'_>, node: Node) -> Vec<(Node, Node)> {
    let mut members: Vec<(Node, Node)> = Vec::new();
    let mut places = HashMap::new();
    let mut duplicates = false;
    for (key, value) in tape.members(node) {
        let at = *places.entry(tape.text(key).0).or_insert(members.len());
        match members.get_mut(at) {
            Some(member) => {
                member.1 = value;
                duplicates = true;
            }
            None => members.push((key, value)),
        }
    }
    drop(places);
    if duplicates {
        tape.ambiguities.insert(Ambiguity::DuplicateKeys);
    }
    // Go writes maps in this order.
    members.sort_by_cached_key(|(key, _)| tape.text(*key).0);
    members
}

pub(super) fn string(tape: &mut Tape<'_>, node: Node, out: &mut Vec<u8>) {
    let (text, replaced) = tape.text(node);
    if replaced {
        tape.ambiguities.insert(Ambiguity::UnpairedSurrogate);
    }
    push_string(out, &text);
}

/// Writes a number as `int64` if it is one, otherwise as `float64`.
fn number(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let text = str::from_utf8(raw).map_err(|_| "invalid number")?;
    if let Ok(number) = text.parse::<i64>() {
        out.extend_from_slice(number.to_string().as_bytes());
        return Ok(());
    }
    let number: f64 = text.parse().map_err(|_| "invalid number")?;
    push_float(out, number).ok_or("a number is too large")
}
