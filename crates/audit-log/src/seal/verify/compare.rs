//! Compares the lines of one log file with the digests of its seal, block by block.

use std::collections::{HashMap, VecDeque};
use std::io::Read;

use super::align::align;
use crate::seal::digest::{Sha256, Short, hex, short};
use crate::seal::lines::{Line, Lines};
use crate::seal::record::{Record, block_hash};

/// Maximum number of lines that are compared together, and of further lines that are searched for
/// lines in the wrong place.
const AHEAD: usize = 1 << 16;

/// After a difference, this many lines are compared first, then twice as many each time ...
const ATTEMPT: usize = 128;

/// ... until this many consecutive lines match.
const RUN: usize = 32;

/// Maximum number of differences that are reported one by one. Further ones are only counted.
const DIFFERENCES: usize = 1 << 16;

/// A difference between a file and its seal. Line numbers start at 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Difference {
    /// The line differs from the sealed line `sealed`.
    Changed { line: u64, sealed: u64 },
    /// The sealed lines `from` to `to` are missing. They were before line `before`.
    Removed { from: u64, to: u64, before: u64 },
    /// The lines `from` to `to` were not sealed.
    Inserted { from: u64, to: u64 },
    /// The line was sealed as line `sealed`.
    Moved { line: u64, sealed: u64 },
    /// One of the lines `from` to `to` was changed without changing its short digest.
    Forged { from: u64, to: u64 },
    /// The file is not a valid compressed file and cannot be read from line `line` on.
    Unreadable { line: u64, reason: String },
    /// Number of further differences.
    More(u64),
}

/// A line without a counterpart.
#[derive(Debug, Clone, Copy)]
struct Unmatched {
    line: u64,
    digest: Short,
    /// Number of lines that were matched before it. Unmatched lines with the same number are at the
    /// same place.
    place: u64,
    /// For a missing line, the number of the line before which it was.
    before: u64,
}

/// The comparison of one log file with its seal.
pub(super) struct Comparison {
    /// `None` if the file does not exist.
    lines: Option<Lines<Box<dyn Read>>>,
    /// Lines that were read but not compared yet.
    ahead: VecDeque<Line>,
    /// The number of the next line.
    next: u64,
    matched: u64,
    /// Number of bytes read.
    pub bytes: u64,
    missing: Vec<Unmatched>,
    extra: Vec<Unmatched>,
    more: u64,
    differences: Vec<Difference>,
    /// Sealed lines after a difference that are not compared yet: short digests and line numbers.
    sealed: Vec<(Short, u64)>,
    /// The number of lines of each of their blocks, and the SHA-256 of the block.
    blocks: Vec<(usize, String)>,
    /// Lines of the file that are compared with them.
    found: Vec<Line>,
    /// Number of sealed lines that triggers the next comparison.
    attempt: usize,
}

impl Comparison {
    pub(super) fn new(lines: Option<Lines<Box<dyn Read>>>) -> Comparison {
        Comparison {
            lines,
            ahead: VecDeque::new(),
            next: 1,
            matched: 0,
            bytes: 0,
            missing: Vec::new(),
            extra: Vec::new(),
            more: 0,
            differences: Vec::new(),
            sealed: Vec::new(),
            blocks: Vec::new(),
            found: Vec::new(),
            attempt: ATTEMPT,
        }
    }

    /// Returns the number of lines that match the seal.
    pub(super) fn matched(&self) -> u64 {
        self.matched
    }

    /// Skips lines that cannot be compared.
    pub(super) fn skip(&mut self, lines: u64) {
        self.settle(true);
        for _ in 0..lines {
            if self.read().is_none() {
                break;
            }
            self.next += 1;
        }
    }

