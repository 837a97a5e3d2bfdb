//! Appends JSON to a byte buffer like Go's `encoding/json`.

use self::scan::plain_ascii_end;

pub mod scan;

/// Appends `text` as a JSON string, like `encoding/json` with HTML escaping: `<`, `>` and `&` are
/// escaped, and each invalid UTF-8 byte becomes `\ufffd`.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut start = 0;
    let mut at = 0;
    loop {
        at = plain_ascii_end(text, at);
        let Some(&byte) = text.get(at) else { break };
        if byte < 0x80 {
            out.extend_from_slice(&text[start..at]);
            push_escape(out, byte);
            at += 1;
            start = at;
            continue;
        }
        match utf8_length(&text[at..]) {
            Some(3) if text[at..].starts_with(b"\xe2\x80\xa8") => {
                out.extend_from_slice(&text[start..at]);
                out.extend_from_slice(b"\\u2028");
                at += 3;
                start = at;
            }
            Some(3) if text[at..].starts_with(b"\xe2\x80\xa9") => {
                out.extend_from_slice(&text[start..at]);
                out.extend_from_slice(b"\\u2029");
                at += 3;
                start = at;
            }
            Some(length) => at += length,
            None => {
                out.extend_from_slice(&text[start..at]);
                out.extend_from_slice(b"\\ufffd");
                at += 1;
                start = at;
            }
        }
    }
    out.extend_from_slice(&text[start..]);
    out.push(b'"');
}

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, number: u16) {
    let mut text = [0; 5];
    let mut rest = number;
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        }
    }
}

/// Returns the length of the UTF-8 character at the start of `text`, which begins with a byte of
/// 0x80 or more; `None` if it is invalid.
#[inline]
pub fn utf8_length(text: &[u8]) -> Option<usize> {
    let length = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    std::str::from_utf8(text.get(..length)?).is_ok().then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let cases: [(&[u8], &str); 7] = [
            (b"plain /\x7f", "\"plain /\x7f\""),
            (b"\"\\\x08\x0c\n\r\t\x01\x1f", r#""\"\\\b\f\n\r\t\u0001\u001f""#),
            (b"<a>&", r#""\u003ca\u003e\u0026""#),
            ("é\u{2028}\u{2029}\u{1f600}".as_bytes(), "\"é\\u2028\\u2029\u{1f600}\""),
            (b"\xff\xc3", r#""\ufffd\ufffd""#),
            (b"\xed\xa0\x80", r#""\ufffd\ufffd\ufffd""#),
            (b"\xe2\x80", r#""\ufffd\ufffd""#),
        ];
        for (given, expected) in cases {
            assert_eq!(string(given), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn numbers_are_decimal(number: u16) {
            let mut out = Vec::new();
            push_number(&mut out, number);
            proptest::prop_assert_eq!(out, number.to_string().into_bytes());
        }

        #[test]
        fn strings_read_back_as_they_were(text in ".*") {
            let read: String = serde_json::from_str(&string(text.as_bytes())).unwrap();
            proptest::prop_assert_eq!(read, text);
        }
    }
}
