//! The last pass over the JSON of a body: changes what Go accepts, but some programs that read
//! audit logs do not.
//!
//! Go's scanner accepts strings that are not UTF-8, unpaired surrogates, numbers of any size and
//! 10,000 levels of nesting. Other parsers differ: serde_json (Vector) allows 128 levels, jq 1.6
//! 256, Python about 1,000; and Go cannot read `1e999` into a float64.

use aws_lc_rs::digest;

use super::redacted::hex;
use k8s_audit::json::scan::plain_ascii_end;
use k8s_audit::json::utf8_length;

/// How deeply objects and arrays may be nested in a body. The event adds one level, a webhook's
/// batch three.
pub(super) const MAX_DEPTH: usize = 120;

/// A JSON text that every parser accepts.
pub(super) struct Tidied {
    pub(super) json: Vec<u8>,
    /// Whether values that are nested too deeply were replaced.
    pub(super) omitted: bool,
}

/// Rewrites `json`, a valid and compact JSON text in all but its strings' bytes:
///
/// - Each byte that is not UTF-8, and each half of a surrogate pair, becomes U+FFFD, as in
///   kube-apiserver.
/// - A number beyond the range of a float64 becomes a string.
/// - An object or array that is nested more than [`MAX_DEPTH`] levels deep is replaced by a string
///   with its size and SHA-256.
pub(super) fn tidy(json: &[u8]) -> Tidied {
    let mut out = Vec::with_capacity(json.len() + 64);
    let (mut depth, mut at, mut omitted) = (0, 0, false);
    while let Some(&byte) = json.get(at) {
        let next = match byte {
            b'"' => push_tidy_string(&mut out, json, at),
            b'{' | b'[' if depth == MAX_DEPTH => {
                let end = container_end(json, at);
                out.extend_from_slice(marker(&json[at..end]).as_bytes());
                omitted = true;
                end
            }
            b'-' | b'0'..=b'9' => {
                let end = token_end(json, at);
                push_number(&mut out, &json[at..end]);
                end
            }
            _ => {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                out.push(byte);
                at + 1
            }
        };
        at = next;
    }
    Tidied { json: out, omitted }
}

/// The string that replaces a value that is nested too deeply.
fn marker(value: &[u8]) -> String {
    let sha256 = hex(digest::digest(&digest::SHA256, value).as_ref());
    let bytes = value.len();
    format!("\"OMITTED(nested deeper than {MAX_DEPTH} levels, sha256:{sha256}, {bytes} bytes)\"")
}

/// Returns the index after the bracket that closes the container at `at`.
fn container_end(json: &[u8], mut at: usize) -> usize {
    let mut open = 0_usize;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at = string_end(json, at);
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' => open -= 1,
            _ => {}
        }
        at += 1;
        if open == 0 {
            break;
        }
    }
    at
}

/// Returns the index after the closing quote of the string at `at`.
fn string_end(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

fn token_end(json: &[u8], at: usize) -> usize {
    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']');
    json[at..].iter().position(ends).map_or(json.len(), |length| at + length)
}

fn push_number(out: &mut Vec<u8>, number: &[u8]) {
    let value = std::str::from_utf8(number).ok().and_then(|text| text.parse::<f64>().ok());
    if value.is_some_and(f64::is_finite) {
        out.extend_from_slice(number);
    } else {
        out.push(b'"');
        out.extend_from_slice(number);
        out.push(b'"');
    }
}

