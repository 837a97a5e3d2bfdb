//! Formats single values for tables, CSV, TSV, JSON, and YAML.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::event::Text;
use crate::event::json::{self, Value};

/// Returns text for a terminal: control characters, which could move the cursor or hide text, and
/// characters that change the direction of text are escaped.
pub(crate) fn printable(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    let is_harmful = |char: char| {
        char.is_control()
            || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.chars().any(is_harmful) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match is_harmful(char) {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

/// Appends a field of a CSV line (RFC 4180).
pub(crate) fn push_csv(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        out.extend_from_slice(bytes);
        return;
    }
    out.push(b'"');
    for byte in bytes {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Appends a field of a TSV line: tabs, line breaks, and backslashes are escaped.
pub(crate) fn push_tsv(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.push(*other),
        }
    }
}

/// Appends a JSON string.
pub(crate) fn push_json(out: &mut Vec<u8>, text: &str) {
    // Strings can always be serialized.
    let _ = serde_json::to_writer(out, text);
}

/// Appends an event as a YAML document, its members in the order of the log.
pub(crate) fn push_yaml(out: &mut Vec<u8>, event: &[u8]) {
    out.extend_from_slice(b"---\n");
    let mut text = String::new();
    match event.first() {
        Some(b'{') => yaml_members(&mut text, event, 0, true),
        _ => text.push_str("null\n"),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Values that are nested deeper are written as JSON, which is valid YAML.
const DEEPEST: usize = 64;

fn yaml_members(out: &mut String, object: &[u8], indent: usize, mut first_inline: bool) {
    json::members(object, 0, |key, at| {
        let (value, end) = json::value(object, at)?;
        if !std::mem::take(&mut first_inline) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        yaml_string(out, &Text::new(key).decode());
        out.push(':');
        yaml_value(out, value, indent, false);
        Some(end)
    });
}

fn yaml_value(out: &mut String, value: Value<'_>, indent: usize, in_list: bool) {
    match value {
        Value::Object(object) if object.len() > 2 && indent < DEEPEST => {
            let start = if in_list { ' ' } else { '\n' };
            out.push(start);
            yaml_members(out, object, indent + 2, in_list);
        }
        Value::List(list) if list.len() > 2 && indent < DEEPEST => {
            out.push('\n');
            let indent = if in_list { indent + 2 } else { indent };
            json::items(list, |item| {
                out.extend(std::iter::repeat_n(' ', indent));
                out.push('-');
                yaml_value(out, item, indent, true);
            });
        }
        Value::Object(text) | Value::List(text) | Value::Scalar(text) => {
            let _ = writeln!(out, " {}", String::from_utf8_lossy(text));
        }
        Value::String(text) => {
            out.push(' ');
            yaml_string(out, &Text::new(text).decode());
            out.push('\n');
        }
    }
}

/// Writes a plain scalar if no parser can misread it, otherwise a JSON string.
fn yaml_string(out: &mut String, text: &str) {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "-_./".contains(char))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    match is_plain {
        true => out.push_str(text),
        // Strings can always be serialized.
        false => out.push_str(&serde_json::to_string(text).unwrap_or_default()),
    }
}

/// Appends JSON without line breaks: white space between tokens is dropped.
pub(crate) fn push_compact(out: &mut Vec<u8>, json: &[u8]) {
    if !json.contains(&b'\n') {
        out.extend_from_slice(json);
        return;
    }
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = *byte == b'"';
        }
        out.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_no_control_characters() {
        assert_eq!(printable(b"kubectl/1.36"), "kubectl/1.36");
        assert_eq!(
            printable("a\u{1b}[2Jb\u{202e}\u{e9}\n".as_bytes()),
            "a\\u{1b}[2Jb\\u{202e}\u{e9}\\n"
        );
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn separated_values_are_quoted() {
        let mut out = Vec::new();
        push_csv(&mut out, b"a\"b,c\n");
        out.push(b' ');
        push_tsv(&mut out, b"a\tb\\\n");
        assert_eq!(out, b"\"a\"\"b,c\n\" a\\tb\\\\\\n");
    }

    #[test]
    fn yaml_keeps_order_and_types() {
        let event = br#"{"kind":"Event","n":1,"s":"1","user":{"groups":["a b",["x",{"y":[]}],{"k":true,"l":null}],"e":{}},"t":"x\n"}"#;
        let mut out = Vec::new();
        push_yaml(&mut out, event);
        let expected = "---\nkind: Event\n\"n\": 1\ns: \"1\"\nuser:\n  groups:\n  - \"a b\"\n  -\n    - x\n    - \"y\": []\n  - k: true\n    l: null\n  e: {}\nt: \"x\\n\"\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn compact_json_keeps_strings() {
        let mut out = Vec::new();
        push_compact(&mut out, b"{\n \"a b\": \"c \\\" d\" ,\n \"e\": [ 1 ] }");
        assert_eq!(out, b"{\"a b\":\"c \\\" d\",\"e\":[1]}");
    }
}
