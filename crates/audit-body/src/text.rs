//! Bodies that are no JSON, as a JSON string.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::compact::Text;
use super::truncate;
use k8s_audit::json::push_string;

/// How a string stands for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StringForm {
    /// The string is the body.
    Utf8,
    /// The body is no UTF-8; the string is its base64, with padding.
    Base64,
}

/// The body as a JSON string of at most `limit` bytes, quotes included (`null` below that).
///
/// It shows all of the body, so it is not for bodies in which something is to be redacted.
pub(crate) fn as_string(body: &[u8], limit: usize) -> (Text, StringForm) {
    let (mut json, form) = if std::str::from_utf8(body).is_ok() {
        let mut json = Vec::with_capacity(body.len().min(limit) + 2);
        // No byte gets shorter, so what is beyond the limit is not even looked at.
        push_string(&mut json, &body[..characters_within(body, limit)]);
        (json, StringForm::Utf8)
    } else {
        // Four characters for three bytes.
        let shown = &body[..body.len().min(limit)];
        (format!("\"{}\"", STANDARD.encode(shown)).into_bytes(), StringForm::Base64)
    };
    let truncated = json.len() > limit || body.len() > limit;
    if truncated {
        truncate::close(&mut json, limit);
    }
    (Text { json, truncated }, form)
}

/// The length of the longest part, from the start, of valid UTF-8 that has at most `limit` bytes
/// and ends between characters.
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
