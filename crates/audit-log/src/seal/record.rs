//! A record of the seal file: one block of lines.
//!
//! A record is one line of JSON. The signature covers the bytes of that line before `,"sig":`. The
//! `prev` of the next record is the SHA-256 of the whole line without its newline.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::digest::{Sha256, Short, hex, parse_hex, sha256};
use super::key::{PublicKey, SealKey};

/// The version of the format.
const VERSION: u32 = 1;

/// The beginning of the last member.
const SIGNATURE: &str = ",\"sig\":\"";

/// Why lines were sealed later than they were written, so that the seal does not prove their
/// original content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Late {
    /// The lines existed when the chain began.
    Began,
    /// The process ended before it could seal the lines.
    Crash,
    /// The lines were inserted after a graceful shutdown.
    Stopped,
    /// Another process had replaced the log by a file with these lines.
    Opened,
    /// The lines were written while the seal could not be, and are not sealed. The record only
    /// counts them.
    Skipped,
    /// At startup the seal of the lines was missing, or ended before the checkpoint: it was
    /// removed, and the lines may have been changed.
    Lost,
}

/// The contents of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// [`VERSION`]
    seal: u32,
    /// The identifier of the chain: 16 random hexadecimal digits.
    pub chain: String,
    /// The number of the block in the chain, from 1.
    pub block: u64,
    /// The number of the log file in the chain, from 1.
    pub file: u64,
    /// The number of the first line in its file, from 1.
    pub line: u64,
    /// The offset of the first line in its file, in bytes.
    pub offset: u64,
    /// The number of lines.
    pub lines: u64,
    /// The size of the lines in bytes, including their newlines.
    pub bytes: u64,
    /// When the block was closed, RFC 3339 in UTC.
    pub time: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub late: Option<Late>,
    /// Whether the process shut down gracefully after this record.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub stopped: bool,
    /// SHA-256 of the previous record, in hex; 64 zeros in the first.
    pub prev: String,
    /// SHA-256 of the concatenated SHA-256 digests of the lines, in hex.
    pub sha256: String,
    /// The first 8 bytes of each line's SHA-256, concatenated, in base64. The digests include the
    /// newlines.
    pub digests: String,
    /// Index files that were written since the previous record.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub indexes: Vec<IndexDigest>,
    /// The public key, in base64.
    pub key: String,
}

/// The digest of the index file of a rotated log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndexDigest {
    /// The name of the file, in the directory of the log.
    pub file: String,
    /// The SHA-256 of the file, in hex.
    pub sha256: String,
}

/// Signs a record or a checkpoint. Returns the line without its newline.
pub(crate) fn sign(record: &impl Serialize, key: &SealKey) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.pop();
    let signature = STANDARD.encode(key.sign(&line));
    line.extend_from_slice(SIGNATURE.as_bytes());
    line.extend_from_slice(signature.as_bytes());
    line.extend_from_slice(b"\"}");
    Ok(line)
}

/// A signed line, split into the signed JSON and the signature.
pub(crate) struct SignedLine<'a> {
    signed: &'a str,
    signature: &'a str,
}

impl<'a> SignedLine<'a> {
    pub(crate) fn split(line: &'a [u8]) -> Option<SignedLine<'a>> {
        let text = std::str::from_utf8(line).ok()?;
        let (signed, rest) = text.split_at(text.rfind(SIGNATURE)?);
        let signature = rest.strip_prefix(SIGNATURE)?.strip_suffix("\"}")?;
        Some(SignedLine { signed, signature })
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&format!("{}}}", self.signed)).ok()
    }

    /// Returns the public key `key`, in base64, if it has signed the line.
    pub(crate) fn signer(&self, key: &str) -> Option<PublicKey> {
        let signature = STANDARD.decode(self.signature).ok()?;
        PublicKey::parse(key).filter(|key| key.verifies(self.signed.as_bytes(), &signature))
    }
}

/// A record read from a seal file.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub record: Record,
    /// SHA-256 of its line.
    pub hash: Sha256,
    /// The key that the record names, if its signature is valid for that key.
    pub signer: Option<PublicKey>,
}

impl Signed {
    /// Parses a line without its newline. Returns `None` if it is not a record, or has another
    /// version.
    pub(crate) fn parse(line: &[u8], verify: bool) -> Option<Signed> {
        let split = SignedLine::split(line)?;
        let record: Record = split.parse()?;
        if record.seal != VERSION {
            return None;
        }
        let signer = verify.then(|| split.signer(&record.key)).flatten();
        Some(Signed { record, hash: sha256(line), signer })
    }

