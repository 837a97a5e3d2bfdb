//! Verifies single lines: the block of a line, the signature of the block, and its path to the end
//! of the chain.
//!
//! [`super::verify`] reads whole logs. This module reads all seals once, but only those blocks of
//! the logs that contain the requested lines.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use audit_query::proof::{self, Block, Proof, Verdict};

use super::changes;
use super::files::{self, Age, Files, of};
use super::seals::{Seals, with_numbered};
use crate::seal::digest::{Sha256, finish, hex, short};
use crate::seal::key::PublicKey;
use crate::seal::lines::{self, Line, Lines};
use crate::seal::record::{Late, Record, Signed, block_hash};

/// Maximum number of attempts: a log that is rotated meanwhile is read once more.
const ATTEMPTS: usize = 8;

/// Verifies lines of any number of logs.
#[derive(Debug)]
pub struct Prover {
    trusted: Vec<PublicKey>,
    logs: HashMap<PathBuf, Log>,
}

/// A log, and the files rotated from it.
#[derive(Debug)]
struct Log {
    files: Files,
    seals: Seals,
    /// The files and their inodes, to detect a rotation.
    names: Vec<(PathBuf, Option<u64>)>,
    index: Option<Index>,
    checked: Option<Checked>,
    reader: Option<Reader>,
}

/// The records of one seal file that have lines.
#[derive(Debug)]
struct Index {
    pair: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// The range of bytes in the log file.
    bytes: (u64, u64),
    /// The offset of the record in the seal file, and its line number there.
    at: u64,
    number: u64,
}

/// The most recently compared block.
#[derive(Debug)]
struct Checked {
    pair: usize,
    signed: Signed,
    row: u64,
    /// The offset and the digest of each line.
    lines: Vec<(u64, Sha256)>,
    /// Why the lines do not match the seal.
    problem: Option<String>,
}

/// The position up to which a compressed log has been read.
struct Reader {
    pair: usize,
    lines: Lines<Box<dyn Read>>,
    offset: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("pair", &self.pair).field("offset", &self.offset).finish()
    }
}

impl Prover {
    /// Creates a prover that trusts these keys; there must be at least one.
    pub fn new(trusted: Vec<PublicKey>) -> Prover {
        Prover { trusted, logs: HashMap::new() }
    }
}

impl proof::Prover for Prover {
    fn prove(&mut self, log: &Path, file: &Path, offset: u64, line: &[u8]) -> io::Result<Proof> {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(line);
        context.update(b"\n");
        let hash = finish(context);
        let mut attempt = 1;
        loop {
            if !self.logs.contains_key(log) {
                self.logs.insert(log.to_owned(), Log::open(log, &self.trusted)?);
            }
            let Some(opened) = self.logs.get_mut(log) else { continue };
            let proof = opened.prove(file, offset, &hash, &self.trusted);
            let is_good = proof
                .as_ref()
                .is_ok_and(|proof| matches!(proof.verdict, Verdict::Verified | Verdict::Late(_)));
            if is_good || attempt == ATTEMPTS || opened.names == changes::names(&with_numbered(log))
            {
                return proof;
            }
            self.logs.remove(log);
            attempt += 1;
        }
    }

    fn problems(&self) -> Vec<String> {
        self.logs.values().flat_map(|log| log.seals.problems.clone()).collect()
    }
}

impl Log {
    fn open(log: &Path, trusted: &[PublicKey]) -> io::Result<Log> {
        let paths = with_numbered(log);
        let names = changes::names(&paths);
        let files = files::find(&paths)?;
        if !files.sealed {
            return Err(io::Error::other(format!(
                "{}: there is no seal next to the log: was it written with --audit-log-seal?",
                log.display()
            )));
        }
        let seals = Seals::read(log, &files, trusted)?;
        Ok(Log { files, seals, names, index: None, checked: None, reader: None })
    }

