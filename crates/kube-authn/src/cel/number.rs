//! Formats and parses numbers like Go's `strconv`.

/// Formats a double like Go's `%g`: with the fewest digits that identify it, and with an exponent
/// if that is below -4 or above 5.
///
/// `1234567` becomes `1.234567e+06`, `100000` stays `100000`, infinity is `+Inf`.
pub(super) fn format(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    // Rust prints the shortest digits, too.
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// Parses a decimal double like `strconv.ParseFloat`; `inf`, `infinity` and `nan` are accepted in
/// any case.
///
/// Returns `None` if the text is not a number, too large, or hexadecimal.
pub(super) fn parse_double(text: &str) -> Option<f64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.eq_ignore_ascii_case("inf") || digits.eq_ignore_ascii_case("infinity") {
        return Some(sign * f64::INFINITY);
    }
    if digits.eq_ignore_ascii_case("nan") {
        return (text.len() == 3).then_some(f64::NAN);
    }
    let is_decimal = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits.chars().all(is_decimal)
    {
        return None;
    }
    let parsed: f64 = digits.parse().ok()?;
    parsed.is_finite().then_some(sign * parsed)
}

/// Parses an integer like `strconv.ParseInt` in base 10.
pub(super) fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Parses an integer without a sign like `strconv.ParseUint` in base 10.
pub(super) fn parse_uint(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Parses a boolean like `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
