//! Parses the lines of one piece of the log and evaluates the filter on their events.

use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

use hashbrown::{DefaultHashBuilder, HashMap};
use memchr::{memchr, memrchr};

use super::source::{Format, Source};
use super::{Place, Records, Stages, Visitor};
use crate::event::json::{self, Value};
use crate::event::{self, Event, Line};
use crate::filter::{Filter, Needle};
use crate::index::{self, Columns, ParquetFile};

/// The settings and notes that all threads share.
pub(super) struct Rules<'a> {
    pub(super) filter: &'a Filter,
    pub(super) stages: &'a Stages,
    pub(super) needle: Option<Needle>,
    /// The first event of a request may match even though its last event does not.
    pub(super) depends_on_stage: bool,
    pub(super) hasher: DefaultHashBuilder,
    pub(super) reverse: bool,
    /// The index columns that are sufficient for the visitors; `None` if events must be read from
    /// the log.
    pub(super) columns: Option<Columns>,
    /// Row groups for which collecting the ends of requests was deferred.
    pub(super) deferred: Mutex<Vec<DeferredGroup>>,
    /// Index files that could not be used or do not match their logs, with the reason.
    pub(super) notes: Mutex<Vec<String>>,
}

impl Rules<'_> {
    /// Returns the key that identifies the request of an event.
    pub(super) fn key(&self, event: &Event<'_>) -> u64 {
        self.hasher.hash_one((event.audit_id.bytes(), event.received.bytes()))
    }

    /// Defers collecting the ends of requests of a row group that begins at `start`.
    pub(super) fn defer_ends(&self, source: usize, file: &ParquetFile, group: usize, start: u64) {
        let received = file.probe(group).received();
        let deferred = DeferredGroup { source, group, start, received };
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner).push(deferred);
    }

    pub(super) fn note(&self, note: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }
}

/// A row group for which collecting the ends of requests was deferred: it is only read if a request
/// that began before it has no end yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeferredGroup {
    pub(super) source: usize,
    pub(super) group: usize,
    /// Where the row group begins in the log. In a file with complete events: the offset of its
    /// first row.
    pub(super) start: u64,
    /// When the first and the last of its requests were received, in microseconds since 1970.
    pub(super) received: Option<(i64, i64)>,
}

/// The results of a piece, or of a part of it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) source: usize,
    pub(super) records: Records,
    /// Events after which others are expected, by request key.
    pub(super) unfinished: HashMap<u64, Unfinished>,
    /// The keys of requests that ended here, and when they were received (used in reverse order).
    pub(super) ended: Vec<(u64, i64)>,
    pub(super) skipped: u64,
    pub(super) first_skipped: u64,
    /// The last skipped line lacks its newline.
    pub(super) torn: bool,
    /// The time of the first event, set in reverse order.
    pub(super) time: Option<i64>,
}

/// An event after which others of the same request are expected.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) offset: u64,
    /// The event as it is in the log, or reconstructed from its index row.
    pub(super) raw: Box<[u8]>,
    /// Its length in the log in bytes, if it was reconstructed from an index row.
    pub(super) length: Option<u64>,
}

impl Unfinished {
    pub(super) fn new(event: &Event<'_>, offset: u64) -> Unfinished {
        match event.is_from_index() {
            true => {
                let length = Some(event.length());
                Unfinished { offset, raw: index::json(event).into(), length }
            }
            false => Unfinished { offset, raw: event.raw.into(), length: None },
        }
    }

    pub(super) fn event(&self) -> Option<Event<'_>> {
        let mut event = Event::parse(&self.raw)?;
        if let Some(length) = self.length {
            event.set_length(length);
        }
        Some(event)
    }
}

impl Found {
    pub(super) fn new(source: usize) -> Found {
        Found { source, ..Found::default() }
    }

    /// Returns the approximate memory use in bytes.
    pub(super) fn size(&self) -> usize {
        let unfinished: usize = self.unfinished.values().map(|event| event.raw.len() + 64).sum();
        self.records.bytes.len() + 16 * self.records.ends.len() + 16 * self.ended.len() + unfinished
    }

    /// Records the end of a request, and drops an earlier event of the request that was found here.
    pub(super) fn end(&mut self, key: u64, received: i64) {
        if !self.unfinished.is_empty() {
            self.unfinished.remove(&key);
        }
        self.ended.push((key, received));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.size() == 0 && self.skipped == 0
    }
}

