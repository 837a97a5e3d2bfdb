//! Verifies the chain from its first record to its last.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

use super::compare::{Comparison, Difference};
use super::files::{Age, Pair, of};
use super::{Finding, Kind, Report};
use crate::seal::digest::{finish, hex};
use crate::seal::key::PublicKey;
use crate::seal::lines;
use crate::seal::record::{Head, Late, Record, Signed};

/// The state of the verification.
pub(super) struct Walk<'a> {
    report: Report,
    trusted: &'a [PublicKey],
    heads: Vec<(Head, bool)>,
    chain: Option<String>,
    /// The last record, and whether its signature is valid.
    last: Option<(Head, bool)>,
    first_block: u64,
    number: Option<u64>,
    /// Whether the last record is marked `stopped`.
    stopped: bool,
    /// SHA-256 of index files, in hex, by file name.
    indexes: HashMap<String, String>,
}

/// The position in one seal file.
struct Place<'a> {
    seal: &'a Path,
    log: &'a Path,
    /// The line number in the seal.
    row: u64,
    /// The line with which the next record must begin.
    next_line: u64,
    /// The most recently reported range of late lines, as `(reason, first, end)`.
    late: Option<(Late, u64, u64)>,
    records: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(report: Report, trusted: &'a [PublicKey], heads: &[Head]) -> Walk<'a> {
        let heads = heads.iter().map(|head| (*head, false)).collect();
        Walk {
            report,
            trusted,
            heads,
            chain: None,
            last: None,
            first_block: 0,
            number: None,
            stopped: false,
            indexes: HashMap::new(),
        }
    }

    /// Reports a log without a seal. Must be called after the whole chain was read.
    pub(super) fn unsealed(&mut self, log: &Path, age: Age) -> io::Result<()> {
        let empty = std::fs::metadata(log).map_err(|error| of(log, &error))?.len() == 0;
        match age {
            _ if empty && age != Age::Within => {}
            Age::Before => self.warn(log, None, "is not sealed: it is from before the chain"),
            Age::After if !self.stopped => self.warn(log, None, "is not sealed (yet)"),
            Age::Within | Age::After => {
                let what = "has no seal: that was removed, or the log was not written by the proxy";
                self.find(Kind::NoSeal, log, None, what);
            }
        }
        Ok(())
    }

    /// Verifies one file. `last` means that no file of the chain follows.
    pub(super) fn file(&mut self, pair: &Pair, last: bool) -> io::Result<()> {
        let default = pair.seal.with_extension("");
        let log = pair.log.as_deref().unwrap_or(&default);
        if self.number == Some(pair.number) {
            self.find(Kind::Seal, &pair.seal, None, "is a copy of another seal of the chain");
        }
        self.number = Some(pair.number);
        let mut place =
            Place { seal: &pair.seal, log, row: 0, next_line: 1, late: None, records: 0 };
        let opened = pair.log.as_ref().map(|log| lines::open(log)).transpose();
        let mut comparison = Comparison::new(opened.map_err(|error| of(log, &error))?);
        let mut missing = (0, 0);
        let mut reader =
            BufReader::new(File::open(&pair.seal).map_err(|error| of(&pair.seal, &error))?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(|error| of(&pair.seal, &error))? == 0 {
                break;
            }
            place.row += 1;
            if line.pop_if(|byte| *byte == b'\n').is_none() {
                // Both a crash and a truncation leave a partial record; only a head can tell them
                // apart.
                let what = "the last record is not whole; its lines are not sealed";
                if last {
                    self.warn(&pair.seal, Some(place.row), what);
                } else {
                    self.find(Kind::Seal, &pair.seal, Some(place.row), what);
                }
                break;
            }
            let Some(signed) = Signed::parse(&line, true) else {
                let what = "is not a record: the line was changed or inserted";
                self.find(Kind::Seal, &pair.seal, Some(place.row), what);
                continue;
            };
            if !self.follows(&signed, &mut place, pair.number) {
                continue;
            }
            let record = &signed.record;
            for index in &record.indexes {
                self.indexes.insert(index.file.clone(), index.sha256.clone());
            }
            if pair.log.is_none() {
                missing = (missing.0 + record.lines, record.block);
                place.next_line = record.end_line();
                continue;
            }
            self.compare(record, &mut place, &mut comparison);
        }
        if pair.log.is_none() {
            if missing.0 > 0 {
                let what = format!(
                    "was removed; its {} lines, to block {}, were sealed",
                    missing.0, missing.1
                );
                self.find(Kind::FileRemoved, &default, None, what);
            }
            return Ok(());
        }
        self.end_of_file(&place, comparison, last);
        Ok(())
    }

    /// Verifies the index file of a log, if it exists and is sealed. Must be called after the whole
    /// chain was read, because the digest is in a later record.
    pub(super) fn index(&mut self, pair: &Pair) -> io::Result<()> {
        let Some(log) = &pair.log else { return Ok(()) };
        let path = audit_query::index::path(log);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(sealed) = self.indexes.get(&*name) else { return Ok(()) };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|error| of(&path, &error))?,
        };
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(|error| of(&path, &error))? {
                0 => break,
                length => context.update(&buffer[..length]),
            }
        }
        let found = hex(&finish(context));
        if found == *sealed {
            return Ok(());
        }
        // After a crash, a new index file may not be sealed yet, and `log index` can regenerate
        // one. It is accepted if it is the index that results from the sealed lines.
        match audit_query::index::expected_digest(log) {
            Ok(expected) if expected == found => {
                self.warn(&path, None, "the index file was regenerated after one was sealed");
            }
            _ => {
                let what = "the index file is neither the one that was sealed, nor what the log gives: it \
                            was changed; see `log index --check`";
                self.find(Kind::Index, &path, None, what);
            }
        }
        Ok(())
    }

    /// Returns the report after all files were verified.
    pub(super) fn end(mut self) -> Report {
        let last = self.last.map(|(head, _)| head);
        self.report.head = last;
        for (head, seen) in std::mem::take(&mut self.heads) {
            if seen {
                continue;
            }
            let block = head.block;
            let path = Path::new("--head");
            match last {
                Some(last) if block > last.block => {
                    let what = format!(
                        "block {block} was sealed, and the chain ends with block {}: its end was removed, lines and seal",
                        last.block
                    );
                    self.find(Kind::Head, path, None, what);
                }
                Some(_) if block < self.first_block => {
                    let what = format!(
                        "block {block} cannot be checked: the chain begins at block {}",
                        self.first_block
                    );
                    self.warn(path, None, what);
                }
                _ => {
                    let what = format!("block {block} is not in the chain");
                    self.find(Kind::Head, path, None, what);
                }
            }
        }
        self.report
    }

    /// Returns whether the record is authentic and comes next in the chain, possibly after missing
    /// blocks, which it reports.
    fn follows(&mut self, signed: &Signed, place: &mut Place<'_>, number: u64) -> bool {
        let (record, row) = (&signed.record, Some(place.row));
        let block = record.block;
        let genuine = signed.signer.filter(|key| self.is_trusted(key));
        let expected = self.last.map(|(last, _)| last.block.saturating_add(1));
        if genuine.is_none() {
            let what = match signed.signer {
                Some(key) => {
                    format!("block {block} is signed by {key}, which is not a --public-key")
                }
                None => {
                    format!("the signature of block {block} is invalid: the record was changed")
                }
            };
            self.find(Kind::Seal, place.seal, row, what);
            if expected.is_none_or(|expected| expected == block) {
                self.last = Some((signed.head(), false));
            }
            return false;
        }
        match (expected, self.last) {
            (Some(expected), _) if block < expected => {
                let what = format!("block {block} is repeated or in the wrong place");
                self.find(Kind::Seal, place.seal, row, what);
                return false;
            }
            (Some(expected), _) if block > expected => {
                let blocks = range(expected, block - 1);
                let one = if expected == block - 1 { "block" } else { "blocks" };
                let kind = if place.records == 0 && place.row == 1 && record.line == 1 {
                    Kind::FileRemoved
                } else {
                    Kind::Seal
                };
                self.find(
                    kind,
                    place.seal,
                    row,
                    format!("{one} {blocks} removed before block {block}"),
                );
            }
            (Some(_), Some((last, true))) if record.prev != hex(&last.hash) => {
                let what = format!("block {block} does not follow block {}", last.block);
                self.find(Kind::Seal, place.seal, row, what);
            }
            (None, _) => {
                self.first_block = block;
                if block > 1 {
                    let what = format!(
                        "the chain begins at block {block}; earlier files were removed or are kept \
                         elsewhere"
                    );
                    self.warn(place.seal, None, what);
                }
            }
            _ => {}
        }
        if self.chain.as_ref().is_some_and(|chain| *chain != record.chain) {
            self.find(Kind::Seal, place.seal, row, format!("block {block} is of another chain"));
        }
        if record.file != number {
            let what =
                format!("block {block} is of file {} of the chain, not {number}", record.file);
            self.find(Kind::Seal, place.seal, row, what);
        }
        self.chain = Some(record.chain.clone());
        self.stopped = record.stopped;
        for (head, seen) in self.heads.iter_mut().filter(|(head, _)| head.block == block) {
            *seen = true;
            if head.hash != signed.hash {
                let what = format!(
                    "block {block} is not the block of --head: the log was rewritten, or \
                     sealed again from an earlier state"
                );
                self.report.findings.push(Finding::of(Kind::Head, place.seal, row, what));
            }
        }
        self.last = Some((signed.head(), true));
        place.records += 1;
        self.report.blocks += 1;
        let times = self.report.times.get_or_insert_with(|| (record.time.clone(), String::new()));
        times.1.clone_from(&record.time);
        if let Some(key) = genuine.filter(|key| !self.report.keys.contains(key)) {
            self.report.keys.push(key);
        }
        true
    }

    fn compare(&mut self, record: &Record, place: &mut Place<'_>, comparison: &mut Comparison) {
        if record.line > place.next_line {
            let lines = range(place.next_line, record.line - 1);
            let what = format!("lines {lines} cannot be checked: their records are missing");
            self.find(Kind::Seal, place.log, Some(place.next_line), what);
            comparison.skip(record.line - place.next_line);
        }
        place.next_line = record.end_line();
        let at = Some(record.line);
        if record.late == Some(Late::Lost) && record.lines == 0 {
            let what = "the seal was missing, or ended too early, when the proxy started";
            self.find(Kind::NoSeal, place.seal, Some(place.row), what);
        }
        if let Some(late) = record.late.filter(|_| record.lines > 0) {
            let from = self.late_from(record, late, place);
            let lines = range(from, record.end_line().saturating_sub(1));
            let what = match late {
                Late::Skipped => {
                    format!("lines {lines} are not sealed: the seal could not be written then")
                }
                Late::Began => format!("lines {lines} are from before the chain"),
                Late::Crash => format!("lines {lines} were not sealed before the crash"),
                Late::Opened => format!("lines {lines} were in the file when the proxy opened it"),
                Late::Stopped => format!("lines {lines} were inserted while the proxy did not run"),
                Late::Lost => {
                    format!("lines {lines} were found without their seal, which had been removed")
                }
            };
            match late {
                Late::Lost => self.find(Kind::NoSeal, place.log, at, what),
                Late::Stopped => self.find(Kind::Inserted, place.log, at, what),
                _ => self.warn(place.log, Some(from), what),
            }
            if late == Late::Skipped {
                comparison.skip(record.lines);
                return;
            }
        }
        match record.short_digests() {
            Some(digests) => comparison.block(record, &digests),
            // The record is signed by a trusted key, so this is a bug.
            None => self.find(
                Kind::Seal,
                place.seal,
                Some(place.row),
                "does not have one digest per line",
            ),
        }
    }

    /// Returns the first line of the range of late lines that this record continues. Both are
    /// reported together, so the previous report is removed.
    fn late_from(&mut self, record: &Record, late: Late, place: &mut Place<'_>) -> u64 {
        let is_warning = !matches!(late, Late::Stopped | Late::Lost);
        let before =
            place.late.filter(|before| is_warning && before.0 == late && before.2 == record.line);
        let from = before.map_or(record.line, |(_, from, _)| from);
        if before.is_some() {
            self.report.warnings.pop();
        }
        place.late = Some((late, from, record.end_line()));
        from
    }

    fn end_of_file(&mut self, place: &Place<'_>, mut comparison: Comparison, last: bool) {
        let (from, count) = comparison.rest(last && !self.stopped);
        if count > 0 {
            let what = format!("lines {} are not sealed (yet)", range(from, from + count - 1));
            self.warn(place.log, Some(from), what);
        }
        self.report.files += 1;
        self.report.lines += comparison.matched();
        self.report.bytes += comparison.bytes;
        for difference in comparison.differences() {
            let (kind, line, what) = words(&difference);
            self.find(kind, place.log, line, what);
        }
    }

    /// Returns whether seals may be signed with this key.
    pub(super) fn is_trusted(&self, key: &PublicKey) -> bool {
        self.trusted.is_empty() || self.trusted.contains(key)
    }

    /// Returns the identifier of the chain and its last block, if there is one.
    pub(super) fn chain_end(&self) -> Option<(&str, Head)> {
        Some((self.chain.as_deref()?, self.last?.0))
    }

    pub(super) fn find(
        &mut self,
        kind: Kind,
        path: &Path,
        line: Option<u64>,
        what: impl Into<String>,
    ) {
        self.report.findings.push(Finding::of(kind, path, line, what));
    }

    pub(super) fn warn(&mut self, path: &Path, line: Option<u64>, what: impl Into<String>) {
        self.report.warnings.push(Finding::of(Kind::Note, path, line, what));
    }
}

