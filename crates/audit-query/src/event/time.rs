//! Converts timestamps to and from microseconds since 1970.

use jiff::Timestamp;

use super::Text;

/// Parses an RFC 3339 timestamp. The usual form, in UTC with six fractional digits, is parsed
/// without a library. Digits beyond microseconds are dropped.
#[inline]
pub(crate) fn micros(text: Text<'_>) -> Option<i64> {
    let escaped = text.escaped();
    match <&[u8; 27]>::try_from(escaped).ok().and_then(canonical) {
        Some(micros) => Some(micros),
        None => other(text),
    }
}

/// Parses a timestamp. Returns `None` unless [`push_canonical`] would write the same text.
pub(crate) fn canonical_micros(text: Text<'_>) -> Option<i64> {
    let escaped = text.escaped();
    if escaped.len() != 27 {
        return None;
    }
    let micros = micros(text)?;
    let mut again = Vec::with_capacity(27);
    push_canonical(micros, &mut again);
    (again == escaped).then_some(micros)
}

/// Appends a time in the form of kube-apiserver: 27 bytes, in UTC, with microseconds. Years before
/// 0 and after 9999 are not supported.
pub(crate) fn push_canonical(micros: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut number = |from: usize, to: usize, mut number: i64| {
        for digit in text[from..to].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    number(0, 4, year.clamp(0, 9999));
    number(5, 7, month);
    number(8, 10, day);
    number(11, 13, second / 3600);
    number(14, 16, second / 60 % 60);
    number(17, 19, second % 60);
    number(20, 26, fraction);
    out.extend_from_slice(&text);
}

/// Converts a number of days since 1970 to year, month, and day.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cold]
fn other(text: Text<'_>) -> Option<i64> {
    let timestamp: Timestamp = text.decode().parse().ok()?;
    Some(timestamp.as_microsecond())
}

#[inline(always)]
fn canonical(text: &[u8; 27]) -> Option<i64> {
    let mut valid = true;
    let mut number = |from: usize, to: usize| {
        text[from..to].iter().fold(0_i64, |number, byte| {
            let digit = byte.wrapping_sub(b'0');
            valid &= digit < 10;
            number * 10 + i64::from(digit)
        })
    };
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    let micros = number(20, 26);
    valid &= text[4] == b'-' && text[7] == b'-' && text[10] == b'T' && text[13] == b':';
    valid &= text[16] == b':' && text[19] == b'.' && text[26] == b'Z';
    valid &= (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    // The library handles leap seconds.
    valid &= hour < 24 && minute < 60 && second < 60;
    let days = valid.then(|| days(year, month, day))?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Computes the duration of requests. Caches the last parsed minute: for a timestamp in the same
/// minute, only the seconds are parsed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopwatch {
    /// A validated date, hour, and minute.
    minute: [u8; MINUTE],
}

impl Stopwatch {
    /// Returns the microseconds from one timestamp to another.
    #[inline]
    pub(crate) fn between<'a>(&mut self, from: Text<'a>, to: Text<'a>) -> Option<i64> {
        let text = |text: Text<'a>| <&'a [u8; 27]>::try_from(text.escaped()).ok();
        if let Some((start, end)) = text(from).zip(text(to))
            && start[..MINUTE] == end[..MINUTE]
            && self.knows_minute(start)
            && let Some((start, end)) = in_minute(start).zip(in_minute(end))
        {
            return Some(end - start);
        }
        Some(micros(to)? - micros(from)?)
    }

    /// Returns whether the date, hour, and minute of a timestamp are valid. Caches them if they
    /// are.
    #[inline(always)]
    fn knows_minute(&mut self, text: &[u8; 27]) -> bool {
        let minute = text.first_chunk();
        if minute == Some(&self.minute) {
            return true;
        }
        let is_valid = canonical(text).is_some();
        if let Some(minute) = minute.filter(|_| is_valid) {
            self.minute = *minute;
        }
        is_valid
    }
}

/// The length of `2026-11-23T05:08:`.
const MINUTE: usize = 17;

/// Parses the seconds and their fraction, in microseconds.
#[inline(always)]
fn in_minute(text: &[u8; 27]) -> Option<i64> {
    let mut valid = text[19] == b'.' && text[26] == b'Z' && text[MINUTE] < b'6';
    let mut number = 0;
    for at in [17, 18, 20, 21, 22, 23, 24, 25] {
        let digit = text[at].wrapping_sub(b'0');
        valid &= digit < 10;
        number = number * 10 + i64::from(digit);
    }
    valid.then_some(number)
}

/// Converts a date of the Gregorian calendar to a number of days since 1970.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last day of a year.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_those_of_the_library(micros in -62_135_596_800_000_000_i64..253_402_207_200_000_000) {
            let text = format!("{:.6}", Timestamp::from_microsecond(micros).unwrap());
            prop_assert_eq!(super::micros(Text::new(text.as_bytes())), Some(micros));
            prop_assert_eq!(canonical_micros(Text::new(text.as_bytes())), Some(micros));
        }
    }

    proptest! {
        #[test]
        fn differences_are_those_of_times(
            from in 1_795_410_522_000_000_i64..1_795_410_722_000_000,
            to in 1_795_410_522_000_000_i64..1_795_410_722_000_000,
            at in 0..27_usize,
            byte: u8,
            change: bool,
        ) {
            let text = |micros| {
                let mut text = Vec::new();
                push_canonical(micros, &mut text);
                text
            };
            let (from, mut to) = (text(from), text(to));
            if change {
                to[at] = byte;
            }
            let (from, to) = (Text::new(&from), Text::new(&to));
            let expected = micros(from).zip(micros(to)).map(|(from, to)| to - from);
            let mut stopwatch = Stopwatch::default();
            for _ in 0..2 {
                prop_assert_eq!(stopwatch.between(from, to), expected);
                prop_assert_eq!(stopwatch.between(to, from), expected.map(|micros| -micros));
            }
        }
    }

    #[test]
    fn the_last_days_of_months_are_known() {
        for year in [1900, 2000, 2023, 2024] {
            for month in 1..=12 {
                for day in 28..=32 {
                    let text = format!("{year}-{month:02}-{day:02}T00:00:00.000000Z");
                    let expected: Option<Timestamp> = text.parse().ok();
                    let found = canonical(text.as_bytes().try_into().unwrap());
                    assert_eq!(found, expected.map(|time| time.as_microsecond()), "{text}");
                }
            }
        }
    }

    #[test]
    fn other_forms_are_not_written_back() {
        for text in
            ["2026-11-23T05:08:42Z", "2026-11-23T05:08:60.000000Z", "2026-11-23t05:08:42.000000Z"]
        {
            assert_eq!(canonical_micros(Text::new(text.as_bytes())), None, "{text}");
        }
    }

    #[test]
    fn other_forms_are_understood_and_nonsense_is_not() {
        for (text, expected) in [
            ("2026-11-23T05:08:42Z", Some(1_795_410_522_000_000)),
            ("2026-11-23T06:08:42.000001+01:00", Some(1_795_410_522_000_001)),
            ("2026-11-23T05:08:42.123456789Z", Some(1_795_410_522_123_456)),
            ("2026-11-31T05:08:42.000000Z", None),
            ("2026-13-23T05:08:42.000000Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(micros(Text::new(text.as_bytes())), expected, "{text}");
        }
    }
}
