//! What an unquoted YAML scalar is: YAML 1.1 as Go's yaml.v2, and so kube-apiserver, reads it.

use super::tree::{Number, Value};

const CORE: &str = "tag:yaml.org,2002:";

/// The value of a scalar. `tag` is the resolved tag, if one was written.
///
/// # Errors
/// The text is not what its tag says.
pub(super) fn resolve(text: &str, quoted: bool, tag: Option<&str>) -> Result<Value, String> {
    let string = || Ok(Value::String(text.into()));
    let core = match tag {
        None if quoted => return string(),
        // The tag `!` alone makes even quoted text be read as if it were not.
        None | Some("!") => return Ok(of_plain(text)),
        Some(tag) => tag.strip_prefix(CORE),
    };
    let value = of_plain(text);
    let fits = match (core, &value) {
        (Some("float"), Value::Number(Number::Integer(number))) => {
            return Ok(Value::Number(Number::Float(*number as f64)));
        }
        (Some("null"), Value::Null) | (Some("bool"), Value::Bool(_)) => true,
        (Some("float"), Value::Number(Number::Float(_))) => true,
        (Some("int"), Value::Number(Number::Integer(_) | Number::Large(_))) => true,
        (Some("timestamp"), Value::String(_)) => text.as_bytes().get(4) == Some(&b'-'),
        (Some("null" | "bool" | "float" | "int" | "timestamp" | "binary"), _) => false,
        _ => return string(),
    };
    if fits {
        Ok(value)
    } else {
        Err(format!("cannot decode `{text}` as a !!{}", core.unwrap_or_default()))
    }
}

/// The value of an unquoted scalar without a tag.
fn of_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Value::Number(Number::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Number(Number::Float(f64::INFINITY));
        }
        "-.inf" | "-.Inf" | "-.INF" => {
            return Value::Number(Number::Float(f64::NEG_INFINITY));
        }
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => float(text),
        b'+' | b'-' | b'0'..=b'9' => {
            let digits = text.replace('_', "");
            integer(&digits).or_else(|| float(&digits))
        }
        _ => None,
    };
    number.map_or_else(|| Value::String(text.into()), Value::Number)
}

/// Go's `strconv.ParseInt` with base 0: `0x`, `0o`, `0b`, and a leading `0` for octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
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
    let signed = i128::from(magnitude) * if negative { -1 } else { 1 };
    match i64::try_from(signed) {
        Ok(number) => Some(Number::Integer(number)),
        // Unsigned numbers have no sign, not even `+`.
        Err(_) if unsigned.len() == text.len() => Some(Number::Large(magnitude)),
        Err(_) => None,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, if it is finite.
fn float(text: &str) -> Option<Number> {
    let allowed = |b: u8| b.is_ascii_digit() || b"+-.eE".contains(&b);
    if !text.bytes().all(allowed) || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Number::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> &'static str {
        resolve(text, false, None).unwrap().kind()
    }

    #[test]
    fn plain_scalars_are_what_yaml_1_1_says() {
        for text in ["y", "Y", "yes", "on", "ON", "true", "n", "No", "off", "FALSE"] {
            assert_eq!(kind(text), "bool", "{text}");
        }
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(kind(text), "null", "{text}");
        }
        let numbers = "0 1 -1 +1 007 0x1F 0o17 0b101 -0b1 1_000 08 1. .5 1e3 -1.5E-3 .inf .NaN \
                       18446744073709551615 99999999999999999999 -9223372036854775808";
        for text in numbers.split_whitespace() {
            assert_eq!(kind(text), "number", "{text}");
        }
        let strings = "yEs oN nULL get + - 0x 0b2 1.5.2 12:30 2001-01-01 _1 1e 1e999 . .e5 0xg \
                       1__a inf nan e5 system:node";
        for text in strings.split_whitespace() {
            assert_eq!(kind(text), "string", "{text}");
        }
    }

    #[test]
    fn numbers_have_their_value() {
        let number = |text| match resolve(text, false, None) {
            Ok(Value::Number(number)) => number,
            other => panic!("{other:?}"),
        };
        assert_eq!(number("017"), Number::Integer(15));
        assert_eq!(number("-0x10"), Number::Integer(-16));
        assert_eq!(number("08"), Number::Float(8.0));
        assert_eq!(number("18446744073709551615"), Number::Large(u64::MAX));
    }

    #[test]
    fn tags_and_quotes_decide() {
        let tagged = |text, tag: &str| resolve(text, false, Some(&format!("{CORE}{tag}")));
        assert_eq!(resolve("on", true, None).unwrap().kind(), "string");
        assert_eq!(resolve("on", true, Some("!")).unwrap().kind(), "bool");
        assert_eq!(resolve("on", false, Some("!mine")).unwrap().kind(), "string");
        assert_eq!(tagged("on", "str").unwrap().kind(), "string");
        assert_eq!(tagged("1", "float").unwrap().kind(), "number");
        assert_eq!(tagged("x", "int").unwrap_err(), "cannot decode `x` as a !!int");
    }
}
