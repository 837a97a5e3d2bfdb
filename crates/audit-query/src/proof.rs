//! Proofs that events are as they were sealed. The caller of this crate implements seals.

use std::path::{Path, PathBuf};

/// Whether an event is as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its line is in a signed block of the chain, unchanged.
    Verified,
    /// As [`Verdict::Verified`], but the block was sealed later than the line was written.
    Late(String),
    /// No block contains the line yet, which is not a sign of tampering.
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

    /// Returns why the verdict is not simply `verified`.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Verified => None,
            Verdict::Late(reason) | Verdict::Unsealed(reason) | Verdict::Failed(reason) => {
                Some(reason)
            }
        }
    }
}

/// The sealed block that contains the line of an event.
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

/// The result of proving the line of an event.
#[derive(Debug, Clone)]
pub struct Proof {
    /// Whether the line is as it was sealed.
    pub verdict: Verdict,
    /// The number of the line in its file, from 1, if it is in a block.
    pub line: Option<u64>,
    /// SHA-256 of the line with its newline, in hex.
    pub sha256: String,
    /// The block that covers the position of the line, if there is one.
    pub block: Option<Block>,
    /// The end of the chain, as BLOCK:SHA256.
    pub head: Option<String>,
}

/// Proves events.
pub trait Prover {
    /// Proves the line (without its newline) that begins at byte `offset` of `file`, uncompressed.
    /// `log` is the file, or the log from which it was rotated.
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

    /// Returns the problems in the chains of the logs whose events were proved.
    fn problems(&self) -> Vec<String>;
}

/// A summary of the seals of a log.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    /// Blocks in the chain.
    pub blocks: u64,
    /// Lines in them.
    pub lines: u64,
    /// The end of the chain, as BLOCK:SHA256.
    pub head: Option<String>,
    /// Events that are missing, or were not written by the proxy, according to the chain.
    pub missing: Vec<String>,
    /// Events that are not sealed, or were sealed late.
    pub notes: Vec<String>,
}

/// The implementation of seals.
pub trait Seals {
    /// Returns a prover that trusts the keys in these PEM files.
    ///
    /// # Errors
    /// A file cannot be read, or contains no key.
    fn prover(&self, keys: &[PathBuf]) -> Result<Box<dyn Prover>, String>;

    /// Returns a summary of the seals of a log, without reading its lines; `None` if it has none.
    ///
    /// # Errors
    /// A file cannot be read.
    fn outline(&self, log: &Path) -> std::io::Result<Option<Outline>>;
}
