//! Digests of lines, and of blocks of them.

use std::fmt::Write;

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 digest.
pub(crate) type Sha256 = [u8; 32];

/// The first bytes of a line's SHA-256, which identify the line.
pub(crate) type Short = [u8; 8];

/// Returns the SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    whole(digest(&SHA256, bytes))
}

/// Returns the SHA-256 of the bytes that `context` has received.
pub(crate) fn finish(context: Context) -> Sha256 {
    whole(context.finish())
}

/// Returns the part of a line's SHA-256 that a record contains.
pub(crate) fn short(hash: &Sha256) -> Short {
    let (short, _) = hash.split_first_chunk().expect("32 bytes begin with 8");
    *short
}

/// Returns the digest in hex, like `sha256sum`.
pub(crate) fn hex(hash: &Sha256) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Parses a digest in hex.
pub(crate) fn parse_hex(text: &str) -> Option<Sha256> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn whole(digest: aws_lc_rs::digest::Digest) -> Sha256 {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
