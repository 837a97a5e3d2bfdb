//! Kubernetes types that have their own JSON encoding.

use std::io::Write;

use super::Value;
use super::transcode::{Error, bytes, fields};

/// `metav1.Time`: RFC 3339 in UTC to the second; `null` for Go's zero time, which is no bytes.
/// Returns whether Go's times reach that far.
pub(super) fn push_time(out: &mut Vec<u8>, message: &[u8]) -> Result<bool, Error> {
    push_timestamp(out, message, false)
}

/// `metav1.MicroTime`: as [`push_time`], with six digits of the second.
pub(super) fn push_micro_time(out: &mut Vec<u8>, message: &[u8]) -> Result<bool, Error> {
    push_timestamp(out, message, true)
}

/// Seconds from Go's zero time, the beginning of year 1, to 1970.
const ZERO_TIME: i64 = -62_135_596_800;

fn push_timestamp(out: &mut Vec<u8>, message: &[u8], micro: bool) -> Result<bool, Error> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    for field in fields(message) {
        match field? {
            (1, value) => seconds = varint(value)?.cast_signed(),
            // A Go int32 of nanoseconds; more than a second is carried over. `Time` ignores it.
            (2, value) => {
                let value = i64::from(varint(value)? as i32);
                nanos = if micro { value } else { 0 };
            }
            _ => {}
        }
    }
    // Beyond this, Go's count of seconds since the year 1 overflows.
    let is_in_range = seconds.unsigned_abs() < 1 << 62;
    seconds = seconds.saturating_add(nanos.div_euclid(1_000_000_000));
    nanos = nanos.rem_euclid(1_000_000_000);
    if message.is_empty() || (seconds == ZERO_TIME && nanos == 0) {
        out.extend_from_slice(b"null");
        return Ok(true);
    }
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if micro { format!(".{:06}", nanos / 1000) } else { String::new() };
    let _ = write!(
        out,
        "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z\""
    );
    Ok(is_in_range)
}

fn varint(value: Value<'_>) -> Result<u64, Error> {
    match value {
        Value::Varint(number) => Ok(number),
        _ => Err(Error::Malformed),
    }
}

/// Year, month and day of a day counted from 1970-01-01 (the proleptic Gregorian calendar, in eras
/// of 400 years that begin on a 1st of March).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Writes `intstr.IntOrString`. Go cannot encode a value that is neither.
pub(super) fn push_int_or_string(out: &mut Vec<u8>, message: &[u8]) -> Result<(), Error> {
    let (mut kind, mut int, mut text) = (0, 0, &b""[..]);
    for field in fields(message) {
        match field? {
            (1, value) => kind = varint(value)?,
            (2, value) => int = varint(value)? as i32,
            (3, value) => text = bytes(value)?,
            _ => {}
        }
    }
    match kind {
        0 => push_int(out, i64::from(int)),
        1 => k8s_audit::json::push_string(out, text),
        _ => return Err(Error::Malformed),
    }
    Ok(())
}

pub(super) fn push_int(out: &mut Vec<u8>, number: i64) {
    let _ = write!(out, "{number}");
}

pub(super) use crate::decode::push_float as push_double;

#[cfg(test)]
mod tests {
    use super::*;

    fn varints(fields: &[(u8, i64)]) -> Vec<u8> {
        let mut message = Vec::new();
        for (number, value) in fields {
            message.push(number << 3);
            let mut rest = value.cast_unsigned();
            while rest >= 0x80 {
                message.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            message.push(rest as u8);
        }
        message
    }

    fn text(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times() {
        let time = |s, n| text(|out| assert!(push_time(out, &varints(&[(1, s), (2, n)])).is_ok()));
        let micro =
            |s, n| text(|out| assert!(push_micro_time(out, &varints(&[(1, s), (2, n)])).is_ok()));
        assert_eq!(text(|out| assert_eq!(push_time(out, b""), Ok(true))), "null");
        assert_eq!(time(ZERO_TIME, 0), "null");
        assert_eq!(time(0, 0), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(time(1_709_210_096, 5), "\"2024-02-29T12:34:56Z\"");
        assert_eq!(time(-1, 0), "\"1969-12-31T23:59:59Z\"");
        assert_eq!(time(253_402_300_800, 0), "\"10000-01-01T00:00:00Z\"");
        assert_eq!(micro(1_767_323_045, 123_400_999), "\"2026-01-02T03:04:05.123400Z\"");
        time(i64::MAX, i64::MAX);
        time(i64::MIN, i64::MIN);
        assert_eq!(push_time(&mut Vec::new(), &varints(&[(1, i64::MIN)])), Ok(false));
        for malformed in [&b"\x0a\x00"[..], b"\x08", b"\x0e\x00", b"\x12\x01a"] {
            assert_eq!(push_time(&mut Vec::new(), malformed), Err(Error::Malformed));
        }
    }

    #[test]
    fn doubles() {
        let double = |number| text(|out| push_double(out, number).unwrap());
        for (number, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (-2.5e30, "-2.5e+30"),
        ] {
            assert_eq!(double(number), want);
        }
        assert!(push_double(&mut Vec::new(), f64::NAN).is_none());
    }

    #[test]
    fn int_or_string() {
        let value = |message: &[u8]| text(|out| push_int_or_string(out, message).unwrap());
        assert_eq!(value(b"\x08\x00\x10\x50\x1a\x00"), "80");
        assert_eq!(value(b"\x08\x01\x10\x00\x1a\x04http"), "\"http\"");
        assert_eq!(value(b""), "0");
        for malformed in [&b"\x08\x02"[..], b"\x0a\x00", b"\x18\x01", b"\x08"] {
            assert!(push_int_or_string(&mut Vec::new(), malformed).is_err(), "{malformed:x?}");
        }
    }
}
