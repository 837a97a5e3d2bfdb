//! Points in time as users write them: RFC 3339, `-2h`, `today`, `yesterday 14:00`.

use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

/// Parses a point in time in microseconds since 1970. Dates and times without an offset are those
/// of the time zone of `now`.
pub(crate) fn parse(text: &str, now: &ZonedDateTime) -> Option<i64> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_microsecond());
    }
    if text == "now" {
        return Some(now.timestamp().as_microsecond());
    }
    if let Some(ago) = text.strip_prefix('-') {
        return Some((now.timestamp() - duration(ago)?).as_microsecond());
    }
    let (day, time) = text.split_once(' ').unwrap_or((text, ""));
    let date = match day {
        "today" => now.date(),
        "yesterday" => now.date().yesterday().ok()?,
        _ => match clock(day) {
            // A time without a date is a time of today.
            Some(time) => return local(now.date().to_datetime(time), now),
            None => match text.parse::<DateTime>() {
                Ok(time) => return local(time, now),
                Err(_) => day.parse().ok()?,
            },
        },
    };
    let time = if time.is_empty() { Time::midnight() } else { clock(time.trim())? };
    local(date.to_datetime(time), now)
}

fn local(time: DateTime, now: &ZonedDateTime) -> Option<i64> {
    Some(time.to_zoned_datetime(now.time_zone().clone()).ok()?.timestamp().as_microsecond())
}

/// `14:00` or `14:00:30`.
fn clock(text: &str) -> Option<Time> {
    let is_clock = text.contains(':') && !text.contains(['-', 'T']);
    is_clock.then(|| text.parse().ok()).flatten()
}

/// Parses `90s`, `1.5h`, `2d`, `1h30m`, `250ms`.
pub(crate) fn duration(text: &str) -> Option<SignedDuration> {
    let mut total = SignedDuration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|char: char| !char.is_alphabetic()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "us" | "\u{b5}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        total = total.checked_add(SignedDuration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_people_mean() {
        let now: ZonedDateTime = "2026-11-23T15:30:00+01:00[Europe/Berlin]".parse().unwrap();
        let micros = |text: &str| text.parse::<Timestamp>().ok().map(|time| time.as_microsecond());
        for (text, expected) in [
            ("2026-11-23T05:08:42.711967Z", "2026-11-23T05:08:42.711967Z"),
            ("2026-11-23T05:08:42+02:00", "2026-11-23T03:08:42Z"),
            ("now", "2026-11-23T14:30:00Z"),
            ("-2h", "2026-11-23T12:30:00Z"),
            ("-1h30m", "2026-11-23T13:00:00Z"),
            ("-1.5d", "2026-11-22T02:30:00Z"),
            ("today", "2026-11-22T23:00:00Z"),
            ("yesterday 14:00", "2026-11-22T13:00:00Z"),
            ("14:00", "2026-11-23T13:00:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-11-20 08:15", "2026-11-20T07:15:00Z"),
            ("2026-11-20T08:15:30", "2026-11-20T07:15:30Z"),
            ("2026-07-01 08:15", "2026-07-01T06:15:00Z"),
        ] {
            assert_eq!(parse(text, &now), micros(expected), "{text}");
        }
        for text in ["", "-", "-2", "-2y", "tomorrow", "yesterday noon", "2026-13-01", "25:00"] {
            assert_eq!(parse(text, &now), None, "{text}");
        }
    }
}