/// Copies the string at `at`, and returns the index after it.
fn push_tidy_string(out: &mut Vec<u8>, json: &[u8], at: usize) -> usize {
    const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
    out.push(b'"');
    let mut at = at + 1;
    loop {
        let end = plain_ascii_end(json, at);
        out.extend_from_slice(&json[at..end]);
        at = end;
        let Some(&byte) = json.get(at) else { return at };
        match byte {
            b'"' => {
                out.push(b'"');
                return at + 1;
            }
            b'\\' => {
                let length = escape_length(&json[at..]);
                match length {
                    Ok(length) => out.extend_from_slice(&json[at..at + length]),
                    Err(_) => out.extend_from_slice(b"\\ufffd"),
                }
                at += length.unwrap_or_else(|length| length);
            }
            0x80.. => {
                let length = utf8_length(&json[at..]);
                match length {
                    Some(length) => out.extend_from_slice(&json[at..at + length]),
                    None => out.extend_from_slice(REPLACEMENT),
                }
                at += length.unwrap_or(1);
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

/// Returns the size of the escape at the start of `text`, which includes both halves of a surrogate
/// pair; `Err` for an unpaired surrogate.
fn escape_length(text: &[u8]) -> Result<usize, usize> {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"\\u")?.first_chunk::<4>()?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(text) {
        None => Ok(text.len().min(2)),
        Some(0xd800..=0xdbff) => match text.get(6..).and_then(unit) {
            Some(0xdc00..=0xdfff) => Ok(12),
            _ => Err(6),
        },
        Some(0xdc00..=0xdfff) => Err(6),
        Some(_) => Ok(6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidied(json: &[u8]) -> String {
        String::from_utf8(tidy(json).json).unwrap()
    }

    #[test]
    fn json_accepted_by_every_parser_is_unchanged() {
        for json in [
            r#"{"a":[1,-2.5e-7,1e308,true,null,{}],"b\"\\":"\u00e9\/ é \ud83d\ude00"}"#,
            "\"\"",
            "7",
            "[]",
            r#"["{[\"",1]"#,
        ] {
            assert_eq!(tidied(json.as_bytes()), json);
            assert!(!tidy(json.as_bytes()).omitted);
        }
    }

    #[test]
    fn bytes_and_halves_of_characters_are_replaced() {
        for (given, expected) in [
            (
                &b"{\"\xff\":\"a\xe2\x80b\xc3\"}"[..],
                "{\"\u{fffd}\":\"a\u{fffd}\u{fffd}b\u{fffd}\"}",
            ),
            (b"\"\xed\xa0\x80\"", "\"\u{fffd}\u{fffd}\u{fffd}\""),
            (br#""\ud800""#, r#""\ufffd""#),
            (br#""\ud800x\udc00""#, r#""\ufffdx\ufffd""#),
            (br#""\uD83D\uDE00\ud83d\ud83d\ude00""#, r#""\uD83D\uDE00\ufffd\ud83d\ude00""#),
            (br#""\\ud800""#, r#""\\ud800""#),
        ] {
            assert_eq!(tidied(given), expected);
        }
    }

    #[test]
    fn numbers_that_are_no_floats_become_strings() {
        let huge = "9".repeat(400);
        let given = format!("[1e999,-1e400,{huge},1e-999,1e308]");
        let expected = format!("[\"1e999\",\"-1e400\",\"{huge}\",1e-999,1e308]");
        assert_eq!(tidied(given.as_bytes()), expected);
    }

    #[test]
    fn what_is_nested_too_deeply_is_replaced_by_its_size_and_digest() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(!tidy(&nested(MAX_DEPTH)).omitted);
        let Tidied { json, omitted } = tidy(&nested(MAX_DEPTH + 2));
        assert!(omitted);
        serde_json::from_slice::<serde_json::Value>(&json).unwrap();
        let json = String::from_utf8(json).unwrap();
        let sha256 = hex(digest::digest(&digest::SHA256, b"[[]]").as_ref());
        let marker =
            format!("\"OMITTED(nested deeper than {MAX_DEPTH} levels, sha256:{sha256}, 4 bytes)\"");
        assert!(json.contains(&marker), "{json}");
        let brackets_in_strings = [&nested(MAX_DEPTH)[..MAX_DEPTH], br#"{"]\"":["}"]},1"#].concat();
        let all = [&brackets_in_strings[..], &[b']'; MAX_DEPTH]].concat();
        let json = String::from_utf8(tidy(&all).json).unwrap();
        assert!(json.contains(", 13 bytes)\",1]"), "{json}");
    }
}
