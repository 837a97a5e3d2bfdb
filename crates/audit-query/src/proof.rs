//! Proofs that events are what was sealed. What a seal is, the caller of this crate knows.

use std::path::{Path, PathBuf};

/// Whether an event is what was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its line is in a signed block of the chain, unchanged.
    Verified,
    /// As [`Verdict::Verified`], but the block was sealed later than the line was written.
    Late(String),
    /// No block has the line (yet), which is no sign of tampering.
    Unsealed(String),
    /// A sign of tampering.
    Failed(String),
}

impl Verdict {
    /// `verified`, `late`, `unsealed`, or `failed`.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Verified => "verified",
            Verdict::Late(_) => "late",
            Verdict::Unsealed(_) => "unsealed",
            Verdict::Failed(_) => "failed",
        }
    }

    /// Why it is not simply verified.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Verified => None,
            Verdict::Late(reason) | Verdict::Unsealed(reason) | Verdict::Failed(reason) => {
                Some(reason)
            }
        }
    }
}

/// The sealed block that an event's line is in.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its number in the chain.
    pub number: u64,
    /// The chain.
    pub chain: String,
    /// The first and the last line of the file, from 1.
    pub lines: (u64, u64),
    /// Bytes of the file, uncompressed: the first, and the one after the last.
    pub bytes: (u64, u64),
    /// SHA-256 of the block's lines, in hex.
    pub sha256: String,
    /// SHA-256 of the record that seals the block, in hex.
    pub record: String,
    /// When the block was closed, RFC 3339.
    pub time: String,
    /// The file with the record, and the record's line there, from 1.
    pub seal: (PathBuf, u64),
    /// The key that the record names.
    pub key: String,
    /// Whether the signature is valid, and of a trusted key.
    pub signature: bool,
}

/// What is known of one event's line.
#[derive(Debug, Clone)]
pub struct Proof {
    /// Whether it is what was sealed.
    pub verdict: Verdict,
    /// The number of the line in its file, from 1, if it is in a block.
    pub line: Option<u64>,
    /// SHA-256 of the line with its newline, in hex.
    pub sha256: String,
    /// The block, if one covers the place of the line.
    pub block: Option<Block>,
    /// The end of the chain, as BLOCK:SHA256.
    pub head: Option<String>,
}

/// Proves events.
pub trait Prover {
    /// Proves the line (without its newline) that begins at byte `offset` of `file`, uncompressed.
    /// `log`: the log that the file is, or was rotated from.
    ///
    /// # Errors
    /// A file cannot be read, or the log has no seal.
    fn prove(
        &mut self,
        log: &Path,
        file: &Path,
        offset: u64,
        line: &[u8],
    ) -> std::io::Result<Proof>;

    /// What is wrong with the chains of the logs that events were proved of.
    fn problems(&self) -> Vec<String>;
}

/// What the seals of a log say of its record.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    /// Blocks in the chain.
    pub blocks: u64,
    /// Lines in them.
    pub lines: u64,
    /// The end of the chain, as BLOCK:SHA256.
    pub head: Option<String>,
    /// What is missing, or was not written by the proxy, by the chain.
    pub missing: Vec<String>,
    /// What is not sealed, or was sealed late.
    pub notes: Vec<String>,
}

/// What knows of seals.
pub trait Seals {
    /// A prover that trusts the keys in these PEM files.
    ///
    /// # Errors
    /// A file cannot be read, or has no key.
    fn prover(&self, keys: &[PathBuf]) -> Result<Box<dyn Prover>, String>;

    /// Returns what the seals of a log say, without reading its lines; `None` if it has none.
    ///
    /// # Errors
    /// A file cannot be read.
    fn outline(&self, log: &Path) -> std::io::Result<Option<Outline>>;
}
