//! JSON that stands ready-made in a protobuf message.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

/// Appends `raw` compacted and HTML-escaped, as Go's encoder does with what a type encodes itself;
/// `null` for nothing. What is no JSON, and would cost kube-apiserver the event, becomes a string:
/// the text, or base64 if it is none.
pub(super) fn push(out: &mut Vec<u8>, raw: &[u8]) {
    if raw.is_empty() {
        return out.extend_from_slice(b"null");
    }
    match (serde_json::from_slice::<&RawValue>(raw), str::from_utf8(raw)) {
        (Ok(value), _) => compact(out, value.get()),
        (Err(_), Ok(_)) => crate::audit::json::push_string(out, raw),
        (Err(_), Err(_)) => push_base64(out, raw),
    }
}

/// Appends `bytes` as a JSON string of base64.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let length = BASE64_STANDARD.encode_slice(bytes, &mut out[start..]).expect("room was made");
    out.truncate(start + length);
    out.push(b'"');
}

/// Copies valid JSON without the whitespace between its tokens.
fn compact(out: &mut Vec<u8>, json: &str) {
    let bytes = json.as_bytes();
    let (mut start, mut at, mut quoted) = (0, 0, false);
    while at < bytes.len() {
        let (length, instead) = match bytes[at] {
            b'"' => {
                quoted = !quoted;
                at += 1;
                continue;
            }
            b'\\' => {
                at += 2;
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' if !quoted => (1, ""),
            b'<' => (1, "\\u003c"),
            b'>' => (1, "\\u003e"),
            b'&' => (1, "\\u0026"),
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa8") => (3, "\\u2028"),
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa9") => (3, "\\u2029"),
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[start..at]);
        out.extend_from_slice(instead.as_bytes());
        at += length;
        start = at;
    }
    out.extend_from_slice(&bytes[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(raw: &[u8]) -> String {
        let mut out = Vec::new();
        push(&mut out, raw);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_compacted() {
        let raw = b" { \"a b\" : [ 1.0 , \"\\\" <\" ] ,\n\"\xe2\x80\xa8\": null } ";
        assert_eq!(pushed(raw), r#"{"a b":[1.0,"\" \u003c"],"\u2028":null}"#);
        assert_eq!(pushed(b""), "null");
    }

    #[test]
    fn what_is_no_json_is_kept_as_a_string() {
        assert_eq!(pushed(b"a: 1"), r#""a: 1""#);
        assert_eq!(pushed(b"\xff\x00"), r#""/wA=""#);
    }
}