/// Processes lines, the first of which begins at `offset`.
pub(super) fn lines<V: Visitor>(
    rules: &Rules<'_>,
    source: &Source,
    region: &[u8],
    offset: u64,
    visitor: &mut V,
    found: &mut Found,
) {
    let mut each = |line: &[u8], at: usize| {
        one(rules, source, line, offset + at as u64, visitor, found);
    };
    match &rules.needle {
        None => {
            let mut at = 0;
            while at < region.len() {
                let (end, is_clean) = json::line_end(region, at);
                let (line, offset) = (&region[at..end], offset + at as u64);
                let parsed = match is_clean {
                    true => event::parse_clean(line),
                    false => event::parse(line),
                };
                parsed_line(rules, source, line, &parsed, offset, visitor, found);
                at = end;
            }
        }
        Some(needle) => {
            let mut search = needle.search(region);
            let mut at = 0;
            while let Some(candidate) = search.next(at) {
                let start =
                    memrchr(b'\n', &region[at..candidate]).map_or(at, |start| at + start + 1);
                at = memchr(b'\n', &region[candidate..])
                    .map_or(region.len(), |end| candidate + end + 1);
                each(&region[start..at], start);
            }
        }
    }
}

/// Processes one line, or one value of a document.
pub(super) fn one<V: Visitor>(
    rules: &Rules<'_>,
    source: &Source,
    line: &[u8],
    offset: u64,
    visitor: &mut V,
    found: &mut Found,
) {
    parsed_line(rules, source, line, &event::parse(line), offset, visitor, found);
}

fn parsed_line<V: Visitor>(
    rules: &Rules<'_>,
    source: &Source,
    line: &[u8],
    parsed: &Line<'_>,
    offset: u64,
    visitor: &mut V,
    found: &mut Found,
) {
    match parsed {
        Line::Event(event) => consider(rules, source, event, offset, visitor, found),
        Line::List(items) => {
            let mut events = 0;
            let mut faulty = false;
            let read = json::items(items, |item| {
                let event = match item {
                    Value::Object(text) => Event::parse(text),
                    _ => None,
                };
                match event {
                    Some(event) => {
                        events += 1;
                        // Both pointers are into the same line.
                        let at = event.raw.as_ptr().addr() - line.as_ptr().addr();
                        consider(rules, source, &event, offset + at as u64, visitor, found);
                    }
                    None => faulty = true,
                }
            });
            if faulty || read.is_none() {
                skip(found, source, line, offset);
            }
        }
        Line::Other if line.trim_ascii().is_empty() => {}
        Line::Other => skip(found, source, line, offset),
    }
}

fn skip(found: &mut Found, source: &Source, line: &[u8], offset: u64) {
    if found.skipped == 0 {
        found.first_skipped = offset;
    }
    found.skipped += 1;
    let has_lines = !matches!(source.format, Format::Document | Format::Archive);
    found.torn = has_lines && !line.ends_with(b"\n");
}

/// Records that a request ended. Its earlier events, here and in earlier pieces, do not count.
pub(super) fn ended(rules: &Rules<'_>, event: &Event<'_>, key: u64, found: &mut Found) {
    let received = if rules.reverse { event.received_time() } else { None };
    found.end(key, received.unwrap_or(i64::MAX));
}

pub(super) fn consider<V: Visitor>(
    rules: &Rules<'_>,
    source: &Source,
    event: &Event<'_>,
    offset: u64,
    visitor: &mut V,
    found: &mut Found,
) {
    let matches = rules.filter.matches(event);
    match rules.stages {
        Stages::All => {
            if matches {
                visit(source, event, offset, visitor, found);
            }
        }
        Stages::Only(stages) => {
            if matches && stages.iter().any(|stage| event.stage.is(stage.as_bytes())) {
                visit(source, event, offset, visitor, found);
            }
        }
        Stages::Last if matches || rules.depends_on_stage => {
            if rules.reverse && found.time.is_none() {
                found.time = event.time();
            }
            let unfinished = event.is_unfinished();
            if unfinished && !matches {
                return;
            }
            let key = rules.key(event);
            if !unfinished {
                ended(rules, event, key, found);
                if matches {
                    visit(source, event, offset, visitor, found);
                }
                return;
            }
            found.unfinished.insert(key, Unfinished::new(event, offset));
        }
        Stages::Last => {}
    }
}

pub(super) fn visit<V: Visitor>(
    source: &Source,
    event: &Event<'_>,
    offset: u64,
    visitor: &mut V,
    found: &mut Found,
) {
    found.records.offset = offset;
    visitor.visit(event, Place { path: &source.path, offset }, &mut found.records);
}
