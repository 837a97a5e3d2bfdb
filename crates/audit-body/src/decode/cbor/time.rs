//! Times, which Go decodes to RFC 3339 text with as many fractional digits as needed.

use std::fmt::Write;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Converts a time with tag 0, in the time zone in which it is written.
pub(super) fn of_text(text: &[u8]) -> Option<String> {
    let time = OffsetDateTime::parse(str::from_utf8(text).ok()?, &Rfc3339).ok()?;
    Some(format(time))
}

/// Converts a time with tag 1, in UTC.
pub(super) fn of_seconds(seconds: i64, nanos: i64) -> Option<String> {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    // Go only writes the years 0 to 9999.
    (0..=9999).contains(&time.year()).then(|| format(time))
}

/// Like [`of_seconds`], with a fraction.
pub(super) fn of_float(seconds: f64) -> Option<String> {
    let whole = seconds.trunc();
    let range = -(2_f64.powi(63))..2_f64.powi(63);
    let nanos = (seconds - whole) * 1e9;
    if range.contains(&whole) { of_seconds(whole as i64, nanos as i64) } else { None }
}

fn format(time: OffsetDateTime) -> String {
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if time.nanosecond() != 0 {
        let digits = format!("{:09}", time.nanosecond());
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    if time.offset() == UtcOffset::UTC {
        text.push('Z');
    } else {
        let (hours, minutes, _) = time.offset().as_hms();
        let sign = if time.offset().is_negative() { '-' } else { '+' };
        let _ = write!(text, "{sign}{:02}:{:02}", hours.abs(), minutes.abs());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_like_go_writes_them() {
        let text = |text: &str| of_text(text.as_bytes());
        assert_eq!(text("2020-01-02T03:04:05.5000Z").unwrap(), "2020-01-02T03:04:05.5Z");
        assert_eq!(text("2020-01-02T03:04:05-01:30").unwrap(), "2020-01-02T03:04:05-01:30");
        assert_eq!(text("2020-01-02T03:04:05+00:00").unwrap(), "2020-01-02T03:04:05Z");
        assert_eq!(text("yesterday"), None);
        assert_eq!(of_seconds(0, 0).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(of_float(1.5).unwrap(), "1970-01-01T00:00:01.5Z");
        assert_eq!(of_float(-1.5).unwrap(), "1969-12-31T23:59:58.5Z");
        assert_eq!((of_float(1e300), of_seconds(i64::MAX, 0)), (None, None));
    }
}
