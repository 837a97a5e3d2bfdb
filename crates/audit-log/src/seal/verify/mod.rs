//! Whether sealed logs are what was written: `kube-audit-proxy log verify`.
//!
//! Seals are read in the order of the chain, each once, and its log with it; memory does not grow
//! with either.

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

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line is not what was sealed.
    Changed,
    /// Lines that were sealed are gone.
    Removed,
    /// Lines were not written by the proxy.
    Inserted,
    /// A line is not where it was.
    Moved,
    /// A file is not where it was.
    Swapped,
    /// A file is gone that was sealed.
    FileRemoved,
    /// A log has no seal.
    NoSeal,
    /// An index file was changed.
    Index,
    /// A record of the seal was changed, removed, inserted or moved.
    Seal,
    /// The chain is not the one that a head is of.
    Head,
    /// A checkpoint was changed, or is not of this chain.
    Checkpoint,
    /// Nothing that was done; something to know.
    Note,
}

/// One thing that is not as it was written, or (among the warnings) that cannot be told.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was done.
    pub kind: Kind,
    /// To which file.
    pub path: PathBuf,
    /// To which of its lines, from 1; the first, if there are several. None: to all of it.
    pub line: Option<u64>,
    /// In words, to go on with after the place.
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

/// What [`verify`] has found.
#[derive(Debug, Default)]
pub struct Report {
    /// Signs of tampering.
    pub findings: Vec<Finding>,
    /// What cannot be told, or is worth knowing.
    pub warnings: Vec<Finding>,
    /// Keys that have signed records.
    pub keys: Vec<PublicKey>,
    /// Log files that were compared with their seals.
    pub files: u64,
    /// Lines in them that are what was sealed.
    pub lines: u64,
    /// Records whose signatures are good.
    pub blocks: u64,
    /// Bytes of logs, uncompressed.
    pub bytes: u64,
    /// When the first and the last of the blocks were closed, RFC 3339.
    pub times: Option<(String, String)>,
    /// The last block.
    pub head: Option<Head>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Returns whether there is no sign of tampering.
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What the caller of [`verify`] knows of the log from elsewhere.
#[derive(Debug, Default, Clone, Copy)]
pub struct Expected<'a> {
    /// Keys that seals may be signed by. None: those that they name themselves.
    pub keys: &'a [PublicKey],
    /// Blocks that the chain must contain.
    pub heads: &'a [Head],
    /// Checkpoint files, in addition to those beside the logs.
    pub checkpoints: &'a [PathBuf],
}

/// Files of a log that is being written can be rotated while they are read; then they are read
/// again, so many times at most.
const ATTEMPTS: usize = 8;

/// Compares log files, and those that were rotated from them, with their seals. Each checkpoint
/// must be in the chain, as those that are beside the logs must be.
///
/// # Errors
/// A file cannot be read, or there is neither a seal nor a checkpoint.
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
    // Before the seals, which only grow: so it is not ahead of them.
    let checkpoints = checkpoint::read(files, expected.checkpoints)?;
    let found = files::find(files)?;
    if !found.sealed && checkpoints.is_empty() {
        return Err(io::Error::other(
            "there is no seal beside the log: was it written with --audit-log-seal?",
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
