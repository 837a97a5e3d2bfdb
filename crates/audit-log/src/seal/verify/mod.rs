//! Verifies that sealed logs are unchanged: `kube-audit-proxy log verify`.
//!
//! Seals are read in the order of the chain, each once and together with its log. Memory usage does
//! not depend on their size.

mod align;
mod changes;
mod checkpoint;
mod compare;
mod files;
mod prove;
mod seals;
mod walk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use self::prove::Prover;
pub use self::seals::{Gap, Outline, outline};
use self::walk::Walk;
use super::key::PublicKey;
use super::record::Head;

/// The kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line differs from the sealed one.
    Changed,
    /// Sealed lines are missing.
    Removed,
    /// Lines were not written by the proxy.
    Inserted,
    /// A line was moved.
    Moved,
    /// A file was moved.
    Swapped,
    /// A sealed file is missing.
    FileRemoved,
    /// A log has no seal.
    NoSeal,
    /// An index file was changed.
    Index,
    /// A record of the seal was changed, removed, inserted or moved.
    Seal,
    /// The chain does not contain the block of a given head.
    Head,
    /// A checkpoint was changed, or belongs to another chain.
    Checkpoint,
    /// Not a manipulation, but worth knowing.
    Note,
}

/// A sign of tampering, or (among the warnings) something that cannot be verified.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The kind of the finding.
    pub kind: Kind,
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; the first one if there are several; `None` for the whole file.
    pub line: Option<u64>,
    /// A description, which follows the place in messages.
    pub what: String,
}

impl Finding {
    fn of(kind: Kind, path: &Path, line: Option<u64>, what: impl Into<String>) -> Finding {
        Finding { kind, path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.what),
            None => write!(f, "{}: {}", self.path.display(), self.what),
        }
    }
}

/// The result of [`verify`].
#[derive(Debug, Default)]
pub struct Report {
    /// Signs of tampering.
    pub findings: Vec<Finding>,
    /// What cannot be verified, or is worth knowing.
    pub warnings: Vec<Finding>,
    /// Keys that have signed records.
    pub keys: Vec<PublicKey>,
    /// Number of log files that were compared with their seals.
    pub files: u64,
    /// Number of lines that match the seal.
    pub lines: u64,
    /// Number of records with valid signatures.
    pub blocks: u64,
    /// Number of bytes of logs, uncompressed.
    pub bytes: u64,
    /// When the first and the last block were closed, RFC 3339.
    pub times: Option<(String, String)>,
    /// The last block.
    pub head: Option<Head>,
    /// Duration of the verification.
    pub took: Duration,
}

impl Report {
    /// Returns whether there is no sign of tampering.
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What the caller of [`verify`] knows about the log from other sources.
#[derive(Debug, Default, Clone, Copy)]
pub struct Expected<'a> {
    /// Keys that may sign the seals; if empty, the keys that the seals name.
    pub keys: &'a [PublicKey],
    /// Blocks that the chain must contain.
    pub heads: &'a [Head],
    /// Checkpoint files, in addition to those next to the logs.
    pub checkpoints: &'a [PathBuf],
}

/// Maximum number of attempts: the files of an active log can be rotated while they are read, and
/// are then read once more.
const ATTEMPTS: usize = 8;

/// Compares log files, and the files rotated from them, with their seals. The chain must contain
/// the records of all checkpoints, including those next to the logs.
///
/// # Errors
/// Returns an error if a file cannot be read, or if there is neither a seal nor a checkpoint.
pub fn verify(files: &[PathBuf], expected: Expected<'_>) -> io::Result<Report> {
    let started = Instant::now();
    let mut attempt = 1;
    loop {
        let before = changes::names(files);
        let result = once(files, expected);
        let is_good = result.as_ref().is_ok_and(Report::is_intact);
        if is_good || attempt == ATTEMPTS || before == changes::names(files) {
            return result.map(|report| Report { took: started.elapsed(), ..report });
        }
        attempt += 1;
    }
}

fn once(files: &[PathBuf], expected: Expected<'_>) -> io::Result<Report> {
    // Read before the seals, which only grow, so that a checkpoint cannot be ahead of them.
    let checkpoints = checkpoint::read(files, expected.checkpoints)?;
    let found = files::find(files)?;
    if !found.sealed && checkpoints.is_empty() {
        return Err(io::Error::other(
            "there is no seal next to the log: was it written with --audit-log-seal?",
        ));
    }
    let report = Report { findings: found.findings, ..Report::default() };
    let mut walk = Walk::new(report, expected.keys, expected.heads);
    for (index, pair) in found.pairs.iter().enumerate() {
        walk.file(pair, index + 1 == found.pairs.len())?;
    }
    for (log, age) in found.unsealed {
        walk.unsealed(&log, age)?;
    }
    for pair in &found.pairs {
        walk.index(pair)?;
    }
    for (path, found) in checkpoints {
        walk.checkpoint(&path, found);
    }
    Ok(walk.end())
}
