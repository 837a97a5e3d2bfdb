//! Scans a Parquet file that stores complete events, one row group at a time.
//!
//! Statistics, Bloom filters, and dictionaries rule out row groups without a match. The filter's
//! columns select rows within a group, and the event column is read for those rows only. Reports
//! that need columns only read no event.

use std::io;
use std::ops::ControlFlow;

use super::indexed::{is_ruled_out, stage_columns};
use super::piece::{self, Found, Rules};
use super::source::Source;
use super::{Stages, Visitor};
use crate::index::{Archive, Columns, Events, io_error};

/// The offset of an event is its row number times this factor, so that the events of a list stored
/// in one row get distinct, ascending offsets.
pub(super) const ROW: u64 = 1 << 28;
/// Bytes of events that are processed per step in reverse order.
const SLICE: usize = 4 << 20;

/// How to process a row. Steps are in row order.
enum Step {
    /// Read the event and evaluate the filter on it.
    Read(usize),
    /// Record that a request ended: the key of the request and when it was received. The event does
    /// not match the filter.
    Ended(u64, i64),
}

/// A row group of an archive.
pub(super) struct Group<'a> {
    pub(super) rules: &'a Rules<'a>,
    pub(super) source: &'a Source,
    /// Index of the input in the scan.
    pub(super) number: usize,
    pub(super) archive: &'a Archive,
    pub(super) group: usize,
}

impl Group<'_> {
    /// Adds the results to `found` and calls `each` between rows, so that results can be handed
    /// over before the end of the row group.
    pub(super) fn each<V: Visitor>(
        &self,
        visitor: &mut V,
        found: &mut Found,
        mut each: impl FnMut(&mut Found) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.visit(visitor, found, &mut each).map_err(io_error)
    }

    fn visit<V: Visitor>(
        &self,
        visitor: &mut V,
        found: &mut Found,
        each: &mut impl FnMut(&mut Found) -> ControlFlow<()>,
    ) -> parquet::errors::Result<()> {
        let Group { rules, archive, group, .. } = *self;
        let filter = rules.filter.columns();
        let by_columns = rules
            .columns
            .filter(|_| archive.has_columns() && !rules.filter.has_condition() && !rules.reverse);
        let columns = match by_columns {
            Some(columns) => columns.and(filter).and(stage_columns(rules)),
            None if is_last(rules) => filter.and(stage_columns(rules)),
            None => filter,
        };
        if !archive.has_columns() || columns == Columns::default() && by_columns.is_none() {
            let rows = 0..archive.file.rows(group);
            let steps: Vec<Step> = rows.map(Step::Read).collect();
            return self.read(&steps, visitor, found, each);
        }
        let start = archive.first_row(group);
        if rules.filter.is_outside(&archive.file.probe(group)) && !is_last(rules) {
            return Ok(());
        }
        archive.file.read_ahead(group, columns)?;
        if is_ruled_out(rules, &archive.file, self.number, group, start * ROW) {
            return Ok(());
        }
        match by_columns {
            Some(_) => self.count(columns, visitor, found, each),
            None => self.read(&self.steps(columns)?, visitor, found, each),
        }
    }

    /// Visits rows by their columns. Reads an event only if its row is not exact.
    fn count<V: Visitor>(
        &self,
        columns: Columns,
        visitor: &mut V,
        found: &mut Found,
        each: &mut impl FnMut(&mut Found) -> ControlFlow<()>,
    ) -> parquet::errors::Result<()> {
        let Group { rules, source, archive, group, .. } = *self;
        let start = archive.first_row(group);
        let mut batch = archive.file.batch(group, columns)?;
        let mut events = None;
        let mut first = 0;
        loop {
            let rows = batch.next()?;
            if rows == 0 {
                return Ok(());
            }
            for row in 0..rows {
                let offset = (start + (first + row) as u64) * ROW;
                if batch.place(row).2 {
                    piece::consider(rules, source, &batch.event(row), offset, visitor, found);
                    continue;
                }
                let line = self.events(&mut events)?.get(first + row)?;
                piece::one(rules, source, line, offset, visitor, found);
            }
            first += rows;
            if each(found).is_break() {
                return Ok(());
            }
        }
    }

    fn events<'e>(
        &self,
        events: &'e mut Option<Events>,
    ) -> parquet::errors::Result<&'e mut Events> {
        Ok(match events {
            Some(events) => events,
            None => events.insert(self.archive.events(self.group)?),
        })
    }

    /// Evaluates the filter on the columns and returns the steps of the row group.
    fn steps(&self, columns: Columns) -> parquet::errors::Result<Vec<Step>> {
        let Group { rules, archive, group, .. } = *self;
        let mut batch = archive.file.batch(group, columns)?;
        let mut steps = Vec::new();
        let mut first = 0;
        loop {
            let rows = batch.next()?;
            if rows == 0 {
                return Ok(steps);
            }
            for row in 0..rows {
                let event = batch.event(row);
                if !batch.place(row).2 || rules.filter.columns_match(&event) {
                    steps.push(Step::Read(first + row));
                } else if is_last(rules) && !event.is_unfinished() {
                    let received = if rules.reverse { event.received_time() } else { None };
                    steps.push(Step::Ended(rules.key(&event), received.unwrap_or(i64::MAX)));
                }
            }
            first += rows;
        }
    }

    /// Executes steps. In reverse order, processes them in slices of about [`SLICE`] bytes and
    /// hands over the results of each slice.
    fn read<V: Visitor>(
        &self,
        steps: &[Step],
        visitor: &mut V,
        found: &mut Found,
        each: &mut impl FnMut(&mut Found) -> ControlFlow<()>,
    ) -> parquet::errors::Result<()> {
        let Group { rules, source, archive, group, .. } = *self;
        let start = archive.first_row(group);
        let slice = match rules.reverse {
            true => (SLICE / archive.mean_length(group)).max(1),
            false => steps.len().max(1),
        };
        let mut slices: Vec<&[Step]> = steps.chunks(slice).collect();
        if rules.reverse {
            slices.reverse();
        }
        for slice in slices {
            let mut events = None;
            for step in slice {
                match step {
                    Step::Ended(key, received) => found.end(*key, *received),
                    Step::Read(row) => {
                        let line = self.events(&mut events)?.get(*row)?;
                        let offset = (start + *row as u64) * ROW;
                        piece::one(rules, source, line, offset, visitor, found);
                        if !rules.reverse && each(found).is_break() {
                            return Ok(());
                        }
                    }
                }
            }
            if each(found).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Returns whether the scan must know the last event of requests even if that event does not match.
fn is_last(rules: &Rules<'_>) -> bool {
    *rules.stages == Stages::Last && rules.depends_on_stage
}
