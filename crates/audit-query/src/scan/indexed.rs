//! Scans a row group of an index file, and reads events from the log only where the index is not
//! enough.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use parquet::errors::ParquetError;

use super::counted;
use super::frames::FrameReader;
use super::piece::{self, Found, Rules};
use super::selection::{self, Selection};
use super::source::Source;
use super::{Stages, Visitor};
use crate::event::Event;
use crate::index::{Column, Columns, ParquetFile, Sidecar, parse_uuid};

/// A row group's part of the log is read sequentially instead of event by event if more than one in
/// [`SHARE`] events, or more than [`LARGEST`] bytes, would have to be read from the log.
const SHARE: usize = 8;
const LARGEST: u64 = 4 << 20;

/// The result of scanning a row group.
pub(super) enum Outcome {
    /// The row group is processed.
    Done,
    /// This byte range of the log must be read instead.
    Read(Range<u64>),
}

/// How to process a row. Steps are in row order.
enum Step {
    /// Read the event from the log and evaluate the filter on it.
    Read { offset: u64, length: u64, audit_id: Option<[u8; 16]> },
    /// Record that a request ended: the key of the request and when it was received. The event does
    /// not match the filter.
    Ended(u64, i64),
}

impl Step {
    /// Bytes to read from the log.
    fn length(&self) -> u64 {
        match self {
            Step::Read { length, .. } => *length,
            Step::Ended(..) => 0,
        }
    }
}

/// Returns the columns that identify the request of an event and its stage, as far as the choice of
/// stages needs them.
pub(super) fn stage_columns(rules: &Rules<'_>) -> Columns {
    match rules.stages {
        Stages::Last if rules.reverse => {
            Columns::of(&[Column::Stage, Column::AuditId, Column::Received, Column::StageTime])
        }
        Stages::Last => Columns::of(&[Column::Stage, Column::AuditId, Column::Received]),
        Stages::Only(_) => Columns::of(&[Column::Stage]),
        Stages::All => Columns::default(),
    }
}

/// Returns whether no event of the group can match the filter. `start` is the offset at which the
/// group begins. If the ends of requests matter, defers collecting them: see [`super::ended`].
pub(super) fn is_ruled_out(
    rules: &Rules<'_>,
    file: &ParquetFile,
    source: usize,
    group: usize,
    start: u64,
) -> bool {
    let is_last = *rules.stages == Stages::Last && rules.depends_on_stage;
    if is_last && rules.reverse || rules.filter.may_match(&file.probe(group)) {
        return false;
    }
    if is_last {
        rules.defer_ends(source, file, group, start);
    }
    true
}

/// Scans a row group. If it returns [`Outcome::Read`], `found` is empty.
pub(super) fn group<V: Visitor>(
    rules: &Rules<'_>,
    source: &Source,
    index: &Sidecar,
    group: usize,
    visitor: &mut V,
    found: &mut Found,
) -> io::Result<Outcome> {
    if is_ruled_out(rules, index, found.source, group, index.range(group).start) {
        return Ok(Outcome::Done);
    }
    let place = Group { rules, source, index, group };
    let outcome = match rules.columns {
        Some(columns) if !rules.filter.has_condition() => {
            match counted::group(&place, columns, visitor, found) {
                Ok(Some(outcome)) => Ok(outcome),
                Ok(None) => by_columns(rules, source, index, group, columns, visitor, found),
                Err(problem) => Err(problem),
            }
        }
        _ => by_log(&place, visitor, found),
    };
    outcome.or_else(|problem| {
        let path = source.path.display();
        match problem {
            Problem::Log(error) => return Err(error),
            Problem::Index(error) => rules.note(format!(
                "{path}: the index file cannot be read, the log is read instead: {error}; log index \
                 writes it again"
            )),
            Problem::Differs(offset) => rules.note(format!(
                "{path}: the index file does not match the log at byte {offset}, which is read instead; \
                 log index writes it again"
            )),
        }
        *found = Found::new(found.source);
        Ok(Outcome::Read(index.range(group)))
    })
}

