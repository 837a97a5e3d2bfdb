//! The audit ID: the client's own, or a fresh UUID.

use http::HeaderValue;

/// The `Audit-ID` of a request: the client's, verbatim, if it sent one that is not empty; else a
/// random version-4 UUID.
///
/// Marked as sensitive, though it is no secret: in HTTP/2 such a value stays out of the table of
/// headers that may come again (RFC 7541, 7.1.3), which IDs would soon fill.
pub fn audit_id(given: Option<&HeaderValue>) -> HeaderValue {
    let mut id = match given {
        Some(given) if !given.is_empty() => given.clone(),
        _ => HeaderValue::from_bytes(&random_uuid()).expect("hexadecimal digits and dashes"),
    };
    id.set_sensitive(true);
    id
}

fn random_uuid() -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has a source of randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|at| !matches!(at, 8 | 13 | 18 | 23));
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for (place, digit) in places.zip(digits) {
        text[place] = DIGITS[usize::from(digit)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_ids_are_kept_and_others_are_uuids() {
        let long = HeaderValue::from_str(&"y".repeat(200)).unwrap();
        assert_eq!(audit_id(Some(&long)), long);
        assert!(audit_id(Some(&long)).is_sensitive() && audit_id(None).is_sensitive());
        let empty = HeaderValue::from_static("");
        let made = audit_id(Some(&empty));
        let text = made.to_str().unwrap();
        assert_eq!((text.len(), &text[14..15]), (36, "4"));
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
        assert!([8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-'), "{text}");
        assert_ne!(made, audit_id(None));
    }
}
