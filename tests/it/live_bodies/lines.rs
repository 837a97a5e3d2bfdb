//! Reads the lines of an audit log, including those that Go accepts and other parsers do not.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

/// The last events of requests, by audit ID.
pub(super) struct Ends {
    pub(super) events: HashMap<String, Value>,
    /// Why the line of a last event cannot be parsed, in a few words, and the line.
    pub(super) unreadable: BTreeMap<String, (String, String)>,
}

/// Reads a log.
pub(super) fn ends(log: &Path) -> Ends {
    let mut ends = Ends { events: HashMap::new(), unreadable: BTreeMap::new() };
    // kube-apiserver does not remove invalid UTF-8 in patches.
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    for line in text.lines() {
        match serde_json::from_str(line).or_else(|_| serde_json::from_str(&readable(line))) {
            Ok(event) => insert(&mut ends, event),
            Err(error) => {
                let id =
                    line.split_once("\"auditID\":\"").and_then(|(_, rest)| rest.split_once('"'));
                if let Some((id, _)) = id
                    && line.contains("\"stage\":\"ResponseComplete\"")
                {
                    let why = error.to_string();
                    let why = why.split(" at line").next().unwrap_or_default().to_owned();
                    ends.unreadable.insert(id.to_owned(), (why, line.to_owned()));
                }
            }
        }
    }
    ends
}

fn insert(ends: &mut Ends, event: Value) {
    if event["stage"] == "ResponseComplete" {
        let id = event["auditID"].as_str().unwrap_or_default().to_owned();
        ends.events.insert(id, event);
    }
}

/// Returns the line as the proxy would write it: U+FFFD for an unpaired surrogate, and strings for
/// numbers beyond `float64`.
fn readable(line: &str) -> String {
    let bytes = line.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    let mut in_string = false;
    while let Some(&byte) = bytes.get(at) {
        let end = match byte {
            b'\\' if in_string => escape_end(bytes, at),
            b'-' | b'0'..=b'9' if !in_string => number_end(bytes, at),
            _ => {
                in_string ^= byte == b'"';
                at + 1
            }
        };
        let piece = &line.as_bytes()[at..end];
        match (in_string, std::str::from_utf8(piece)) {
            (true, Ok(escape)) if is_half(escape) => out.extend_from_slice(b"\\ufffd"),
            (false, Ok(number)) if number.parse().is_ok_and(f64::is_infinite) => {
                out.extend_from_slice(format!("\"{number}\"").as_bytes());
            }
            _ => out.extend_from_slice(piece),
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// Returns the end of an escape; a surrogate pair counts as one.
fn escape_end(text: &[u8], at: usize) -> usize {
    let unit = |at| unit(text.get(at..at + 6)?);
    let length = match (unit(at), unit(at + 6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
        (Some(_), _) => 6,
        (None, _) => 2,
    };
    text.len().min(at + length)
}

fn unit(escape: &[u8]) -> Option<u32> {
    let digits = escape.strip_prefix(b"\\u")?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_half(escape: &str) -> bool {
    escape.len() == 6 && matches!(unit(escape.as_bytes()), Some(0xd800..=0xdfff))
}

fn number_end(text: &[u8], at: usize) -> usize {
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    at + text[at..].iter().take_while(is_part).count()
}

#[test]
fn unusual_lines_are_readable_in_reports() {
    for (line, expected) in [
        (r#"{"a":"\ud800x","b":1e999}"#, r#"{"a":"\ufffdx","b":"1e999"}"#),
        (r#"["\ud83d\ude00",-0,1e5,"1e999\\"]"#, r#"["\ud83d\ude00",-0,1e5,"1e999\\"]"#),
        (r#"["\ud83d\ud83d\ude00\"é"]"#, r#"["\ufffd\ud83d\ude00\"é"]"#),
    ] {
        assert_eq!(readable(line), expected);
    }
}
