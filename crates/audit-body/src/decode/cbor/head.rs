//! The head of a data item: its major type and its argument.

use super::Error;

const END: Error = Error("unexpected end");

/// The head of a data item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Head {
    Unsigned(u64),
    /// The number is −1 − n.
    Negative(u64),
    /// `None` means that chunks follow, up to a break.
    Bytes(Option<usize>),
    Text(Option<usize>),
    /// The number of elements; `None` means that a break ends them.
    Array(Option<u64>),
    /// The number of members.
    Map(Option<u64>),
    Tag(u64),
    Bool(bool),
    Null,
    Float(f64),
    Break,
}

/// Reads the head at `*at`, and moves `*at` to the byte after it.
pub(super) fn read(input: &[u8], at: &mut usize) -> Result<Head, Error> {
    let first = *input.get(*at).ok_or(END)?;
    *at += 1;
    let (major, info) = (first >> 5, first & 0x1f);
    if major == 7 {
        return simple_or_float(input, at, info);
    }
    let argument = match info {
        0..24 => Some(u64::from(info)),
        24 => Some(u64::from(take::<1>(input, at)?[0])),
        25 => Some(u64::from(u16::from_be_bytes(take(input, at)?))),
        26 => Some(u64::from(u32::from_be_bytes(take(input, at)?))),
        27 => Some(u64::from_be_bytes(take(input, at)?)),
        31 if matches!(major, 2..=5) => None,
        _ => return Err(Error("invalid additional information")),
    };
    let length = || {
        let length = argument.map(usize::try_from).transpose();
        length.map_err(|_| Error("a string is too long"))
    };
    Ok(match major {
        0 => Head::Unsigned(argument.unwrap_or_default()),
        1 => Head::Negative(argument.unwrap_or_default()),
        2 => Head::Bytes(length()?),
        3 => Head::Text(length()?),
        4 => Head::Array(argument),
        5 => Head::Map(argument),
        _ => Head::Tag(argument.unwrap_or_default()),
    })
}

fn simple_or_float(input: &[u8], at: &mut usize, info: u8) -> Result<Head, Error> {
    let number = match info {
        20 => return Ok(Head::Bool(false)),
        21 => return Ok(Head::Bool(true)),
        22 => return Ok(Head::Null),
        31 => return Ok(Head::Break),
        25 => half(u16::from_be_bytes(take(input, at)?)),
        26 => f64::from(f32::from_be_bytes(take(input, at)?)),
        27 => f64::from_be_bytes(take(input, at)?),
        _ => return Err(Error("a simple value other than false, true and null")),
    };
    if number.is_finite() {
        Ok(Head::Float(number))
    } else {
        Err(Error("a number that is not finite"))
    }
}

/// Returns the value of a 16-bit IEEE 754 number.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 0x1f, f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2_f64.powi(i32::from(exponent) - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

fn take<const N: usize>(input: &[u8], at: &mut usize) -> Result<[u8; N], Error> {
    let bytes = input.get(*at..).and_then(<[u8]>::first_chunk).ok_or(END)?;
    *at += N;
    Ok(*bytes)
}

/// Returns the content of a string of this length.
pub(super) fn content<'b>(
    input: &'b [u8],
    at: &mut usize,
    length: usize,
) -> Result<&'b [u8], Error> {
    let (content, _) =
        input.get(*at..).and_then(|rest| rest.split_at_checked(length)).ok_or(END)?;
    *at += length;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8949, appendix A.
    #[test]
    fn halves_are_read() {
        for (bits, expected) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0x3e00, 1.5),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x0400, 0.000_061_035_156_25),
            (0xc400, -4.0),
            (0x7c00, f64::INFINITY),
        ] {
            assert_eq!(half(bits), expected);
        }
        assert!(half(0x7e00).is_nan() && half(0x8000).is_sign_negative());
    }
}
