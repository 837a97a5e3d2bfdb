//! What a YAML scalar is: the types of YAML 1.1 as go-yaml v2 resolves them.

use base64::Engine;

use super::Error;
use super::parser::Scalar;
use crate::audit::decode::number::GO_BASE64;

const CORE: &[u8] = b"tag:yaml.org,2002:";

/// The value of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Resolved {
    Null,
    Bool(bool),
    Int(i64),
    /// Above the range of `Int`.
    Uint(u64),
    Float(f64),
    /// The text itself.
    Text,
    /// The text decoded from base64.
    Binary(Vec<u8>),
}

/// Returns the value of a scalar.
///
/// # Errors
/// The text is not what its tag requires.
pub(super) fn resolve(scalar: &Scalar) -> Result<Resolved, Error> {
    let tag = &scalar.tag[..];
    let text = str::from_utf8(&scalar.value).ok();
    if tag.is_empty() {
        let plain = text.filter(|_| scalar.implicit);
        return Ok(plain.map_or(Resolved::Text, of_plain));
    }
    let plain = || text.map_or(Resolved::Text, of_plain);
    let is_right = match tag.strip_prefix(CORE).unwrap_or_default() {
        b"binary" => return binary(&scalar.value),
        b"str" => return Ok(Resolved::Text),
        b"bool" => matches!(plain(), Resolved::Bool(_)),
        b"int" => matches!(plain(), Resolved::Int(_) | Resolved::Uint(_)),
        b"null" => plain() == Resolved::Null,
        b"float" => match plain() {
            Resolved::Int(number) => return Ok(Resolved::Float(number as f64)),
            value => matches!(value, Resolved::Float(_)),
        },
        b"timestamp" if text.is_some_and(super::timestamp::is_timestamp) => {
            return Ok(Resolved::Text);
        }
        b"timestamp" => false,
        // Tags that it does not know leave the text as it is.
        _ => return Ok(Resolved::Text),
    };
    if is_right { Ok(plain()) } else { Err(Error("cannot decode a value as its tag says")) }
}

fn binary(text: &[u8]) -> Result<Resolved, Error> {
    // Go's decoder passes over line breaks.
    let text: Vec<u8> =
        text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let error = |_| Error("!!binary value contains invalid base64 data");
    GO_BASE64.decode(text).map(Resolved::Binary).map_err(error)
}

/// The value of a plain scalar without a tag.
fn of_plain(text: &str) -> Resolved {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Resolved::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Resolved::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Resolved::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => float(text),
        b'+' | b'-' | b'0'..=b'9' => {
            let digits = text.replace('_', "");
            integer(&digits).or_else(|| float(&digits)).or_else(|| signed_binary(&digits))
        }
        _ => None,
    };
    number.unwrap_or(Resolved::Text)
}

/// `strconv.ParseInt` and then `ParseUint` with base 0.
fn integer(text: &str) -> Option<Resolved> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let prefixed = unsigned.len() >= 3;
    let (base, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] if prefixed => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] if prefixed => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] if prefixed => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, base).ok()?;
    let signed = i128::from(magnitude) * if text.starts_with('-') { -1 } else { 1 };
    match i64::try_from(signed) {
        Ok(number) => Some(Resolved::Int(number)),
        // Unsigned numbers have no sign, not even `+`.
        Err(_) => (unsigned.len() == text.len()).then_some(Resolved::Uint(magnitude)),
    }
}

/// go-yaml's own binary numbers, which may have a sign after `0b`.
fn signed_binary(text: &str) -> Option<Resolved> {
    let digits = text.strip_prefix("0b")?;
    i64::from_str_radix(digits, 2).ok().map(Resolved::Int)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, if it is finite.
fn float(text: &str) -> Option<Resolved> {
    let allowed = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !text.bytes().all(allowed) || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Resolved::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: &str, text: &str) -> Result<Resolved, Error> {
        let tag = tag.replace("!!", "tag:yaml.org,2002:").into_bytes();
        resolve(&Scalar { tag, value: text.into(), implicit: false })
    }

    fn plain(text: &str) -> Resolved {
        resolve(&Scalar { value: text.into(), implicit: true, ..Scalar::default() }).unwrap()
    }

    #[test]
    fn plain_scalars_have_the_types_of_yaml_1_1() {
        for (text, expected) in [
            ("yes", Resolved::Bool(true)),
            ("oN", Resolved::Text),
            ("~", Resolved::Null),
            ("017", Resolved::Int(15)),
            ("0o17", Resolved::Int(15)),
            ("09", Resolved::Float(9.0)),
            ("1_000", Resolved::Int(1000)),
            ("-0x1F", Resolved::Int(-31)),
            ("0b+1", Resolved::Int(1)),
            ("18446744073709551615", Resolved::Uint(u64::MAX)),
            ("+18446744073709551615", Resolved::Float(18_446_744_073_709_551_615.0)),
            ("1.", Resolved::Float(1.0)),
            (".5e1", Resolved::Float(5.0)),
            ("1e400", Resolved::Text),
            ("1:30", Resolved::Text),
            ("2001-12-14", Resolved::Text),
            ("<<", Resolved::Text),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn tags_decide() {
        assert_eq!(tagged("!!str", "12"), Ok(Resolved::Text));
        assert_eq!(tagged("!", "12"), Ok(Resolved::Text));
        assert_eq!(tagged("!mine", "12"), Ok(Resolved::Text));
        assert_eq!(tagged("!!float", "12"), Ok(Resolved::Float(12.0)));
        assert_eq!(tagged("!!binary", "aG\nk="), Ok(Resolved::Binary(b"hi".to_vec())));
        assert_eq!(tagged("!!timestamp", "2001-1-4 2:3:4.5"), Ok(Resolved::Text));
        for (tag, text) in
            [("!!int", "x"), ("!!null", "x"), ("!!binary", "a"), ("!!timestamp", "2001-13-01")]
        {
            assert!(tagged(tag, text).is_err(), "{tag} {text}");
        }
    }
}
