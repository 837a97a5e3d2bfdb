//! Combines the results of pieces in order, with one event per request.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use hashbrown::HashMap;

use super::piece::{self, Found, Rules, Unfinished};
use super::source::Source;
use super::{Skipped, Summary, Visitor, ended};

/// Maximum total size in bytes of the events that wait for the end of their requests.
const UNFINISHED: usize = 16 << 20;
/// In reverse order: the number of ended requests at which those are dropped from memory that can
/// have no further events in the log.
const ENDED: usize = 1 << 20;
/// Microseconds by which events may be out of order in the log.
const SLACK: i64 = 60_000_000;

pub(super) struct Merge<'a, V, D> {
    pub(super) sources: &'a [Source],
    /// Visits events that turn out to be the last ones of their requests.
    pub(super) visitor: V,
    pub(super) deliver: D,
    pub(super) reverse: bool,
    pub(super) unfinished: HashMap<u64, (usize, Unfinished)>,
    pub(super) unfinished_size: usize,
    pub(super) ended: HashMap<u64, i64>,
    pub(super) next_prune: usize,
    pub(super) skipped: BTreeMap<usize, (u64, u64, bool)>,
    pub(super) summary: Summary,
}

impl<'a, V: Visitor, D: FnMut(&[u8]) -> ControlFlow<()>> Merge<'a, V, D> {
    pub(super) fn new(sources: &'a [Source], visitor: V, deliver: D, reverse: bool) -> Self {
        Merge {
            sources,
            visitor,
            deliver,
            reverse,
            unfinished: HashMap::new(),
            unfinished_size: 0,
            ended: HashMap::new(),
            next_prune: ENDED,
            skipped: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    pub(super) fn accept(&mut self, found: Found) -> ControlFlow<()> {
        if found.skipped > 0 {
            let (lines, first, torn) =
                self.skipped.entry(found.source).or_insert((0, found.first_skipped, false));
            *lines += found.skipped;
            *first = found.first_skipped.min(*first);
            *torn |= found.torn;
        }
        match self.reverse {
            true => self.accept_reverse(found),
            false => self.accept_forward(found),
        }
    }

    fn accept_forward(&mut self, found: Found) -> ControlFlow<()> {
        if !self.unfinished.is_empty() {
            for (key, _) in &found.ended {
                if let Some((_, event)) = self.unfinished.remove(key) {
                    self.unfinished_size -= event.raw.len();
                }
            }
        }
        for index in 0..found.records.ends.len() {
            (self.deliver)(found.records.get(index).0)?;
        }
        for (key, event) in found.unfinished {
            self.unfinished_size += event.raw.len();
            if let Some((_, earlier)) = self.unfinished.insert(key, (found.source, event)) {
                self.unfinished_size -= earlier.raw.len();
            }
        }
        if self.unfinished_size > UNFINISHED {
            self.assume_unfinished()?;
        }
        ControlFlow::Continue(())
    }

    /// Delivers the older half of the waiting events without waiting for the end of their requests.
    fn assume_unfinished(&mut self) -> ControlFlow<()> {
        let mut all: Vec<_> = self.unfinished.drain().collect();
        all.sort_by_key(|(_, (source, event))| (*source, event.offset));
        let newer = all.split_off(all.len() / 2);
        self.summary.assumed_unfinished += all.len() as u64;
        self.unfinished_size = newer.iter().map(|(_, (_, event))| event.raw.len()).sum();
        self.unfinished.extend(newer);
        for (_, (source, event)) in all {
            self.last(source, &event)?;
        }
        ControlFlow::Continue(())
    }

    fn accept_reverse(&mut self, mut found: Found) -> ControlFlow<()> {
        let mut unfinished = Vec::new();
        for (key, event) in found.unfinished.drain() {
            // If a later event of the same request was found, this one is not the last.
            if !self.ended.contains_key(&key) {
                unfinished.push(event);
                self.ended.insert(key, i64::MIN);
            }
        }
        self.ended.extend(found.ended.iter().copied());
        if self.ended.len() > self.next_prune {
            // Reading backwards from this position, the scan no longer meets events of requests
            // that were received later.
            let passed = found.time.map_or(i64::MAX, |time| time.saturating_add(SLACK));
            self.ended.retain(|_, received| *received <= passed);
            self.next_prune = (self.ended.len() * 2).max(ENDED);
        }
        unfinished.sort_by_key(|event| event.offset);
        for index in (0..found.records.ends.len()).rev() {
            let (record, offset) = found.records.get(index);
            while let Some(event) = unfinished.pop_if(|event| event.offset > offset) {
                self.last(found.source, &event)?;
            }
            (self.deliver)(record)?;
        }
        while let Some(event) = unfinished.pop() {
            self.last(found.source, &event)?;
        }
        ControlFlow::Continue(())
    }

    /// Delivers an event that is the last one of its request.
    fn last(&mut self, source: usize, unfinished: &Unfinished) -> ControlFlow<()> {
        let Some(event) = unfinished.event() else { return ControlFlow::Continue(()) };
        let mut found = Found::new(source);
        piece::visit(
            &self.sources[source],
            &event,
            unfinished.offset,
            &mut self.visitor,
            &mut found,
        );
        for index in 0..found.records.ends.len() {
            (self.deliver)(found.records.get(index).0)?;
        }
        ControlFlow::Continue(())
    }

    /// Delivers the remaining events. Called after the last piece, unless the caller stopped the
    /// scan.
    pub(super) fn finish(&mut self, rules: &Rules<'_>) -> ControlFlow<()> {
        if !self.reverse && !self.unfinished.is_empty() {
            ended::remove(rules, self.sources, &mut self.unfinished);
        }
        let mut rest: Vec<_> = self.unfinished.drain().map(|(_, event)| event).collect();
        rest.sort_by_key(|(source, event)| (*source, event.offset));
        for (source, event) in rest {
            self.last(source, &event)?;
        }
        ControlFlow::Continue(())
    }

    /// Returns the visitor and the summary of the scan.
    pub(super) fn end(self) -> (V, Summary) {
        let mut summary = self.summary;
        summary.skipped = self
            .skipped
            .into_iter()
            .map(|(source, (lines, first, torn))| Skipped {
                path: self.sources[source].path.clone(),
                lines,
                first,
                torn,
            })
            .collect();
        (self.visitor, summary)
    }
}