/// A row group of an index file.
pub(super) struct Group<'a> {
    pub(super) rules: &'a Rules<'a>,
    pub(super) source: &'a Source,
    pub(super) index: &'a Sidecar,
    pub(super) group: usize,
}

pub(super) enum Problem {
    /// The log cannot be read.
    Log(io::Error),
    /// The index cannot be read.
    Index(ParquetError),
    /// The event at this offset of the log is not the event in the index.
    Differs(u64),
}

impl From<ParquetError> for Problem {
    fn from(error: ParquetError) -> Problem {
        Problem::Index(error)
    }
}

/// Visits rows by their columns. Reads an event from the log only if its row is not exact.
fn by_columns<V: Visitor>(
    rules: &Rules<'_>,
    source: &Source,
    index: &Sidecar,
    group: usize,
    columns: Columns,
    visitor: &mut V,
    found: &mut Found,
) -> Result<Outcome, Problem> {
    let columns = columns.and(rules.filter.columns()).and(stage_columns(rules));
    let mut batch = index.batch(group, columns)?;
    let mut log = None;
    loop {
        let rows = batch.next()?;
        if rows == 0 {
            return Ok(Outcome::Done);
        }
        for row in 0..rows {
            let (offset, length, exact) = batch.place(row);
            if exact {
                piece::consider(rules, source, &batch.event(row), offset, visitor, found);
                continue;
            }
            let log = match &mut log {
                Some(log) => log,
                None => log.insert(LogReader::new(source).map_err(Problem::Log)?),
            };
            log.read(offset, length).map_err(Problem::Log)?;
            let event = log.event().ok_or(Problem::Differs(offset))?;
            piece::consider(rules, source, &event, offset, visitor, found);
        }
    }
}

/// Reads the events that may match from the log.
fn by_log<V: Visitor>(
    place: &Group<'_>,
    visitor: &mut V,
    found: &mut Found,
) -> Result<Outcome, Problem> {
    let Group { rules, source, index, group } = *place;
    let steps = match selected(place, found)? {
        Some(steps) => steps,
        None => each_row(place)?,
    };
    let reads = steps.iter().filter(|step| matches!(step, Step::Read { .. })).count();
    let bytes: u64 = steps.iter().map(Step::length).sum();
    if reads > (index.rows(group) / SHARE).max(100) || reads > 1 && bytes > LARGEST {
        return Ok(Outcome::Read(index.range(group)));
    }
    if steps.is_empty() {
        return Ok(Outcome::Done);
    }
    let mut log = LogReader::new(source).map_err(Problem::Log)?;
    for step in steps {
        match step {
            Step::Ended(key, received) => found.end(key, received),
            Step::Read { offset, length, audit_id } => {
                log.read(offset, length).map_err(Problem::Log)?;
                let event = log.event().ok_or(Problem::Differs(offset))?;
                if parse_uuid(event.audit_id.escaped()) != audit_id {
                    return Err(Problem::Differs(offset));
                }
                piece::consider(rules, source, &event, offset, visitor, found);
            }
        }
    }
    Ok(Outcome::Done)
}

/// Selects the events to read by the distinct values of the columns. Returns `None` if each row
/// must be evaluated on its own.
fn selected(place: &Group<'_>, found: &Found) -> Result<Option<Vec<Step>>, ParquetError> {
    let Group { rules, index, group, .. } = *place;
    let columns = rules.filter.columns();
    if rules.reverse {
        return Ok(None);
    }
    let columns = columns.and(stage_columns(rules));
    let Some(values) = index.values(group, columns)? else { return Ok(None) };
    let Some(Selection { mut rows, unfinished, inexact }) =
        selection::select(place, &values, columns, |_| true)?
    else {
        return Ok(None);
    };
    rows.extend(unfinished);
    rows.extend(inexact);
    rows.sort_unstable();
    let mut steps = Vec::with_capacity(rows.len());
    if !rows.is_empty() {
        let Some(ids) = index.uuids(group)? else { return Ok(None) };
        let lengths = index.lengths(group)?;
        let offsets = index.offsets(group, &lengths)?;
        steps.extend(rows.into_iter().map(|row| {
            let (offset, length) = (offsets[row as usize], u64::from(lengths[row as usize]));
            Step::Read { offset, length, audit_id: ids.get(row) }
        }));
    }
    if *rules.stages == Stages::Last && rules.depends_on_stage {
        rules.defer_ends(found.source, index, group, index.range(group).start);
    }
    Ok(Some(steps))
}

