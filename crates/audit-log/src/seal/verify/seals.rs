//! Reads the seals of one log without its lines: whether they form one chain, where it ends, and
//! which lines and files must exist.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::files::{Files, of};
use crate::seal::checkpoint::{Checkpoint, Found, checkpoint_path};
use crate::seal::digest::hex;
use crate::seal::key::PublicKey;
use crate::seal::record::{Head, Late, Signed};

/// Maximum number of reported problems; a replaced chain has one per block.
const KEPT: usize = 100;

/// The contents of all seals of a log.
#[derive(Debug, Default)]
pub(super) struct Seals {
    /// The last record.
    pub head: Option<Head>,
    /// Whether the last record is marked `stopped`.
    pub stopped: bool,
    /// What is wrong with the chain.
    pub problems: Vec<String>,
    /// Blocks that do not follow their predecessors.
    breaks: Vec<(u64, String)>,
    /// The sealed part of each pair of [`Files`].
    pub files: Vec<SealedFile>,
}

/// The sealed part of one file.
#[derive(Debug)]
pub(super) struct SealedFile {
    /// The path of the log file, whether it exists or not.
    pub log: PathBuf,
    pub exists: bool,
    /// The number of the file in the chain.
    pub number: u64,
    pub blocks: u64,
    pub lines: u64,
    /// Number of bytes of the log, uncompressed, up to the end of the last sealed line.
    pub end: u64,
    /// When the first and the last block were closed.
    pub times: Option<(String, String)>,
    /// Numbers of lines that were sealed late, or not at all, by reason.
    pub late: Vec<(Late, u64)>,
}

impl Seals {
    /// Reads all seals of a log. The last record and the checkpoint must be signed by one of the
    /// `trusted` keys, if there are any; their SHA-256 proves the records before.
    pub(super) fn read(log: &Path, files: &Files, trusted: &[PublicKey]) -> io::Result<Seals> {
        let mut seals = Seals::default();
        let mut last = None;
        for pair in &files.pairs {
            let default = pair.seal.with_extension("");
            let mut file = SealedFile {
                log: pair.log.clone().unwrap_or(default),
                exists: pair.log.is_some(),
                number: pair.number,
                blocks: 0,
                lines: 0,
                end: 0,
                times: None,
                late: Vec::new(),
            };
            seals.file(&pair.seal, &mut file, &mut last)?;
            seals.files.push(file);
        }
        let Some((line, path)) = last else { return Ok(seals) };
        let signer = Signed::parse(&line, true).and_then(|signed| signed.signer);
        let is_trusted = |key: &PublicKey| trusted.is_empty() || trusted.contains(key);
        if !signer.is_some_and(|key| is_trusted(&key)) {
            let block = seals.head.map_or(0, |head| head.block);
            let who = if signer.is_some() { "a --public-key" } else { "the key that it names" };
            seals.problem(format!(
                "{}: block {block}, the last of the chain, is not signed by {who}",
                path.display()
            ));
        }
        seals.checkpoint(log, &is_trusted)?;
        Ok(seals)
    }

    fn file(
        &mut self,
        path: &Path,
        file: &mut SealedFile,
        last: &mut Option<(Vec<u8>, PathBuf)>,
    ) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(path).map_err(|error| of(path, &error))?);
        let (mut line, mut row) = (Vec::new(), 0);
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(|error| of(path, &error))? == 0 {
                return Ok(());
            }
            row += 1;
            if line.pop_if(|byte| *byte == b'\n').is_none() {
                return Ok(());
            }
            let Some(signed) = Signed::parse(&line, false) else {
                self.problem(format!("{}:{row}: is not a record", path.display()));
                continue;
            };
            let record = &signed.record;
            let expected = self.head.map(|head| head.block.saturating_add(1));
            let problem = match self.head {
                Some(head) if record.block != head.block.saturating_add(1) => {
                    Some(format!("block {} follows block {}", record.block, head.block))
                }
                Some(head) if record.prev != hex(&head.hash) => Some(format!(
                    "block {} does not name block {} as it is",
                    record.block, head.block
                )),
                _ => None,
            };
            if let Some(problem) = problem {
                let problem = format!("{}:{row}: {problem}", path.display());
                self.breaks.push((record.block.max(expected.unwrap_or(0)), problem.clone()));
                self.breaks.truncate(KEPT);
                self.problem(problem);
            }
            self.head = Some(signed.head());
            self.stopped = record.stopped;
            file.blocks += 1;
            file.lines += record.lines;
            file.end = file.end.max(record.end_offset());
            let times = file.times.get_or_insert_with(|| (record.time.clone(), String::new()));
            times.1.clone_from(&record.time);
            if let Some(late) = record.late.filter(|_| record.lines > 0) {
                match file.late.last_mut() {
                    Some((before, lines)) if *before == late => *lines += record.lines,
                    _ => file.late.push((late, record.lines)),
                }
            }
            *last = Some((line.clone(), path.to_owned()));
        }
    }

    fn checkpoint(
        &mut self,
        log: &Path,
        is_trusted: &dyn Fn(&PublicKey) -> bool,
    ) -> io::Result<()> {
        let path = checkpoint_path(log);
        let found = Checkpoint::read(&path).map_err(|error| of(&path, &error))?;
        let Found::Checkpoint(checkpoint, signer) = found else {
            if matches!(found, Found::Invalid) {
                self.problem(format!("{}: the checkpoint was changed", path.display()));
            }
            return Ok(());
        };
        let (block, last) = (checkpoint.block, self.head.map_or(0, |head| head.block));
        if !is_trusted(&signer) {
            self.problem(format!("{}: is signed by another key", path.display()));
        } else if block > last {
            self.problem(format!(
                "{}: block {block} was sealed, and the chain ends with block {last}: its end was removed",
                path.display()
            ));
        } else if block == last && checkpoint.head() != self.head {
            self.problem(format!(
                "{}: block {block} is not the one that was sealed",
                path.display()
            ));
        }
        Ok(())
    }

    /// Returns why the chain is broken between `block` and the head.
    pub(super) fn break_after(&self, block: u64) -> Option<&str> {
        let found = self.breaks.iter().find(|(number, _)| *number > block);
        found.map(|(_, problem)| problem.as_str())
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        }
    }
}