    fn prove(
        &mut self,
        file: &Path,
        offset: u64,
        hash: &Sha256,
        trusted: &[PublicKey],
    ) -> io::Result<Proof> {
        let head = self.seals.head.map(|head| head.to_string());
        let bare = |verdict| Proof {
            verdict,
            line: None,
            sha256: hex(hash),
            block: None,
            head: head.clone(),
        };
        let Some(pair) = self.pair_of(file)? else {
            let age = self.files.unsealed.iter().find(|(path, _)| same(path, file));
            return Ok(bare(match age {
                Some((_, Age::Before)) => {
                    Verdict::Unsealed("the file is from before the chain".to_owned())
                }
                Some((_, Age::After)) if !self.seals.stopped => {
                    Verdict::Unsealed("the file is not sealed (yet)".to_owned())
                }
                _ => Verdict::Failed(
                    "the file has no seal: the seal was removed, or the proxy did not write the file"
                        .to_owned(),
                ),
            }));
        };
        let Some(row) = self.row(pair, offset)? else {
            let is_last = pair + 1 == self.files.pairs.len();
            return Ok(bare(if is_last && !self.seals.stopped {
                Verdict::Unsealed("the line is after the last block: not sealed (yet)".to_owned())
            } else {
                Verdict::Failed(
                    "no block has the line, although the seal ends later: it was inserted"
                        .to_owned(),
                )
            }));
        };
        let checked = self.check(pair, row)?;
        let record = &checked.signed.record;
        let index = checked.lines.iter().position(|(start, _)| *start == offset);
        let line = index.map(|index| record.line + index as u64);
        let signature = checked.signed.signer.is_some_and(|key| trusted.contains(&key));
        let verdict = if !signature {
            Verdict::Failed(match checked.signed.signer {
                Some(_) => "the block is not signed by a --public-key".to_owned(),
                None => "the signature of the block's record is invalid".to_owned(),
            })
        } else if record.late == Some(Late::Skipped) {
            Verdict::Unsealed("the seal could not be written when the line was".to_owned())
        } else if let Some(problem) = &checked.problem {
            Verdict::Failed(problem.clone())
        } else if index.is_none_or(|index| checked.lines[index].1 != *hash) {
            Verdict::Failed("the line is not the one that was sealed at its place".to_owned())
        } else if let Some(problem) = self.seals.break_after(record.block) {
            Verdict::Failed(format!("the block does not lead to the end of the chain: {problem}"))
        } else {
            late(record.late)
        };
        let block = Block {
            number: record.block,
            chain: record.chain.clone(),
            lines: (record.line, record.end_line().saturating_sub(1)),
            bytes: (record.offset, record.end_offset()),
            sha256: record.sha256.clone(),
            record: hex(&checked.signed.hash),
            time: record.time.clone(),
            seal: (self.files.pairs[pair].seal.clone(), checked.row),
            key: record.key.clone(),
            signature,
        };
        self.checked = Some(checked);
        Ok(Proof { verdict, line, sha256: hex(hash), block: Some(block), head })
    }

    /// Returns the seal that belongs to a log file.
    fn pair_of(&self, file: &Path) -> io::Result<Option<usize>> {
        let is_it = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| same(path, file));
        fs::metadata(file).map_err(|error| of(file, &error))?;
        Ok(self.files.pairs.iter().position(|pair| is_it(&pair.log)))
    }

    /// Returns the record that covers this offset of the log file.
    fn row(&mut self, pair: usize, offset: u64) -> io::Result<Option<Row>> {
        let index = match self.index.take().filter(|index| index.pair == pair) {
            Some(index) => index,
            None => Index::read(pair, &self.files.pairs[pair].seal)?,
        };
        let index = self.index.insert(index);
        let after = index.rows.partition_point(|row| row.bytes.0 <= offset);
        Ok(index.rows[..after].last().copied().filter(|row| offset < row.bytes.1))
    }

    /// Reads the record and compares it with the lines of the log.
    fn check(&mut self, pair: usize, row: Row) -> io::Result<Checked> {
        let known = self.checked.take();
        match known.filter(|known| known.pair == pair && known.row == row.number) {
            Some(known) => Ok(known),
            None => self.compare(pair, row),
        }
    }

    fn compare(&mut self, pair: usize, row: Row) -> io::Result<Checked> {
        let seal = &self.files.pairs[pair].seal;
        let mut file = File::open(seal).map_err(|error| of(seal, &error))?;
        file.seek(SeekFrom::Start(row.at))?;
        let mut line = Vec::new();
        BufReader::new(file).read_until(b'\n', &mut line)?;
        line.pop_if(|byte| *byte == b'\n');
        let signed = Signed::parse(&line, true).ok_or_else(|| {
            io::Error::other(format!("{}: the record changed while it was read", seal.display()))
        })?;
        let record = &signed.record;
        let found = match record.late {
            Some(Late::Skipped) => Ok(Vec::new()),
            _ => self.lines(pair, record),
        };
        let (lines, problem) = match found {
            Ok(lines) => {
                let problem = difference(record, &lines);
                (lines.into_iter().map(|(offset, line)| (offset, line.hash)).collect(), problem)
            }
            Err(error) => (Vec::new(), Some(format!("the block cannot be read: {error}"))),
        };
        Ok(Checked { pair, signed, row: row.number, lines, problem })
    }

    /// Returns the lines of the log that the record covers.
    fn lines(&mut self, pair: usize, record: &Record) -> io::Result<Vec<(u64, Line)>> {
        let Some(path) = &self.files.pairs[pair].log else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let compressed = path.extension().is_some_and(|end| end == "gz" || end == "zst");
        let kept = self
            .reader
            .take()
            .filter(|reader| compressed && reader.pair == pair && reader.offset <= record.offset);
        let mut reader = match kept {
            Some(reader) => reader,
            None if compressed => Reader { pair, lines: lines::open(path)?, offset: 0 },
            None => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(record.offset))?;
                Reader { pair, lines: Lines::new(Box::new(file)), offset: record.offset }
            }
        };
        let mut found = Vec::new();
        while found.len() < record.lines as usize
            && let Some(line) = reader.lines.next()?
        {
            if reader.offset >= record.offset {
                found.push((reader.offset, line));
            }
            reader.offset += line.bytes;
        }
        self.reader = compressed.then_some(reader);
        Ok(found)
    }
}

