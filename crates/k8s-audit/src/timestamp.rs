//! Timestamps of audit events.

use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time, in nanoseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Reads the system clock.
    pub fn now() -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Creates a timestamp from nanoseconds since 1970 UTC.
    pub const fn from_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    /// Returns the nanoseconds since 1970 UTC.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Appends the timestamp in RFC 3339, UTC, truncated to microseconds (`metav1.MicroTime`).
    pub fn push_micro(self, out: &mut Vec<u8>) {
        let seconds = self.0.div_euclid(1_000_000_000);
        let micros = self.0.rem_euclid(1_000_000_000) / 1_000;
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        put(&mut text[..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], of_day / 3_600);
        put(&mut text[14..16], of_day / 60 % 60);
        put(&mut text[17..19], of_day % 60);
        put(&mut text[20..26], micros);
        out.extend_from_slice(&text);
    }
}

/// Writes a number into all digits of `text`.
#[inline]
fn put(text: &mut [u8], number: i64) {
    let mut rest = number as u32;
    for byte in text.iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Returns year, month and day for a day counted from 1970-01-01, in the Gregorian calendar. Years
/// are counted from March, in eras of 400, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nanos: i64) -> String {
        let mut out = Vec::new();
        Timestamp(nanos).push_micro(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_truncated_to_six_digits() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(1_777_889_472_000_450_999), "2026-05-04T10:11:12.000450Z");
        assert_eq!(text(951_782_399_999_999_999), "2000-02-28T23:59:59.999999Z");
        assert_eq!(text(951_782_400_000_000_000), "2000-02-29T00:00:00.000000Z");
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_a_calendar_library(seconds in 0_i64..9_000_000_000) {
            let expected = jiff::Timestamp::from_second(seconds).unwrap();
            proptest::prop_assert_eq!(text(seconds * 1_000_000_000), format!("{expected:.6}"));
        }
    }
}