    /// Compares the lines of one record; `sealed` are its digests.
    pub(super) fn block(&mut self, record: &Record, sealed: &[Short]) {
        if self.sealed.is_empty() {
            self.read_to(sealed.len());
            let same = self.found.len() == sealed.len()
                && self.found.iter().zip(sealed).all(|(line, digest)| short(&line.hash) == *digest);
            if same {
                self.whole(&record.sha256, 0..sealed.len(), self.next);
                self.matched += sealed.len() as u64;
                self.next += sealed.len() as u64;
                self.found.clear();
                return;
            }
        }
        self.blocks.push((sealed.len(), record.sha256.clone()));
        self.sealed.extend(sealed.iter().zip(record.line..).map(|(digest, line)| (*digest, line)));
        if self.sealed.len() >= self.attempt {
            self.settle(self.sealed.len() >= AHEAD);
            self.attempt = (self.sealed.len() * 2).max(ATTEMPT);
        }
    }

    /// Matches the waiting lines, if enough lines at their end match again, or if `now` is set.
    fn settle(&mut self, now: bool) {
        let ahead = if now { AHEAD } else { self.sealed.len() / 2 + ATTEMPT };
        self.read_to(self.sealed.len() + ahead);
        let sealed: Vec<Short> = self.sealed.iter().map(|(digest, _)| *digest).collect();
        let found: Vec<Short> = self.found.iter().map(|line| short(&line.hash)).collect();
        let pairs = align(&sealed, &found);
        let run = pairs.iter().rev().zip((0..sealed.len()).rev());
        let run = run.zip(pairs.iter().rev().skip(1)).take(RUN);
        let follow = run.filter(|((pair, s), before)| pair.0 == *s && before.1 + 1 == pair.1);
        if !now && follow.count() < RUN {
            return;
        }
        let first = self.next;
        let mut at = (0, 0);
        // Lines after the last pair are left for the next block.
        for (s, f) in pairs.iter().copied().map(|(s, f)| (s, Some(f))).chain([(sealed.len(), None)])
        {
            let end = f.unwrap_or(at.1);
            for index in at.0..s {
                let (digest, line) = self.sealed[index];
                self.unmatched(false, line, digest, first + end as u64);
            }
            for (index, digest) in found.iter().enumerate().take(end).skip(at.1) {
                let line = first + index as u64;
                self.unmatched(true, line, *digest, line);
            }
            if let Some(f) = f {
                self.matched += 1;
                at = (s + 1, f + 1);
            }
        }
        self.next += at.1 as u64;
        let mut from = 0;
        for (lines, sha256) in std::mem::take(&mut self.blocks) {
            let block = from..from + lines;
            let place = pairs.partition_point(|pair| pair.0 < from);
            let its = &pairs[place..pairs.len().min(place + lines)];
            let all = its.len() == lines && its.last().is_none_or(|pair| pair.0 + 1 == block.end);
            if let Some((_, start)) = its.first().filter(|(_, start)| {
                all && its.last().is_some_and(|pair| pair.1 - start + 1 == lines)
            }) {
                self.whole(&sha256, *start..*start + lines, first + *start as u64);
            }
            from = block.end;
        }
        for line in self.found.drain(at.1..).rev() {
            self.ahead.push_front(line);
        }
        self.found.clear();
        self.sealed.clear();
    }

    /// Verifies the SHA-256 of a block in which all short digests match.
    fn whole(&mut self, sha256: &str, found: std::ops::Range<usize>, from: u64) {
        let hashes: Vec<Sha256> = self.found[found].iter().map(|line| line.hash).collect();
        if hex(&block_hash(&hashes)) != sha256 {
            let to = from + (hashes.len() as u64).saturating_sub(1);
            self.differences.push(Difference::Forged { from, to });
        }
    }

    /// Reads the rest of the file, which is not sealed. Returns the number of its first line and of
    /// its lines. `allowed` means that the lines may still get sealed; lines in the place of
    /// missing ones are reported nevertheless.
    pub(super) fn rest(&mut self, allowed: bool) -> (u64, u64) {
        self.settle(true);
        let here = self.matched;
        let mut instead =
            self.missing.iter().rev().take_while(|unmatched| unmatched.place == here).count();
        while instead > 0 || !allowed {
            let Some(line) = self.read() else { break };
            let next = self.next;
            self.unmatched(true, next, short(&line.hash), next);
            self.next += 1;
            instead = instead.saturating_sub(1);
        }
        let from = self.next;
        let mut count = 0;
        while self.read().is_some() {
            count += 1;
        }
        (from, count)
    }