/// Evaluates the filter on each row and returns the steps.
fn each_row(place: &Group<'_>) -> Result<Vec<Step>, ParquetError> {
    let Group { rules, index, group, .. } = *place;
    let columns =
        rules.filter.columns().and(stage_columns(rules)).and(Columns::of(&[Column::AuditId]));
    let mut batch = index.batch(group, columns)?;
    let mut steps = Vec::new();
    let is_last = *rules.stages == Stages::Last && rules.depends_on_stage;
    loop {
        let rows = batch.next()?;
        if rows == 0 {
            return Ok(steps);
        }
        for row in 0..rows {
            let (offset, length, exact) = batch.place(row);
            let event = batch.event(row);
            if !exact || rules.filter.columns_match(&event) {
                let audit_id = parse_uuid(event.audit_id.escaped());
                steps.push(Step::Read { offset, length, audit_id });
            } else if is_last && !event.is_unfinished() {
                let received = if rules.reverse { event.received_time() } else { None };
                steps.push(Step::Ended(rules.key(&event), received.unwrap_or(i64::MAX)));
            }
        }
    }
}

/// Reads single events from a log.
pub(super) struct LogReader<'a> {
    source: &'a Source,
    frames: Option<FrameReader<'a>>,
    text: Vec<u8>,
}

impl<'a> LogReader<'a> {
    pub(super) fn new(source: &'a Source) -> io::Result<LogReader<'a>> {
        let frames = match (source.file(), &source.frames) {
            (Some(file), Some(frames)) => Some(FrameReader::new(file, frames)?),
            _ => None,
        };
        Ok(LogReader { source, frames, text: Vec::new() })
    }

    pub(super) fn read(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.text.resize(length as usize, 0);
        let mut filled = 0;
        while filled < self.text.len() {
            let free = &mut self.text[filled..];
            let at = offset + filled as u64;
            let count = match (&mut self.frames, self.source.file()) {
                (Some(frames), _) => frames.read_at(free, at)?,
                (None, Some(file)) => file.read_at(free, at)?,
                (None, None) => 0,
            };
            if count == 0 {
                self.text.truncate(filled);
                break;
            }
            filled += count;
        }
        Ok(())
    }

    pub(super) fn event(&self) -> Option<Event<'_>> {
        Event::parse(&self.text)
    }
}

/// Returns whether an input that can only be read from its start may contain a match, according to
/// its index.
pub(super) fn may_have(rules: &Rules<'_>, index: &Sidecar, source: usize) -> io::Result<bool> {
    let columns = rules.filter.columns().and(Columns::of(&[Column::AuditId]));
    for group in 0..index.groups() {
        let start = index.range(group).start;
        if is_ruled_out(rules, index, source, group, start) {
            continue;
        }
        let find = || {
            let mut batch = index.batch(group, columns)?;
            loop {
                let rows = batch.next()?;
                let matches = |row| {
                    let (_, _, exact) = batch.place(row);
                    !exact || rules.filter.columns_match(&batch.event(row))
                };
                if rows == 0 || (0..rows).any(matches) {
                    return Ok::<_, ParquetError>(rows > 0);
                }
            }
        };
        if !matches!(find(), Ok(false)) {
            return Ok(true);
        }
        if *rules.stages == Stages::Last && rules.depends_on_stage {
            rules.defer_ends(source, index, group, start);
        }
    }
    Ok(false)
}
