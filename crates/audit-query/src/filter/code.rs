//! Status codes: `403`, `4xx`, `>=500`, `400-499`.

use std::ops::RangeInclusive;

/// Parses one value of `--code`.
pub(crate) fn parse(text: &str) -> Option<RangeInclusive<i64>> {
    let number = |text: &str| text.trim().parse::<u16>().ok().map(i64::from);
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let class = number(class).filter(|class| (1..=9).contains(class))?;
        return Some(class * 100..=class * 100 + 99);
    }
    for (operator, range) in [
        (">=", (|n| n..=i64::MAX) as fn(i64) -> RangeInclusive<i64>),
        ("<=", |n| 0..=n),
        (">", |n| n + 1..=i64::MAX),
        ("<", |n| 0..=n - 1),
        ("=", |n| n..=n),
    ] {
        if let Some(rest) = text.strip_prefix(operator) {
            return number(rest).map(range);
        }
    }
    match text.split_once('-') {
        Some((from, to)) => Some(number(from)?..=number(to)?),
        None => number(text).map(|code| code..=code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_ranges_are_parsed() {
        for (text, expected) in [
            ("403", Some(403..=403)),
            ("4xx", Some(400..=499)),
            (">=500", Some(500..=i64::MAX)),
            (">500", Some(501..=i64::MAX)),
            ("<400", Some(0..=399)),
            ("400-404", Some(400..=404)),
            ("", None),
            ("xx", None),
            ("4x", None),
            ("four", None),
            (">=", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
