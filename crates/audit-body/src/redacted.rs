//! The replacement for a secret in the record.

use aws_lc_rs::digest;

use super::escape::Unescaper;

/// No digest is recorded of values shorter than this: a short value could be found by trying all
/// possible ones.
///
/// The digest shows whether two secrets are equal, or whether a secret is a known one. It has no
/// key, so that it can be compared across proxies and computed by hand.
const SHORTEST_HASHED: u64 = 16;

/// Computes the size and the digest of a value while it is read.
pub(super) struct Redacted {
    sha256: digest::Context,
    bytes: u64,
    /// Strings are counted and hashed unescaped, other values as compact JSON.
    string: Option<Unescaper>,
}

impl Redacted {
    pub(super) fn new(is_string: bool) -> Redacted {
        Redacted {
            sha256: digest::Context::new(&digest::SHA256),
            bytes: 0,
            string: is_string.then(Unescaper::default),
        }
    }

    /// Takes the next piece of the value's JSON text, including quotes.
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

    /// Returns the JSON string that replaces the value.
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

/// Returns the JSON string that replaces a whole body, because secrets cannot be located in its
/// format.
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
