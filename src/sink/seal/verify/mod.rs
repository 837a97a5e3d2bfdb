//! Whether sealed logs are what was written: `kube-audit-proxy log verify`.
//!
//! Seals are read in the order of the chain, each once, and its log with it; memory does not grow with
//! either.

mod align;
mod compare;
mod files;
mod walk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// A record of the seal was changed, removed, inserted or moved.
    Seal,
    /// The chain is not the one that a head is of.
    Head,
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
    /// Whether there is no sign of tampering.
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Compares log files, and those that were rotated from them, with their seals. Seals must be signed
/// by one of the keys `trusted`, or, if there is none, by those that they name themselves. The chain must
/// contain the blocks `heads`.
///
/// # Errors
/// A file cannot be read, or there is no seal at all.
pub fn verify(files: &[PathBuf], trusted: &[PublicKey], heads: &[Head]) -> io::Result<Report> {
    let started = Instant::now();
    let found = files::find(files)?;
    if !found.sealed {
        return Err(io::Error::other(
            "there is no seal beside the log: was it written with --audit-log-seal?",
        ));
    }
    let report = Report { findings: found.findings, ..Report::default() };
    let mut walk = Walk::new(report, trusted, heads);
    for (index, pair) in found.pairs.iter().enumerate() {
        walk.file(pair, index + 1 == found.pairs.len())?;
    }
    for (log, age) in found.unsealed {
        walk.unsealed(&log, age)?;
    }
    let mut report = walk.end();
    report.took = started.elapsed();
    Ok(report)
}
