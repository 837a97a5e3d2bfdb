//! Bodies that are not JSON, as a JSON string.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::compact::Text;
use super::truncate;
use k8s_audit::json::push_string;

/// How the string represents the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StringForm {
    /// The string is the body.
    Utf8,
    /// The string is the base64 of the body, with padding, because the body is not UTF-8.
    Base64,
}

/// Returns the body as a JSON string of at most `limit` bytes including quotes (`null` if that is
/// impossible).
///
/// It contains all of the body, so it must not be used if something is to be redacted.
pub(crate) fn as_string(body: &[u8], limit: usize) -> (Text, StringForm) {
    let (mut json, form) = if std::str::from_utf8(body).is_ok() {
        let mut json = Vec::with_capacity(body.len().min(limit) + 2);
        // Escaping never shortens a byte, so nothing beyond the limit is needed.
        push_string(&mut json, &body[..characters_within(body, limit)]);
        (json, StringForm::Utf8)
    } else {
        // Base64 has four characters for three bytes.
        let shown = &body[..body.len().min(limit)];
        (format!("\"{}\"", STANDARD.encode(shown)).into_bytes(), StringForm::Base64)
    };
    let truncated = json.len() > limit || body.len() > limit;
    if truncated {
        truncate::close(&mut json, limit);
    }
    (Text { json, truncated }, form)
}

/// Returns the length of the longest prefix of valid UTF-8 that has at most `limit` bytes and ends
/// between characters.
fn characters_within(text: &[u8], limit: usize) -> usize {
    let is_boundary = |at: &usize| text.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    (0..=limit.min(text.len())).rev().find(is_boundary).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(body: &[u8], limit: usize) -> (String, bool, StringForm) {
        let (text, form) = as_string(body, limit);
        (String::from_utf8(text.json).unwrap(), text.truncated, form)
    }

    #[test]
    fn utf8_is_itself_and_the_rest_is_base64() {
        use StringForm::{Base64, Utf8};
        assert_eq!(string(b"", 99), ("\"\"".into(), false, Utf8));
        assert_eq!(string(b"a: <1>\n", 99), (r#""a: \u003c1\u003e\n""#.into(), false, Utf8));
        assert_eq!(string(b"\xff\x00", 99), ("\"/wA=\"".into(), false, Base64));
    }

    #[test]
    fn long_bodies_are_truncated() {
        use StringForm::{Base64, Utf8};
        assert_eq!(string(b"abcdef", 8), ("\"abcdef\"".into(), false, Utf8));
        assert_eq!(string(b"abcdef", 7), ("\"abcde\"".into(), true, Utf8));
        assert_eq!(string("aééé".as_bytes(), 6), ("\"aé\"".into(), true, Utf8));
        assert_eq!(string(b"<<<<", 10), (r#""\u003c""#.into(), true, Utf8));
        assert_eq!(string(b"\xff\xff\xff\xff", 9), ("\"/////w=\"".into(), true, Base64));
        assert_eq!(string(b"abc", 1), ("null".into(), true, Utf8));
    }
}