    /// Returns the head after which a chain continues.
    pub(crate) fn head(&self) -> Head {
        Head { block: self.record.block, hash: self.hash }
    }
}

impl Record {
    /// Returns a record with the next block number; the caller sets the other members.
    pub(crate) fn new(chain: &str, head: Option<&Head>, key: PublicKey) -> Record {
        Record {
            seal: VERSION,
            chain: chain.to_owned(),
            block: head.map_or(1, |head| head.block.saturating_add(1)),
            file: 1,
            line: 1,
            offset: 0,
            lines: 0,
            bytes: 0,
            time: String::new(),
            late: None,
            stopped: false,
            prev: hex(&head.map_or([0; 32], |head| head.hash)),
            sha256: String::new(),
            digests: String::new(),
            indexes: Vec::new(),
            key: key.to_string(),
        }
    }

    /// Sets the digests.
    pub(crate) fn set_digests(&mut self, hashes: &[Sha256]) {
        self.sha256 = hex(&block_hash(hashes));
        let short: Vec<u8> = hashes.iter().flat_map(super::digest::short).collect();
        self.digests = STANDARD.encode(short);
    }

    /// Returns the digests of the lines, or `None` if there is not one per line.
    pub(crate) fn short_digests(&self) -> Option<Vec<Short>> {
        let bytes = STANDARD.decode(&self.digests).ok()?;
        let (digests, []) = bytes.as_chunks() else { return None };
        let expected = if self.late == Some(Late::Skipped) { 0 } else { self.lines };
        (digests.len() as u64 == expected).then(|| digests.to_vec())
    }

    /// Returns the number of the line after the last.
    pub(crate) fn end_line(&self) -> u64 {
        self.line.saturating_add(self.lines)
    }

    /// Returns the offset of the line after the last.
    pub(crate) fn end_offset(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// Returns the SHA-256 of the concatenated digests of lines.
pub(crate) fn block_hash(hashes: &[Sha256]) -> Sha256 {
    sha256(hashes.as_flattened())
}

/// The position of a record in the chain, and its SHA-256, which covers everything sealed before
/// it. Its text form is `BLOCK:SHA256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the block.
    pub block: u64,
    /// SHA-256 of the record's line, without its newline.
    pub hash: Sha256,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.block, hex(&self.hash))
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Head, String> {
        text.split_once(':')
            .and_then(|(block, hash)| {
                Some(Head { block: block.parse().ok()?, hash: parse_hex(hash)? })
            })
            .ok_or_else(|| {
                "a head has the form BLOCK:SHA256, like after head= in the proxy's own log"
                    .to_owned()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &SealKey) -> Record {
        let head = Head { block: 6, hash: sha256(b"before") };
        let mut record = Record::new("0123456789abcdef", Some(&head), key.public());
        record.lines = 2;
        record.set_digests(&[sha256(b"a\n"), sha256(b"b\n")]);
        record
    }

    #[test]
    fn a_record_is_what_was_signed() {
        let key = SealKey::generate().unwrap();
        let line = sign(&record(&key), &key).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("indexes"), "verifiers before it read it");
        let signed = Signed::parse(&line, true).unwrap();
        assert_eq!(signed.record, record(&key));
        assert_eq!(signed.signer, Some(key.public()));
        assert_eq!(signed.head().to_string(), format!("7:{}", hex(&sha256(&line))));
        assert_eq!(signed.head().to_string().parse(), Ok(signed.head()));
        let digests = signed.record.short_digests().unwrap();
        assert_eq!(digests[1], sha256(b"b\n")[..8]);
    }

    #[test]
    fn each_byte_of_it_matters() {
        let key = SealKey::generate().unwrap();
        let line = sign(&record(&key), &key).unwrap();
        for at in 0..line.len() {
            let mut changed = line.clone();
            changed[at] ^= 1;
            let signer = Signed::parse(&changed, true).and_then(|signed| signed.signer);
            // The last character of base64 has unused bits, but `prev` covers the text.
            assert!(signer.is_none() || changed[at..].len() < 6, "byte {at}");
        }
    }

    #[test]
    fn heads_that_are_none_are_refused() {
        for text in ["", "1", "1:", "x:00", "1:zz", &format!("-1:{}", "0".repeat(64))] {
            assert!(text.parse::<Head>().unwrap_err().contains("BLOCK:SHA256"), "{text}");
        }
    }
}
