//! What stands in the record in place of a secret.

use aws_lc_rs::digest;

use super::escape::Unescaper;

/// A digest of fewer bytes than this is not shown: a short value could be found by trying.
///
/// The digest is there to see whether two secrets are the same, or whether one is a known one. It
/// has no key, so that it can be compared across proxies and computed by hand.
const SHORTEST_HASHED: u64 = 16;

/// A value while it is read, of which only the size and the digest will be told.
pub(super) struct Redacted {
    sha256: digest::Context,
    bytes: u64,
    /// Strings count as the characters they stand for, other values as compact JSON.
    string: Option<Unescaper>,
}

impl Redacted {
    /// Begins a value that is a string or something else.
    pub(super) fn new(is_string: bool) -> Redacted {
        Redacted {
            sha256: digest::Context::new(&digest::SHA256),
            bytes: 0,
            string: is_string.then(Unescaper::default),
        }
    }

    /// The next piece of the value's JSON text, quotes and all.
    pub(super) fn update(&mut self, piece: &[u8]) {
        let Redacted { sha256, bytes, string } = self;
        let mut add = |piece: &[u8]| {
            sha256.update(piece);
            *bytes += piece.len() as u64;
        };
        match string {
            None => add(piece),
            Some(unescaper) => unescaper.decode(piece, &mut add),
        }
    }

    /// The JSON string that takes the value's place.
    pub(super) fn replacement(self) -> String {
        let Redacted { mut sha256, mut bytes, string } = self;
        if let Some(unescaper) = string {
            unescaper.end(|piece| {
                sha256.update(piece);
                bytes += piece.len() as u64;
            });
        }
        if bytes < SHORTEST_HASHED {
            return format!("\"REDACTED({bytes} bytes)\"");
        }
        let digest = hex(sha256.finish().as_ref());
        format!("\"REDACTED(sha256:{digest}, {bytes} bytes)\"")
    }
}

/// The JSON string that stands for a whole body, of which nothing can be shown since it is not in
/// a form in which the secrets could be found.
pub(crate) fn redacted_whole(body: &[u8]) -> String {
    let mut redacted = Redacted::new(false);
    redacted.update(body);
    redacted.replacement()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
