//! Durations in Go's notation (`1h30m`, `34s`), such as the value of `?timeout=`.

/// Returns the nanoseconds of a duration, which may be negative.
///
/// # Errors
/// Returns Go's error message.
pub fn parse(text: &str) -> Result<i64, String> {
    let quoted = || crate::go::quote(text.as_bytes());
    let invalid = || format!("time: invalid duration {}", quoted());
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    // Nanoseconds; Go refuses more than 2^63 of them.
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, tail) = rest.split_at(digits);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => {
                let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
                tail.split_at(end)
            }
            None => ("", tail),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quoted())),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => {
                let unit = crate::go::quote(unit.as_bytes());
                return Err(format!("time: unknown unit {unit} in duration {}", quoted()));
            }
        };
        let number: f64 = format!("{}.{}", if whole.is_empty() { "0" } else { whole }, fraction)
            .parse()
            .map_err(|_| invalid())?;
        total += number * scale;
        if total > 9.223_372_036_854_775e18 {
            return Err(invalid());
        }
        rest = tail;
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    Ok(sign * total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_to_nanoseconds() {
        let cases =
            [("0", 0), ("1m30s", 90_000_000_000), ("-3ms", -3_000_000), (".5us", 500), ("+1ns", 1)];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn accepts_what_go_accepts() {
        for text in ["0", "34s", "1m30s", "1.5h", ".5s", "1.s", "-3ms", "+1us", "1µs", "1h1ns"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        let bad = [
            ("foo", "time: invalid duration \"foo\""),
            ("", "time: invalid duration \"\""),
            ("34", "time: missing unit in duration \"34\""),
            ("3x", "time: unknown unit \"x\" in duration \"3x\""),
            (".s", "time: invalid duration \".s\""),
            ("-", "time: invalid duration \"-\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ];
        for (text, error) in bad {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
    }
}
