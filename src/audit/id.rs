//! The audit ID: the client's own, or a random UUID.

use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroize;

/// Returns the `Audit-ID` of a request: the client's, verbatim, if it sent one that is not empty;
/// otherwise a random version-4 UUID.
///
/// The value is marked as sensitive, although it is not secret, so that HTTP/2 does not add it to
/// the dynamic table (RFC 7541, 7.1.3), which IDs would soon fill.
pub fn audit_id(given: Option<&HeaderValue>) -> HeaderValue {
    let mut id = match given {
        Some(given) if !given.is_empty() => given.clone(),
        // Bytes with this owner are cloned without an allocation.
        _ => HeaderValue::from_maybe_shared(Bytes::from_owner(random_uuid()))
            .expect("hexadecimal digits and dashes"),
    };
    id.set_sensitive(true);
    id
}

fn random_uuid() -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = RANDOM.with_borrow_mut(Random::take);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

thread_local! {
    static RANDOM: RefCell<Random> = const { RefCell::new(Random { bytes: [0; 512], rest: 0 }) };
}

/// A buffer of random bytes: the generator takes as long for 16 of them as for hundreds.
struct Random {
    bytes: [u8; 512],
    /// How many of them, from the first on, have not been used yet.
    rest: usize,
}

impl Random {
    fn take(&mut self) -> [u8; 16] {
        if self.rest == 0 {
            aws_lc_rs::rand::fill(&mut self.bytes).expect("the system has a source of randomness");
            self.rest = self.bytes.len();
        }
        self.rest -= 16;
        let mut taken = [0; 16];
        let place = &mut self.bytes[self.rest..][..16];
        taken.copy_from_slice(place);
        place.zeroize();
        taken
    }
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

    #[test]
    fn ids_are_unique() {
        let all: std::collections::HashSet<_> = (0..10_000).map(|_| random_uuid()).collect();
        assert_eq!(all.len(), 10_000);
    }

    #[test]
    fn consumed_tokens_are_overwritten() {
        let mut random = Random { bytes: [0; 512], rest: 0 };
        let first = random.take();
        let is_there = |bytes: &[u8]| random.bytes.windows(16).any(|window| window == bytes);
        assert!(!is_there(&first) && random.bytes[..496].iter().any(|byte| *byte != 0));
        assert_eq!(random.bytes[496..], [0; 16]);
    }
}
