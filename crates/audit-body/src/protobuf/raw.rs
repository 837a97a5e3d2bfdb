//! JSON that is embedded in a protobuf message.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::decode::{self, Ambiguities};

/// Appends `raw` compacted and HTML-escaped, as Go's encoder does for types with their own JSON
/// encoding; `null` if it is empty. Text that is not JSON, because of which kube-apiserver loses
/// the event, becomes a string: the text, or base64 if it is not UTF-8. Returns the ambiguities in
/// the JSON.
pub(super) fn push(out: &mut Vec<u8>, raw: &[u8]) -> Ambiguities {
    if raw.is_empty() {
        out.extend_from_slice(b"null");
        return Ambiguities::default();
    }
    if let Some(ambiguities) = decode::json_ambiguities(raw) {
        compact(out, &decode::valid_utf8(raw));
        return ambiguities;
    }
    match str::from_utf8(raw) {
        Ok(_) => k8s_audit::json::push_string(out, raw),
        Err(_) => push_base64(out, raw),
    }
    Ambiguities::default()
}

/// Appends `bytes` as a JSON string in base64.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let length = BASE64_STANDARD.encode_slice(bytes, &mut out[start..]).expect("room was made");
    out.truncate(start + length);
    out.push(b'"');
}

/// Copies valid JSON without the whitespace between its tokens.
fn compact(out: &mut Vec<u8>, bytes: &[u8]) {
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

    #[test]
    fn ambiguous_json_is_kept() {
        let mut out = Vec::new();
        assert_eq!(
            push(&mut out, b"{\"a\":1,\"a\":\"\xff\"}").names(),
            "duplicate-keys,invalid-utf8"
        );
        assert_eq!(String::from_utf8(out).unwrap(), "{\"a\":1,\"a\":\"\u{fffd}\"}");
    }
}
