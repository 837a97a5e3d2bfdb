//! The lines of one log file against the digests of its seal, block by block.

use std::collections::{HashMap, VecDeque};
use std::io::Read;

use super::align::align;
use crate::seal::digest::{Sha256, Short, hex, short};
use crate::seal::lines::{Line, Lines};
use crate::seal::record::{Record, block_hash};

/// So many lines are compared together at most, and so many looked at behind them for those that
/// are not where they should be.
const AHEAD: usize = 1 << 16;

/// From where lines differ, so many are compared at first, and then twice as many each time...
const ATTEMPT: usize = 128;

/// ... until so many follow each other as they should.
const RUN: usize = 32;

/// Differences that are reported one by one; further ones are only counted.
const DIFFERENCES: usize = 1 << 16;

/// What is different in a file. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Difference {
    /// The line is not what was sealed as line `sealed`.
    Changed { line: u64, sealed: u64 },
    /// The lines that were sealed as `from` to `to` are not there; they were before line `before`.
    Removed { from: u64, to: u64, before: u64 },
    /// The lines `from` to `to` were not sealed.
    Inserted { from: u64, to: u64 },
    /// The line was sealed as line `sealed`.
    Moved { line: u64, sealed: u64 },
    /// One of the lines from `from` to `to` is not what was sealed, although it seems to be.
    Forged { from: u64, to: u64 },
    /// It cannot be read on from line `line`: it is no valid compressed file.
    Unreadable { line: u64, reason: String },
    /// There are so many more.
    More(u64),
}

/// A line that has no counterpart.
#[derive(Debug, Clone, Copy)]
struct Lone {
    line: u64,
    digest: Short,
    /// How many lines were matched before it: tells which lone lines are at the same place.
    place: u64,
    /// For one that is missing: the line before which it was.
    before: u64,
}

/// Compares one log file.
pub(super) struct Comparison {
    /// None: the file is not there.
    lines: Option<Lines<Box<dyn Read>>>,
    /// Read, but not yet compared.
    ahead: VecDeque<Line>,
    /// Number of the next line.
    next: u64,
    matched: u64,
    /// Bytes read.
    pub bytes: u64,
    missing: Vec<Lone>,
    extra: Vec<Lone>,
    more: u64,
    differences: Vec<Difference>,
    /// What was sealed and is not compared yet, since something is different: digests and lines.
    sealed: Vec<(Short, u64)>,
    /// How many lines each of its blocks has, and their SHA-256.
    blocks: Vec<(usize, String)>,
    /// What may be the same in the file.
    found: Vec<Line>,
    /// They are compared when there are so many.
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

    /// Lines that are as they were sealed.
    pub(super) fn matched(&self) -> u64 {
        self.matched
    }

    /// Passes over lines that cannot be compared.
    pub(super) fn skip(&mut self, lines: u64) {
        self.settle(true);
        for _ in 0..lines {
            if self.read().is_none() {
                break;
            }
            self.next += 1;
        }
    }

    /// Compares the lines of one record, whose digests these are.
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

    /// Determines what happened to the lines that wait, if they continue as they were sealed, or
    /// `now`.
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
        // What is found behind the last pair is for the next block.
        for (s, f) in pairs.iter().copied().map(|(s, f)| (s, Some(f))).chain([(sealed.len(), None)])
        {
            let end = f.unwrap_or(at.1);
            for index in at.0..s {
                let (digest, line) = self.sealed[index];
                self.lone(false, line, digest, first + end as u64);
            }
            for (index, digest) in found.iter().enumerate().take(end).skip(at.1) {
                let line = first + index as u64;
                self.lone(true, line, *digest, line);
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

    /// Short digests are as they were sealed; so must the whole ones be.
    fn whole(&mut self, sha256: &str, found: std::ops::Range<usize>, from: u64) {
        let hashes: Vec<Sha256> = self.found[found].iter().map(|line| line.hash).collect();
        if hex(&block_hash(&hashes)) != sha256 {
            let to = from + (hashes.len() as u64).saturating_sub(1);
            self.differences.push(Difference::Forged { from, to });
        }
    }

    /// The rest of the file was never sealed: how many lines that is, and where they begin.
    /// `allowed`: they may come to be sealed, unless they are there instead of others.
    pub(super) fn rest(&mut self, allowed: bool) -> (u64, u64) {
        self.settle(true);
        let here = self.matched;
        let mut instead = self.missing.iter().rev().take_while(|lone| lone.place == here).count();
        while instead > 0 || !allowed {
            let Some(line) = self.read() else { break };
            let next = self.next;
            self.lone(true, next, short(&line.hash), next);
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

    /// What is different, in the order of lines as far as there is one.
    pub(super) fn differences(mut self) -> Vec<Difference> {
        let mut differences = std::mem::take(&mut self.differences);
        self.moved(&mut differences);
        self.changed(&mut differences);
        let mut removed: Vec<(u64, u64, u64)> = Vec::new();
        for lone in &self.missing {
            match removed.last_mut() {
                Some((_, to, before)) if *to + 1 == lone.line && *before == lone.before => {
                    *to += 1;
                }
                _ => removed.push((lone.line, lone.line, lone.before)),
            }
        }
        let mut inserted: Vec<(u64, u64)> = Vec::new();
        for lone in &self.extra {
            match inserted.last_mut() {
                Some((_, to)) if *to + 1 == lone.line => *to += 1,
                _ => inserted.push((lone.line, lone.line)),
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

    /// Lines that are missing in one place and too many in another.
    fn moved(&mut self, differences: &mut Vec<Difference>) {
        let mut extra: HashMap<Short, Vec<u64>> = HashMap::new();
        for lone in self.extra.iter().rev() {
            extra.entry(lone.digest).or_default().push(lone.line);
        }
        let mut moved = Vec::new();
        self.missing.retain(|lone| match extra.get_mut(&lone.digest).and_then(Vec::pop) {
            Some(line) => {
                moved.push(line);
                differences.push(Difference::Moved { line, sealed: lone.line });
                false
            }
            None => true,
        });
        moved.sort_unstable();
        self.extra.retain(|lone| moved.binary_search(&lone.line).is_err());
    }

    /// Lines that are missing where others are too many.
    fn changed(&mut self, differences: &mut Vec<Difference>) {
        let mut extra: HashMap<u64, VecDeque<u64>> = HashMap::new();
        for lone in &self.extra {
            extra.entry(lone.place).or_default().push_back(lone.line);
        }
        let mut changed = Vec::new();
        self.missing.retain(|lone| {
            match extra.get_mut(&lone.place).and_then(VecDeque::pop_front) {
                Some(line) => {
                    changed.push(line);
                    differences.push(Difference::Changed { line, sealed: lone.line });
                    false
                }
                None => true,
            }
        });
        changed.sort_unstable();
        self.extra.retain(|lone| changed.binary_search(&lone.line).is_err());
    }

    fn lone(&mut self, extra: bool, line: u64, digest: Short, before: u64) {
        let place = self.matched;
        let lones = if extra { &mut self.extra } else { &mut self.missing };
        if lones.len() < DIFFERENCES {
            lones.push(Lone { line, digest, place, before });
        } else {
            self.more += 1;
        }
    }

    /// Has so many lines in `found`, if there are so many.
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
