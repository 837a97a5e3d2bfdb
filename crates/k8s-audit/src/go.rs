//! Text in the format of Go's `fmt` and `strconv`, which kube-apiserver's messages and legacy log
//! lines contain.

use std::collections::BTreeMap;

/// Returns `bytes` in double quotes, escaped like by `strconv.Quote` (`%q`).
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    push_quoted(&mut text, bytes);
    text
}

/// Appends the quoted `bytes` to `text`.
pub fn push_quoted(text: &mut String, bytes: &[u8]) {
    use std::fmt::Write;
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\u{7}' => text.push_str("\\a"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{b}' => text.push_str("\\v"),
                ' '..='~' => text.push(character),
                c if (c as u32) < 0x20 || c == '\u{7f}' => {
                    let _ = write!(text, "\\x{:02x}", c as u32);
                }
                c if is_printable(c) => text.push(c),
                c if (c as u32) < 0x10000 => {
                    let _ = write!(text, "\\u{:04x}", c as u32);
                }
                c => {
                    let _ = write!(text, "\\U{:08x}", c as u32);
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
}

/// Go's `unicode.IsPrint` for non-ASCII characters, based on Rust's `escape_debug`, which escapes
/// unprintable characters. It also escapes combining marks, which are printable in Go.
fn is_printable(c: char) -> bool {
    !c.is_whitespace() && (c.escape_debug().len() == 1 || c.is_alphabetic() || is_mark(c))
}

fn is_mark(c: char) -> bool {
    matches!(c as u32, 0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x64b..=0x65f | 0x1ab0..=0x1aff
        | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f)
}

/// Returns Go's `%#v` of a `map[string][]string`, keys sorted.
pub fn string_lists(map: &BTreeMap<String, Vec<String>>) -> String {
    if map.is_empty() {
        return "map[string][]string(nil)".into();
    }
    let entries: Vec<String> = map
        .iter()
        .map(|(key, values)| format!("{}:{}", quote(key.as_bytes()), string_list(values)))
        .collect();
    format!("map[string][]string{{{}}}", entries.join(", "))
}

/// Returns Go's `%#v` of a `[]string`.
pub fn string_list(values: &[String]) -> String {
    if values.is_empty() {
        return "[]string(nil)".into();
    }
    let values: Vec<String> = values.iter().map(|value| quote(value.as_bytes())).collect();
    format!("[]string{{{}}}", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain", r#""plain""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            (b"\x01\x7f", r#""\x01\x7f""#),
            ("é<>&\u{a0}".as_bytes(), "\"é<>&\\u00a0\""),
            (b"\xff\xfea", r#""\xff\xfea""#),
            ("\u{1f600}\u{301}".as_bytes(), "\"\u{1f600}\u{301}\""),
            ("\u{200b}\u{e0001}".as_bytes(), r#""\u200b\U000e0001""#),
        ];
        for (given, expected) in cases {
            assert_eq!(quote(given), expected);
        }
    }
}
