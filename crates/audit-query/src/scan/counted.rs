//! Counts the rows of a row group by their column values, for visitors that do not need single
//! events.

use std::io;

use parquet::errors::ParquetError;

use super::indexed::{Group, LogReader, Outcome, Problem, stage_columns};
use super::piece::{self, Found, Unfinished};
use super::selection::{self, Selection};
use super::{Counting, Numbers, Place, Stages, Times, Visitor};
use crate::event::time::push_canonical;
use crate::event::{Event, Text};
use crate::index::{self, Column, Columns, Tuples, Uuids, Values};

const HOUR: i64 = 3_600_000_000;

/// Processes a row group. Returns `None`, without having counted anything, if its rows must be
/// visited one by one.
pub(super) fn group<V: Visitor>(
    place: &Group<'_>,
    columns: Columns,
    visitor: &mut V,
    found: &mut Found,
) -> Result<Option<Outcome>, Problem> {
    let Group { rules, source, index, group } = *place;
    let Some(counting) = visitor.counting().filter(|_| !rules.reverse) else { return Ok(None) };
    let chosen_by = rules.filter.columns().and(counting.chosen_by).and(stage_columns(rules));
    if columns.has(Column::AuditId) {
        return Ok(None);
    }
    let Some(mut values) = index.values(group, chosen_by)? else { return Ok(None) };
    let chooses = |event: &Event<'_>| visitor.chooses(event);
    let Some(selection) = selection::select(place, &values, chosen_by, chooses)? else {
        return Ok(None);
    };
    if selection.rows.is_empty() && selection.unfinished.is_empty() && selection.inexact.is_empty()
    {
        note_ends(place, found);
        return Ok(Some(Outcome::Done));
    }
    if !values.load(columns)? {
        return Ok(None);
    }
    let numbers = NumberColumns::read(place, columns, counting)?;
    let visited = VisitedRows::prepare(place, &selection)?;
    note_ends(place, found);
    let rows = &selection.rows;
    let tuples = match counting.times {
        Times::None => values.tuples(rows, columns, None),
        Times::Hour => {
            let hours = numbers.hours(rows, index.rows(group));
            values.tuples(rows, columns, Some(&hours))
        }
        Times::Exact => Tuples { of: (0..rows.len() as u32).collect(), first: rows.clone() },
    };
    let mut class = |row: &u32| {
        let times = match counting.times {
            Times::None => Numbers::default(),
            Times::Hour | Times::Exact => numbers.get(*row),
        };
        let (reached, received) = (canonical(times.stage_time), canonical(times.received));
        let event = with_times(values.event(*row), &reached, &received);
        visitor.class(&event, Place { path: &source.path, offset: 0 })
    };
    let classes: Vec<Option<u32>> = tuples.first.iter().map(&mut class).collect();
    for (row, tuple) in rows.iter().zip(&tuples.of) {
        if let Some(class) = classes[*tuple as usize] {
            visitor.count(class, numbers.get(*row));
        }
    }
    if let Some(visited) = visited {
        visited.visit(place, &values, visitor, found).map_err(Problem::Log)?;
    }
    Ok(Some(Outcome::Done))
}

/// Defers collecting the ends of requests of the group. They are looked up only if a request that
/// began before the group has no end yet.
fn note_ends(place: &Group<'_>, found: &Found) {
    if *place.rules.stages == Stages::Last {
        let start = place.index.range(place.group).start;
        place.rules.defer_ends(found.source, place.index, place.group, start);
    }
}

/// Rows that cannot be counted by their values alone: events that a later event of the same request
/// may supersede, and inexact rows, which are read from the log. All reads that can fail happen
/// before anything is counted, because after a failure the whole group is read from the log.
struct VisitedRows {
    /// The row numbers, and whether the row is exact, that is, represents the event completely.
    rows: Vec<(u32, bool)>,
    lengths: Vec<u32>,
    offsets: Vec<u64>,
    uuids: Uuids,
    reached: index::Times,
    received: index::Times,
}

