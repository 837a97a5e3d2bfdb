//! Events as CSV and NDJSON.

use std::io::{self, Write};

use crate::event::json::{self, Value};
use crate::event::{Event, Text};
use crate::index::Column;
use crate::output::format::{push_csv, push_json};

/// Writes the header of a CSV file.
pub(super) fn header(columns: &[Column], out: &mut impl Write) -> io::Result<()> {
    let names: Vec<&str> = columns.iter().map(|column| column.name()).collect();
    writeln!(out, "{}", names.join(","))
}

/// Writes one row of a CSV file. Lists and maps are written as JSON.
pub(super) fn csv(columns: &[Column], event: &Event<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    let mut value = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        value.clear();
        push(*column, event, &mut value);
        push_csv(&mut line, &value);
    }
    line.push(b'\n');
    out.write_all(&line)
}

fn push(column: Column, event: &Event<'_>, out: &mut Vec<u8>) {
    let text = match column {
        Column::Code => {
            if let Some(code) = event.status.code {
                out.extend_from_slice(code.to_string().as_bytes());
            }
            return;
        }
        Column::Groups => return list(out, |each| event.user.groups(each)),
        Column::SourceIps => return list(out, |each| event.source_ips(each)),
        Column::Annotations => {
            if event.annotations_json().is_none() {
                return;
            }
            out.push(b'{');
            event.annotations(|key, value| {
                if out.len() > 1 {
                    out.push(b',');
                }
                push_json(out, &key.decode());
                out.push(b':');
                push_json(out, &value.decode());
            });
            out.push(b'}');
            return;
        }
        Column::RequestObject | Column::ResponseObject => {
            let body = match column {
                Column::RequestObject => event.request_object,
                _ => event.response_object,
            };
            out.extend_from_slice(body.unwrap_or_default());
            return;
        }
        Column::StageTime => event.stage_time,
        Column::Received => event.received,
        column => column.text(event),
    };
    out.extend_from_slice(text.decode().as_bytes());
}

fn list<'a>(out: &mut Vec<u8>, visit: impl FnOnce(&mut dyn FnMut(Text<'a>))) {
    out.push(b'[');
    visit(&mut |item: Text<'a>| {
        if out.len() > 1 {
            out.push(b',');
        }
        push_json(out, &item.decode());
    });
    out.push(b']');
}

/// Writes the event, without its bodies unless `bodies` is set.
pub(super) fn ndjson(bodies: bool, event: &Event<'_>, out: &mut impl Write) -> io::Result<()> {
    if bodies || event.request_object.is_none() && event.response_object.is_none() {
        out.write_all(event.raw)?;
        return out.write_all(b"\n");
    }
    let mut line = vec![b'{'];
    let raw = event.raw;
    json::members(raw, json::skip_space(raw, 0), |key, at| {
        let (value, end) = json::value(raw, at)?;
        let name = Text::new(key);
        if !name.is(b"requestObject") && !name.is(b"responseObject") {
            if line.len() > 1 {
                line.push(b',');
            }
            line.push(b'"');
            line.extend_from_slice(key);
            line.extend_from_slice(b"\":");
            match value {
                Value::String(_) => line.extend_from_slice(&raw[at..end]),
                Value::Object(text) | Value::List(text) | Value::Scalar(text) => {
                    line.extend_from_slice(text);
                }
            }
        }
        Some(end)
    });
    line.extend_from_slice(b"}\n");
    out.write_all(&line)
}
