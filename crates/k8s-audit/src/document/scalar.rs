//! Resolves the type of a YAML scalar like go-yaml v2, which kube-apiserver uses: YAML 1.1.

mod timestamp;

use base64::Engine;
use base64::alphabet;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::PAD;

const CORE: &[u8] = b"tag:yaml.org,2002:";

/// Base64 like Go decodes it: with padding; the unused bits of the last character are ignored.
pub const GO_BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// The value of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `null`
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// A number with a fraction, or an integer out of range.
    Float(f64),
    /// The text itself.
    Text,
    /// The text decoded from base64.
    Binary(Vec<u8>),
}

/// The text does not match its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagMismatch;

/// Resolves a scalar. `implicit` means that it is not quoted. `tag` is the resolved tag; empty if
/// there is none. With an explicit tag of the document, including `!`, the text is unchanged.
///
/// # Errors
/// Returns an error if the text does not match its tag.
pub fn resolve(text: &[u8], implicit: bool, tag: &[u8]) -> Result<Scalar, TagMismatch> {
    let utf8 = str::from_utf8(text).ok();
    if tag.is_empty() {
        return Ok(utf8.filter(|_| implicit).map_or(Scalar::Text, of_plain));
    }
    let plain = || utf8.map_or(Scalar::Text, of_plain);
    let is_right = match tag.strip_prefix(CORE).unwrap_or_default() {
        b"binary" => return binary(text),
        b"bool" => matches!(plain(), Scalar::Bool(_)),
        b"int" => matches!(plain(), Scalar::Int(_) | Scalar::Uint(_)),
        b"null" => plain() == Scalar::Null,
        b"float" => match plain() {
            Scalar::Int(number) => return Ok(Scalar::Float(number as f64)),
            value => matches!(value, Scalar::Float(_)),
        },
        b"timestamp" if utf8.is_some_and(timestamp::is_timestamp) => return Ok(Scalar::Text),
        b"timestamp" => false,
        _ => return Ok(Scalar::Text),
    };
    if is_right { Ok(plain()) } else { Err(TagMismatch) }
}

fn binary(text: &[u8]) -> Result<Scalar, TagMismatch> {
    // Go's decoder ignores line breaks.
    let text: Vec<u8> =
        text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    GO_BASE64.decode(text).map(Scalar::Binary).map_err(|_| TagMismatch)
}

/// Returns the value of a plain scalar without a tag.
fn of_plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
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
    number.unwrap_or(Scalar::Text)
}

/// Parses an integer like `strconv.ParseInt` and then `ParseUint`, with base 0.
fn integer(text: &str) -> Option<Scalar> {
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
        Ok(number) => Some(Scalar::Int(number)),
        // Unsigned numbers have no sign, not even `+`.
        Err(_) => (unsigned.len() == text.len()).then_some(Scalar::Uint(magnitude)),
    }
}

/// Parses go-yaml's own syntax for binary numbers, which may have a sign after `0b`.
fn signed_binary(text: &str) -> Option<Scalar> {
    let digits = text.strip_prefix("0b")?;
    i64::from_str_radix(digits, 2).ok().map(Scalar::Int)
}

/// Parses `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, if the result is finite.
fn float(text: &str) -> Option<Scalar> {
    let allowed = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !text.bytes().all(allowed) || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Scalar::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: &str, text: &str) -> Result<Scalar, TagMismatch> {
        let tag = tag.replace("!!", "tag:yaml.org,2002:");
        resolve(text.as_bytes(), false, tag.as_bytes())
    }

    fn plain(text: &str) -> Scalar {
        resolve(text.as_bytes(), true, b"").unwrap()
    }

    #[test]
    fn plain_scalars_have_the_types_of_yaml_1_1() {
        for (text, expected) in [
            ("yes", Scalar::Bool(true)),
            ("Y", Scalar::Bool(true)),
            ("OFF", Scalar::Bool(false)),
            ("yEs", Scalar::Text),
            ("NULL", Scalar::Null),
            ("", Scalar::Null),
            ("oN", Scalar::Text),
            ("~", Scalar::Null),
            ("017", Scalar::Int(15)),
            ("0o17", Scalar::Int(15)),
            ("09", Scalar::Float(9.0)),
            ("1_000", Scalar::Int(1000)),
            ("-0x1F", Scalar::Int(-31)),
            ("0b+1", Scalar::Int(1)),
            ("18446744073709551615", Scalar::Uint(u64::MAX)),
            ("+18446744073709551615", Scalar::Float(18_446_744_073_709_551_615.0)),
            ("1.", Scalar::Float(1.0)),
            ("08", Scalar::Float(8.0)),
            (".inf", Scalar::Float(f64::INFINITY)),
            ("-", Scalar::Text),
            ("0x", Scalar::Text),
            ("0b2", Scalar::Text),
            ("1.5.2", Scalar::Text),
            ("_1", Scalar::Text),
            ("1e", Scalar::Text),
            ("inf", Scalar::Text),
            ("system:node", Scalar::Text),
            (".5e1", Scalar::Float(5.0)),
            ("1e400", Scalar::Text),
            ("1:30", Scalar::Text),
            ("2001-12-14", Scalar::Text),
            ("<<", Scalar::Text),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn tags_decide() {
        assert_eq!(tagged("!!str", "12"), Ok(Scalar::Text));
        assert_eq!(tagged("!", "12"), Ok(Scalar::Text));
        assert_eq!(resolve(b"12", true, b"!"), Ok(Scalar::Text));
        assert_eq!(resolve(b"on", false, b""), Ok(Scalar::Text));
        assert_eq!(tagged("!mine", "12"), Ok(Scalar::Text));
        assert_eq!(tagged("!!float", "12"), Ok(Scalar::Float(12.0)));
        assert_eq!(tagged("!!binary", "aG\nk="), Ok(Scalar::Binary(b"hi".to_vec())));
        assert_eq!(tagged("!!timestamp", "2001-1-4 2:3:4.5"), Ok(Scalar::Text));
        for (tag, text) in
            [("!!int", "x"), ("!!null", "x"), ("!!binary", "a"), ("!!timestamp", "2001-13-01")]
        {
            assert!(tagged(tag, text).is_err(), "{tag} {text}");
        }
    }
}
