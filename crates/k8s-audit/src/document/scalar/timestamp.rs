//! Recognizes texts that Go's `time.Parse` accepts in one of go-yaml's formats of a `!!timestamp`.

/// Returns whether the text is a date, or a date and a time of day.
pub(super) fn is_timestamp(text: &str) -> bool {
    let mut rest = text.as_bytes();
    if date(&mut rest).is_none() {
        return false;
    }
    match rest.split_first() {
        None => true,
        Some((b'T' | b't', time)) => {
            let mut rest = time;
            clock(&mut rest).is_some() && zone(rest)
        }
        Some((b' ', time)) => {
            // A space in a Go layout matches any number of spaces.
            let mut rest = time.trim_ascii_start();
            clock(&mut rest).is_some() && rest.is_empty()
        }
        Some(_) => false,
    }
}

fn date(rest: &mut &[u8]) -> Option<()> {
    let year = digits(rest, 4, 4)?;
    literal(rest, b'-')?;
    let month = digits(rest, 1, 2)?;
    literal(rest, b'-')?;
    let day = digits(rest, 1, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=days).contains(&day).then_some(())
}

fn clock(rest: &mut &[u8]) -> Option<()> {
    // In a layout with `15` the hour may have one digit, and so may minute and second.
    let hour = digits(rest, 1, 2)?;
    literal(rest, b':')?;
    let minute = digits(rest, 1, 2)?;
    literal(rest, b':')?;
    let second = digits(rest, 1, 2)?;
    if let [b'.' | b',', b'0'..=b'9', ..] = rest {
        *rest = &rest[1..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *rest = &rest[length..];
    }
    (hour < 24 && minute < 60 && second < 60).then_some(())
}

fn zone(rest: &[u8]) -> bool {
    match rest {
        b"Z" => true,
        [b'+' | b'-', offset @ ..] => {
            let mut rest = offset;
            let hour = digits(&mut rest, 2, 2);
            let colon = literal(&mut rest, b':');
            let minute = digits(&mut rest, 2, 2);
            let fits = hour.is_some_and(|hour| hour <= 24) && minute.is_some_and(|m| m < 60);
            fits && colon.is_some() && rest.is_empty()
        }
        _ => false,
    }
}

fn literal(rest: &mut &[u8], byte: u8) -> Option<()> {
    *rest = rest.strip_prefix(&[byte])?;
    Some(())
}

/// Returns a number of `least` to `most` digits.
fn digits(rest: &mut &[u8], least: usize, most: usize) -> Option<u32> {
    let length = rest.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    if length < least {
        return None;
    }
    let (number, after) = rest.split_at(length);
    *rest = after;
    str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::is_timestamp;

    #[test]
    fn the_formats_of_go_yaml() {
        for text in [
            "2001-12-14",
            "2001-1-4",
            "2001-12-14T21:59:43.10-05:00",
            "2001-12-14t1:9:3Z",
            "2001-12-14 21:59:43.1",
            "2004-02-29",
        ] {
            assert!(is_timestamp(text), "{text}");
        }
        for text in
            ["2001-13-14", "2001-2-29", "2001-12-14T21:59:43", "2001-12-14 21:59:43 -5", "x", ""]
        {
            assert!(!is_timestamp(text), "{text}");
        }
    }
}
