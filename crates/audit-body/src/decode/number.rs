//! Numbers in the format of Go.

use std::io::Write;

/// Appends a number like Go's JSON encoder writes a `float64`; `None` for those that JSON cannot
/// represent.
pub(crate) fn push_float(out: &mut Vec<u8>, number: f64) -> Option<()> {
    if !number.is_finite() {
        return None;
    }
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e')?;
        // Go always writes the sign of the exponent.
        let sign = if exponent.starts_with('-') { "" } else { "+" };
        let _ = write!(out, "{digits}e{sign}{exponent}");
    } else {
        let _ = write!(out, "{number}");
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::push_float;

    #[test]
    fn floats_are_written_like_go_writes_them() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1.25e-7, "1.25e-7"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
        ] {
            let mut out = Vec::new();
            push_float(&mut out, number).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert_eq!(push_float(&mut Vec::new(), f64::NAN), None);
    }
}
