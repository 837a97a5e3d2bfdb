//! `ExportLogsServiceRequest` in protobuf, written without a generated model.
//!
//! A message is written behind its length, which is not known before: each is built in a buffer of
//! its own. Fields are numbered as in opentelemetry-proto 1.x.

use super::record::{LogRecord, Value};
use super::{SCOPE, SCOPE_VERSION};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// Encodes a request with one resource and one scope.
pub(super) fn encode<'a>(
    resource: &[(String, String)],
    records: impl Iterator<Item = LogRecord<'a>>,
) -> Vec<u8> {
    let mut attributes = Vec::new();
    for (name, value) in resource {
        attribute(&mut attributes, 1, name, &Value::Text(value.into()));
    }
    let mut scope = Vec::new();
    bytes(&mut scope, 1, SCOPE.as_bytes());
    bytes(&mut scope, 2, SCOPE_VERSION.as_bytes());
    let mut scope_logs = Vec::new();
    bytes(&mut scope_logs, 1, &scope);
    let mut message = Vec::new();
    for record in records {
        message.clear();
        log_record(&mut message, &record);
        bytes(&mut scope_logs, 2, &message);
    }
    let mut resource_logs = Vec::with_capacity(scope_logs.len() + attributes.len() + 32);
    bytes(&mut resource_logs, 1, &attributes);
    bytes(&mut resource_logs, 2, &scope_logs);
    let mut request = Vec::with_capacity(resource_logs.len() + 16);
    bytes(&mut request, 1, &resource_logs);
    request
}

fn log_record(out: &mut Vec<u8>, record: &LogRecord<'_>) {
    fixed64(out, 1, record.time);
    tag(out, 2, VARINT);
    varint(out, record.severity as u64);
    bytes(out, 3, record.severity.text().as_bytes());
    let mut body = Vec::with_capacity(record.body.len() + 8);
    bytes(&mut body, 1, record.body.as_bytes());
    bytes(out, 5, &body);
    for (name, value) in &record.attributes {
        attribute(out, 6, name, value);
    }
    fixed64(out, 11, record.time);
}

fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: &Value<'_>) {
    let mut any = Vec::new();
    match value {
        Value::Text(text) => bytes(&mut any, 1, text.as_bytes()),
        Value::Number(number) => {
            tag(&mut any, 3, VARINT);
            varint(&mut any, *number as u64);
        }
        Value::Texts(texts) => {
            let (mut list, mut item) = (Vec::new(), Vec::new());
            for text in texts {
                item.clear();
                bytes(&mut item, 1, text.as_bytes());
                bytes(&mut list, 1, &item);
            }
            bytes(&mut any, 5, &list);
        }
    }
    let mut pair = Vec::with_capacity(name.len() + any.len() + 8);
    bytes(&mut pair, 1, name.as_bytes());
    bytes(&mut pair, 2, &any);
    bytes(out, field, &pair);
}

fn tag(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads `partial_success` of an `ExportLogsServiceResponse`: the number of rejected records and
/// the message. `None` if there is none, or the response is not one.
pub(super) fn partial_success(response: &[u8]) -> Option<(u64, String)> {
    let mut partial = None;
    fields(response, |field, value| {
        if let (1, Field::Bytes(message)) = (field, value) {
            partial = Some(message);
        }
    })?;
    let (mut rejected, mut message) = (0, String::new());
    fields(partial?, |field, value| match (field, value) {
        (1, Field::Number(number)) => rejected = number,
        (2, Field::Bytes(text)) => message = String::from_utf8_lossy(text).into_owned(),
        _ => {}
    })?;
    Some((rejected, message))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Calls `each` with the fields of a message; `None` if it is not one.
fn fields<'a>(mut rest: &'a [u8], mut each: impl FnMut(u64, Field<'a>)) -> Option<()> {
    while !rest.is_empty() {
        let key = read_varint(&mut rest)?;
        let value = match (key & 7) as u32 {
            VARINT => Field::Number(read_varint(&mut rest)?),
            FIXED64 => take(&mut rest, 8).map(|_| Field::Other)?,
            BYTES => {
                let length = read_varint(&mut rest)?;
                Field::Bytes(take(&mut rest, usize::try_from(length).ok()?)?)
            }
            FIXED32 => take(&mut rest, 4).map(|_| Field::Other)?,
            _ => return None,
        };
        each(key >> 3, value);
    }
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(value)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
