//! Making a cut-off JSON text whole again.

use k8s_audit::json::scan::plain_end;

/// Turns `text`, the beginning of a valid compact JSON text, into valid JSON of at most `limit`
/// bytes (never less than the four of `null`): a string value is cut between two characters, a
/// member or element that is cut anywhere else goes, and what is open is closed.
///
/// Going over the text once more when it is cut, rather than noting places to cut at all the time,
/// keeps the cost away from bodies that fit.
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

/// Where to cut.
struct Cut {
    at: usize,
    in_string: bool,
}

/// The furthest place to cut, with the closing brackets that are then needed, outermost first.
///
/// Length with closing brackets never falls from one such place to the next, so the first that
/// does not fit ends the search, and `closers` then are those of the place before.
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
                    // One more byte for the closing quote.
                    let room = limit.saturating_sub(closers.len() + 1);
                    if at < room {
                        return Cut { at: characters_end(text, at + 1, room), in_string: true };
                    }
                    break;
                }
            },
            _ => {
                let token = &text[at..];
                // Without what follows it, it may be the beginning of a longer one.
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

/// The index after the closing quote of the string whose content begins at `at`.
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

/// The last boundary between characters or escapes that is no further than `end`, in string
/// content that begins at `at`.
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

/// How many bytes the character or escape at the start of `text` needs; for one cut off by the
/// end of `text`, more than there are.
fn character_length(text: &[u8]) -> usize {
    let escape = |text: &[u8]| match text {
        [b'\\', b'u', ..] => 6,
        _ => 2,
    };
    match text {
        [] => 1,
        [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..] => {
            // Half of a surrogate pair reads as no character.
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
            // Followed by something else, it is a byte that is no UTF-8.
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
