//! Types with their own JSON encoding.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_audit::document::scalar::GO_BASE64;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Parses an integer like Go's `ParseInt`: without fraction and exponent.
pub(super) fn integer(raw: &[u8]) -> Result<i64, &'static str> {
    let text = str::from_utf8(raw).map_err(|_| "invalid number")?;
    text.parse().map_err(|_| "a number is not an integer of 64 bits")
}

pub(super) fn float(raw: &[u8]) -> Result<f64, &'static str> {
    let text = str::from_utf8(raw).map_err(|_| "invalid number")?;
    let number: f64 = text.parse().map_err(|_| "invalid number")?;
    if number.is_finite() { Ok(number) } else { Err("a number is too large") }
}

/// Appends base64 like Go after decoding and encoding: without line breaks.
pub(super) fn push_bytes(out: &mut Vec<u8>, text: &[u8]) -> Result<(), &'static str> {
    let text: Vec<u8> =
        text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let bytes = GO_BASE64.decode(text).map_err(|_| "illegal base64 data")?;
    push_base64(out, &bytes);
    Ok(())
}

pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Appends a time in UTC, in seconds or with six fractional digits.
pub(super) fn push_time(out: &mut Vec<u8>, text: &[u8], micro: bool) -> Result<(), &'static str> {
    let text = str::from_utf8(text).map_err(|_| "not a time of RFC 3339")?;
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "not a time of RFC 3339")?;
    let time = time.to_offset(UtcOffset::UTC);
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    let fraction = if micro { format!(".{:06}", time.microsecond()) } else { String::new() };
    let text =
        format!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z\"");
    out.extend_from_slice(text.as_bytes());
    Ok(())
}
