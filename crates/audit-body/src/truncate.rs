//! Makes valid JSON of a truncated JSON text.

use k8s_audit::json::scan::plain_end;

/// Turns `text`, the beginning of a valid compact JSON text, into valid JSON of at most `limit`
/// bytes (but at least the four of `null`): a string value is cut between two characters, any other
/// incomplete member or element is removed, and open containers are closed.
///
/// Places to cut are found in a second pass over a truncated text, so that bodies that fit do not
/// pay for it.
pub(super) fn close(text: &mut Vec<u8>, limit: usize) {
    let mut closers = Vec::new();
    let cut = cut(text, limit, &mut closers);
    text.truncate(cut.at);
    if cut.in_string {
        text.push(b'"');
    }
    text.extend(closers.iter().rev());
    if text.is_empty() {
        text.extend_from_slice(b"null");
    }
}

/// A place to cut.
struct Cut {
    at: usize,
    in_string: bool,
}

/// Finds the last place to cut, and the closing brackets needed there, outermost first.
///
/// The length including closing brackets never decreases from one place to the next, so the search
/// ends at the first one that does not fit; `closers` are then those of the place before.
fn cut(text: &[u8], limit: usize, closers: &mut Vec<u8>) -> Cut {
    let mut kept = 0;
    let mut at = 0;
    let mut at_key = false;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'{' | b'[' => {
                if at + closers.len() + 2 > limit {
                    break;
                }
                closers.push(if byte == b'{' { b'}' } else { b']' });
                at_key = byte == b'{';
                at += 1;
                kept = at;
            }
            b'}' | b']' => {
                closers.pop();
                at_key = false;
                at += 1;
                kept = at;
            }
            b',' => {
                at_key = closers.last() == Some(&b'}');
                at += 1;
            }
            b':' => {
                at_key = false;
                at += 1;
            }
            b'"' => match string_end(text, at + 1) {
                Some(end) if at_key => at = end,
                None if at_key => break,
                Some(end) if end + closers.len() <= limit => {
                    at = end;
                    kept = at;
                }
                _ => {
                    // One byte is needed for the closing quote.
                    let room = limit.saturating_sub(closers.len() + 1);
                    if at < room {
                        return Cut { at: characters_end(text, at + 1, room), in_string: true };
                    }
                    break;
                }
            },
            _ => {
                let token = &text[at..];
                // Without the byte after it, it may be incomplete.
                let Some(length) = token.iter().position(|b| matches!(b, b',' | b'}' | b']'))
                else {
                    break;
                };
                if at + length + closers.len() > limit {
                    break;
                }
                at += length;
                kept = at;
            }
        }
    }
    Cut { at: kept, in_string: false }
}

/// Returns the index after the closing quote of the string whose content begins at `at`.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = plain_end(text, at);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Returns the last boundary between characters or escapes up to `end`, in string content that
/// begins at `at`.
fn characters_end(text: &[u8], mut at: usize, end: usize) -> usize {
    let end = end.min(text.len());
    loop {
        let next = at + character_length(&text[at..]);
        if next > end {
            return at;
        }
        at = next;
    }
}

/// Returns the size of the character or escape at the start of `text`; if it is cut off by the end
/// of `text`, a larger size than `text` has.
fn character_length(text: &[u8]) -> usize {
    let escape = |text: &[u8]| match text {
        [b'\\', b'u', ..] => 6,
        _ => 2,
    };
    match text {
        [] => 1,
        [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..] => {
            // Both halves of a surrogate pair are one character; the text may end between them.
            match text.get(6..) {
                Some([b'\\', rest @ ..]) if rest.first().is_none_or(|b| *b == b'u') => 12,
                Some([]) => 12,
                _ => 6,
            }
        }
        [b'\\', ..] => escape(text),
        [first, rest @ ..] => {
            let following = match first {
                0xc2..=0xdf => 1,
                0xe0..=0xef => 2,
                0xf0..=0xf4 => 3,
                _ => 0,
            };
            let present = rest.iter().take(following).take_while(|b| (**b & 0xc0) == 0x80).count();
            // A lead byte without its continuation bytes is a single invalid byte.
            if present < following && present < rest.len() { 1 } else { 1 + following }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str, limit: usize) -> String {
        let mut text = text.as_bytes().to_vec();
        close(&mut text, limit);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn cuts_are_valid_json() {
        let text = r#"{"a":[1,22,{"b":"xyz"}],"c":true}"#;
        let expected = [
            (33, text),
            (32, r#"{"a":[1,22,{"b":"xyz"}]}"#),
            (24, r#"{"a":[1,22,{"b":"xyz"}]}"#),
            (23, r#"{"a":[1,22,{"b":"xy"}]}"#),
            (21, r#"{"a":[1,22,{"b":""}]}"#),
            (20, r#"{"a":[1,22,{}]}"#),
            (14, r#"{"a":[1,22]}"#),
            (11, r#"{"a":[1]}"#),
            (8, r#"{"a":[]}"#),
            (7, "{}"),
            (2, "{}"),
            (1, "null"),
        ];
        for (limit, expected) in expected {
            assert_eq!(closed(text, limit), expected, "{limit}");
        }
    }

    #[test]
    fn strings_are_truncated_between_characters() {
        for (text, limit, expected) in [
            ("\"aé", 9, "\"aé\""),
            ("\"aé\"", 4, "\"a\""),
            ("\"a😀\"", 6, "\"a\""),
            (r#""a\u003cb"#, 99, r#""a\u003cb""#),
            (r#""a\u003cb"#, 8, r#""a""#),
            (r#""a\"#, 99, r#""a""#),
            (r#""a\n"#, 99, r#""a\n""#),
            (r#""\ud83d\ude00"#, 99, r#""\ud83d\ude00""#),
            (r#""\ud83d\ude0"#, 99, r#""""#),
            (r#""\ud83d"#, 99, r#""""#),
            (r#""\ud83dx"#, 99, r#""\ud83dx""#),
            (r#"{"a":"#, 99, "{}"),
            (r#"{"a":1"#, 99, "{}"),
            (r#"{"a":1,"#, 99, r#"{"a":1}"#),
            ("tru", 99, "null"),
        ] {
            assert_eq!(closed(text, limit), expected, "{text} {limit}");
        }
    }
}