impl VisitedRows {
    fn prepare(place: &Group<'_>, selection: &Selection) -> Result<Option<VisitedRows>, Problem> {
        let Group { source, index, group, .. } = *place;
        let mut rows: Vec<(u32, bool)> =
            selection.unfinished.iter().map(|row| (*row, true)).collect();
        rows.extend(selection.inexact.iter().map(|row| (*row, false)));
        if rows.is_empty() {
            return Ok(None);
        }
        rows.sort_unstable();
        let lengths = index.lengths(group)?;
        let offsets = index.offsets(group, &lengths)?;
        let unknown =
            || ParquetError::General("audit IDs are encoded in an unknown way".to_owned());
        let uuids = index.uuids(group)?.ok_or_else(unknown)?;
        let reached = index.times(group, Column::StageTime)?;
        let received = index.times(group, Column::Received)?;
        let mut log = LogReader::new(source).map_err(Problem::Log)?;
        for row in &selection.inexact {
            let (offset, length) = (offsets[*row as usize], lengths[*row as usize]);
            log.read(offset, u64::from(length)).map_err(Problem::Log)?;
            log.event().ok_or(Problem::Differs(offset))?;
        }
        Ok(Some(VisitedRows { rows, lengths, offsets, uuids, reached, received }))
    }

    fn visit<V: Visitor>(
        &self,
        place: &Group<'_>,
        values: &Values<'_>,
        visitor: &mut V,
        found: &mut Found,
    ) -> io::Result<()> {
        let Group { rules, source, .. } = *place;
        let mut log = LogReader::new(source)?;
        for (row, is_exact) in &self.rows {
            let offset = self.offsets[*row as usize];
            let length = u64::from(self.lengths[*row as usize]);
            if *is_exact {
                let id = self.uuids.text(*row);
                let reached = canonical(self.reached.get(*row));
                let received = canonical(self.received.get(*row));
                let mut event = with_times(values.event(*row), &reached, &received);
                if !id.is_empty() {
                    event.audit_id = Text::new(&id);
                }
                event.set_length(length);
                found.unfinished.insert(rules.key(&event), Unfinished::new(&event, offset));
                continue;
            }
            log.read(offset, length)?;
            let event = log.event().ok_or_else(|| {
                io::Error::other(format!("the event at byte {offset} was changed meanwhile"))
            })?;
            piece::consider(rules, source, &event, offset, visitor, found);
        }
        Ok(())
    }
}

fn canonical(micros: Option<i64>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(micros) = micros {
        push_canonical(micros, &mut text);
    }
    text
}

/// Returns the event with these times. An empty text leaves the time unset.
fn with_times<'a>(mut event: Event<'a>, reached: &'a [u8], received: &'a [u8]) -> Event<'a> {
    if !reached.is_empty() {
        event.stage_time = Text::new(reached);
    }
    if !received.is_empty() {
        event.received = Text::new(received);
    }
    event
}

/// The columns from which [`Numbers`] are built.
struct NumberColumns {
    reached: Option<index::Times>,
    received: Option<index::Times>,
    lengths: Option<Vec<u32>>,
}

impl NumberColumns {
    fn read(
        place: &Group<'_>,
        columns: Columns,
        counting: Counting,
    ) -> parquet::errors::Result<NumberColumns> {
        let Group { index, group, .. } = *place;
        let times = |column| match columns.has(column) {
            true => index.times(group, column).map(Some),
            false => Ok(None),
        };
        let reached = times(Column::StageTime)?;
        // Unless requested, `received` only replaces missing stage times.
        let needs_received = counting.received || counting.times == Times::Exact;
        let received = match &reached {
            Some(reached) if reached.is_complete() && !needs_received => None,
            _ => times(Column::Received)?,
        };
        let lengths = match columns.has(Column::Length) {
            true => Some(index.lengths(group)?),
            false => None,
        };
        Ok(NumberColumns { reached, received, lengths })
    }

    #[inline]
    fn get(&self, row: u32) -> Numbers {
        Numbers {
            stage_time: self.reached.as_ref().and_then(|times| times.get(row)),
            received: self.received.as_ref().and_then(|times| times.get(row)),
            length: self.lengths.as_ref().map_or(0, |lengths| u64::from(lengths[row as usize])),
        }
    }

    /// Numbers the hours in which the events occurred. Rows of the same hour get the same number;
    /// rows without a time get 0. Only the elements at the indexes in `rows` are set.
    fn hours(&self, rows: &[u32], count: usize) -> Vec<u32> {
        let mut hours = vec![0; count];
        let mut known: Vec<i64> = Vec::new();
        for row in rows {
            let Some(time) = self.get(*row).time() else { continue };
            let hour = time.div_euclid(HOUR);
            let at = known.iter().rposition(|known| *known == hour).unwrap_or_else(|| {
                known.push(hour);
                known.len() - 1
            });
            hours[*row as usize] = at as u32 + 1;
        }
        hours
    }
}