    /// Returns the differences, sorted by line as far as possible.
    pub(super) fn differences(mut self) -> Vec<Difference> {
        let mut differences = std::mem::take(&mut self.differences);
        self.moved(&mut differences);
        self.changed(&mut differences);
        let mut removed: Vec<(u64, u64, u64)> = Vec::new();
        for unmatched in &self.missing {
            match removed.last_mut() {
                Some((_, to, before))
                    if *to + 1 == unmatched.line && *before == unmatched.before =>
                {
                    *to += 1;
                }
                _ => removed.push((unmatched.line, unmatched.line, unmatched.before)),
            }
        }
        let mut inserted: Vec<(u64, u64)> = Vec::new();
        for unmatched in &self.extra {
            match inserted.last_mut() {
                Some((_, to)) if *to + 1 == unmatched.line => *to += 1,
                _ => inserted.push((unmatched.line, unmatched.line)),
            }
        }
        let removed = removed.into_iter();
        differences.extend(removed.map(|(from, to, before)| Difference::Removed {
            from,
            to,
            before,
        }));
        differences
            .extend(inserted.into_iter().map(|(from, to)| Difference::Inserted { from, to }));
        if self.more > 0 {
            differences.push(Difference::More(self.more));
        }
        differences
    }

    /// Reports lines that are missing in one place and inserted in another as moved.
    fn moved(&mut self, differences: &mut Vec<Difference>) {
        let mut extra: HashMap<Short, Vec<u64>> = HashMap::new();
        for unmatched in self.extra.iter().rev() {
            extra.entry(unmatched.digest).or_default().push(unmatched.line);
        }
        let mut moved = Vec::new();
        self.missing.retain(|unmatched| {
            match extra.get_mut(&unmatched.digest).and_then(Vec::pop) {
                Some(line) => {
                    moved.push(line);
                    differences.push(Difference::Moved { line, sealed: unmatched.line });
                    false
                }
                None => true,
            }
        });
        moved.sort_unstable();
        self.extra.retain(|unmatched| moved.binary_search(&unmatched.line).is_err());
    }

    /// Reports lines that are missing where others are inserted as changed.
    fn changed(&mut self, differences: &mut Vec<Difference>) {
        let mut extra: HashMap<u64, VecDeque<u64>> = HashMap::new();
        for unmatched in &self.extra {
            extra.entry(unmatched.place).or_default().push_back(unmatched.line);
        }
        let mut changed = Vec::new();
        self.missing.retain(|unmatched| {
            match extra.get_mut(&unmatched.place).and_then(VecDeque::pop_front) {
                Some(line) => {
                    changed.push(line);
                    differences.push(Difference::Changed { line, sealed: unmatched.line });
                    false
                }
                None => true,
            }
        });
        changed.sort_unstable();
        self.extra.retain(|unmatched| changed.binary_search(&unmatched.line).is_err());
    }

    fn unmatched(&mut self, extra: bool, line: u64, digest: Short, before: u64) {
        let place = self.matched;
        let list = if extra { &mut self.extra } else { &mut self.missing };
        if list.len() < DIFFERENCES {
            list.push(Unmatched { line, digest, place, before });
        } else {
            self.more += 1;
        }
    }

    /// Reads lines into `found` until it has `count` lines, or the file ends.
    fn read_to(&mut self, count: usize) {
        while self.found.len() < count {
            let Some(line) = self.read() else { break };
            self.found.push(line);
        }
    }

    fn read(&mut self) -> Option<Line> {
        if let Some(line) = self.ahead.pop_front() {
            return Some(line);
        }
        match self.lines.as_mut()?.next() {
            Ok(Some(line)) => {
                self.bytes += line.bytes;
                Some(line)
            }
            Ok(None) => {
                self.lines = None;
                None
            }
            Err(error) => {
                self.lines = None;
                let reason = error.to_string();
                let line = self.next + self.found.len() as u64;
                self.differences.push(Difference::Unreadable { line, reason });
                None
            }
        }
    }
}