fn words(difference: &Difference) -> (Kind, Option<u64>, String) {
    let was = |line: u64, sealed: u64| {
        if line == sealed { String::new() } else { format!(" (sealed as line {sealed})") }
    };
    match *difference {
        Difference::Changed { line, sealed } => {
            (Kind::Changed, Some(line), format!("the line was changed{}", was(line, sealed)))
        }
        Difference::Removed { from, to, before } => {
            let one = if from == to { "line" } else { "lines" };
            (Kind::Removed, Some(before), format!("{one} {} removed from here", range(from, to)))
        }
        Difference::Inserted { from, to } if from == to => {
            (Kind::Inserted, Some(from), "the line was inserted".to_owned())
        }
        Difference::Inserted { from, to } => {
            (Kind::Inserted, Some(from), format!("lines {} were inserted", range(from, to)))
        }
        Difference::Moved { line, sealed } => {
            (Kind::Moved, Some(line), format!("the line was moved{}", was(line, sealed)))
        }
        Difference::Forged { from, to } => {
            (Kind::Changed, Some(from), format!("one of the lines {} was forged", range(from, to)))
        }
        Difference::Unreadable { line, ref reason } => {
            let what = format!("the file is damaged and cannot be read on from here: {reason}");
            (Kind::Changed, Some(line), what)
        }
        Difference::More(count) => (Kind::Changed, None, format!("and {count} more differences")),
    }
}

fn range(from: u64, to: u64) -> String {
    if from >= to { from.to_string() } else { format!("{from}-{to}") }
}