/// Returns a log and the files that logrotate has made of it (`audit.log.1`, `audit.log.2.gz`).
/// Only their content shows which seal they belong to.
pub(super) fn with_numbered(log: &Path) -> Vec<PathBuf> {
    let folder = match log.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let name = log.file_name().unwrap_or_default().as_bytes();
    let is_numbered = |other: &[u8]| {
        let rest = other.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"."));
        let number = rest.map(|rest| {
            let rest = rest.strip_suffix(b".gz").unwrap_or(rest);
            rest.strip_suffix(b".zst").unwrap_or(rest)
        });
        number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = entries.filter(|entry| is_numbered(entry.file_name().as_bytes()));
    let mut all: Vec<PathBuf> =
        numbered.map(|entry| log.with_file_name(entry.file_name())).collect();
    all.sort();
    // The log itself may not exist. If there are no other files either, the caller reports the
    // error.
    if all.is_empty() || super::files::named(log).is_ok() {
        all.insert(0, log.to_owned());
    }
    all
}

/// A gap in the record of a log, according to its seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whether a line or file is missing, or was not written by the proxy. Otherwise the gap is
    /// only worth knowing.
    pub is_missing: bool,
    /// A description.
    pub what: String,
}

/// A summary of a log's seals, without reading its lines.
#[derive(Debug, Default)]
pub struct Outline {
    /// Blocks in the chain.
    pub blocks: u64,
    /// Number of lines in the blocks.
    pub lines: u64,
    /// The last block, as `BLOCK:SHA256`.
    pub head: Option<String>,
    /// What is missing or not sealed.
    pub gaps: Vec<Gap>,
}

/// Returns a summary of the seals of a log and the files rotated from it; `None` if it has no seal.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub fn outline(log: &Path) -> io::Result<Option<Outline>> {
    let files = super::files::find(&with_numbered(log))?;
    if !files.sealed {
        return Ok(None);
    }
    let seals = Seals::read(log, &files, &[])?;
    let mut outline =
        Outline { head: seals.head.map(|head| head.to_string()), ..Outline::default() };
    let missing = |what: String| Gap { is_missing: true, what };
    let note = |what: String| Gap { is_missing: false, what };
    let first = files.pairs.first();
    if let Some(first) = first.filter(|pair| pair.number > 1) {
        outline.gaps.push(note(format!(
            "the chain begins with file {}; earlier files were deleted by retention or are kept elsewhere",
            first.number
        )));
    }
    for (index, file) in seals.files.iter().enumerate() {
        outline.blocks += file.blocks;
        outline.lines += file.lines;
        let name = file.log.display();
        let before = index.checked_sub(1).map(|before| seals.files[before].number);
        if let Some(before) = before.filter(|before| before + 1 < file.number) {
            let (from, to) = (before + 1, file.number - 1);
            let which =
                if from == to { format!("file {from}") } else { format!("files {from}-{to}") };
            outline.gaps.push(missing(format!(
                "{which} of the chain, before {name}, and the seal are missing"
            )));
        }
        if !file.exists && file.lines > 0 {
            let (from, to) = file.times.clone().unwrap_or_default();
            outline.gaps.push(missing(format!(
                "{name} is missing: its {} lines, sealed {from} to {to}, are gone",
                file.lines
            )));
            continue;
        }
        for (late, lines) in &file.late {
            outline.gaps.push(match late {
                Late::Began => note(format!("{name}: {lines} lines are from before the chain")),
                Late::Crash => note(format!("{name}: {lines} lines were sealed after a crash")),
                Late::Opened => {
                    note(format!("{name}: {lines} lines were in the file when the proxy opened it"))
                }
                Late::Skipped => note(format!(
                    "{name}: {lines} lines are not sealed, as the seal could not be written then"
                )),
                Late::Stopped => missing(format!(
                    "{name}: {lines} lines were inserted while the proxy did not run"
                )),
                Late::Lost => missing(format!(
                    "{name}: {lines} lines were found without their seal, which had been removed"
                )),
            });
        }
        let plain = file.log.extension().is_none_or(|end| end != "gz" && end != "zst");
        if let (true, Ok(size)) = (plain, fs::metadata(&file.log).map(|file| file.len())) {
            let is_last = index + 1 == seals.files.len();
            if size > file.end {
                let what = format!("{name}: the last {} bytes are not sealed", size - file.end);
                outline.gaps.push(match is_last && !seals.stopped {
                    true => note(what + " (yet)"),
                    false => missing(what + ", although the chain goes on: they were inserted"),
                });
            } else if size < file.end {
                outline.gaps.push(missing(format!(
                    "{name}: its last {} bytes were sealed and are gone",
                    file.end - size
                )));
            }
        }
    }
    for (path, _) in &files.unsealed {
        outline.gaps.push(note(format!("{}: is not sealed", path.display())));
    }
    outline.gaps.extend(seals.problems.into_iter().map(missing));
    Ok(Some(outline))
}