impl Index {
    fn read(pair: usize, seal: &Path) -> io::Result<Index> {
        let mut reader = BufReader::new(File::open(seal).map_err(|error| of(seal, &error))?);
        let (mut rows, mut line, mut at, mut number) = (Vec::new(), Vec::new(), 0, 0);
        while {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(|error| of(seal, &error))? > 0
        } {
            let start = at;
            at += line.len() as u64;
            number += 1;
            if line.pop_if(|byte| *byte == b'\n').is_none() {
                break;
            }
            let Some(signed) = Signed::parse(&line, false) else { continue };
            let record = signed.record;
            if record.bytes > 0 {
                rows.push(Row { bytes: (record.offset, record.end_offset()), at: start, number });
            }
        }
        // Records of an intact chain are sorted; inserted ones need not be.
        rows.sort_by_key(|row| row.bytes.0);
        Ok(Index { pair, rows })
    }
}

/// Describes the difference between the record and the lines, if there is one.
fn difference(record: &Record, lines: &[(u64, Line)]) -> Option<String> {
    let Some(digests) = record.short_digests() else {
        return Some("the record does not have one digest per line".to_owned());
    };
    let hashes: Vec<_> = lines.iter().map(|(_, line)| line.hash).collect();
    let bytes: u64 = lines.iter().map(|(_, line)| line.bytes).sum();
    let starts = lines.first().is_none_or(|(offset, _)| *offset == record.offset);
    if hex(&block_hash(&hashes)) == record.sha256 && bytes == record.bytes && starts {
        return None;
    }
    let pairs = digests.iter().zip(hashes.iter());
    let changed = pairs.take_while(|(digest, hash)| **digest == short(hash)).count() as u64;
    Some(format!(
        "the block is not what was sealed: line {} was changed, moved, or removed",
        record.line + changed
    ))
}

fn late(late: Option<Late>) -> Verdict {
    let text = |text: &str| Verdict::Late(text.to_owned());
    match late {
        None => Verdict::Verified,
        Some(Late::Began) => text("the line was there when the chain began"),
        Some(Late::Crash) => {
            text("the line was sealed after a crash, when the proxy started again")
        }
        Some(Late::Opened) => text("the line was in the file when the proxy opened it"),
        Some(Late::Skipped) => Verdict::Unsealed("the line was not sealed".to_owned()),
        Some(Late::Stopped) => {
            Verdict::Failed("the line was inserted while the proxy did not run".to_owned())
        }
        Some(Late::Lost) => Verdict::Failed(
            "the line was found without its seal, which had been removed".to_owned(),
        ),
    }
}

fn same(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    a == b || id(a).is_some() && id(a) == id(b)
}
