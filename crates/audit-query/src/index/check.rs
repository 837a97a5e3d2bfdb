//! Compares an index file with its log, event by event.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use super::read::Batch;
use super::{Column, Columns, IndexError, Sidecar};
use crate::event::{self, Event, Text};
use crate::input::Input;
use crate::scan::{Progress, ScanError, chunks, source};

/// Reads a log file and its index file completely and compares them. Returns the number of events.
///
/// # Errors
/// Returns an error if there is no index file, if it belongs to another state of the log, or if an
/// event differs.
pub fn verify(log: &Path) -> Result<u64, IndexError> {
    let file = File::open(log)?;
    let sidecar = Sidecar::open(log, &file)?;
    let input = Input { path: log.to_owned(), file: Some(file), object: None };
    let source =
        source::Source::plan(input).map_err(|ScanError::Io { error, .. }| IndexError::Io(error))?;
    let mut rows = Rows { sidecar: &sidecar, group: 0, batch: None, row: 0, rows: 0 };
    let mut result = Ok(());
    let mut events = 0;
    let progress = Progress::default();
    let mut buffer = chunks::Buffer::default();
    chunks::of_stream(source.stream(&progress)?, &mut buffer, |region, mut offset| {
        for line in region.split_inclusive(|byte| *byte == b'\n') {
            event::each(line, |event| {
                let start = event.raw.as_ptr().addr() - line.as_ptr().addr();
                if result.is_ok() {
                    events += 1;
                    result = rows.compare(event, offset + start as u64);
                }
            });
            offset += line.len() as u64;
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    if rows.next()? {
        return Err(IndexError::Differs("it has more events".to_owned()));
    }
    Ok(events)
}

/// Iterates over the rows of all row groups.
struct Rows<'a> {
    sidecar: &'a Sidecar,
    group: usize,
    batch: Option<Batch>,
    row: usize,
    rows: usize,
}

impl Rows<'_> {
    /// Advances to the next row. Returns `false` at the end.
    fn next(&mut self) -> Result<bool, IndexError> {
        self.row += 1;
        while self.row >= self.rows {
            if let Some(batch) = &mut self.batch {
                (self.row, self.rows) = (0, batch.next()?);
                if self.rows > 0 {
                    return Ok(true);
                }
            }
            if self.group == self.sidecar.groups() {
                return Ok(false);
            }
            self.batch = Some(self.sidecar.batch(self.group, Columns::of(&Column::INDEX))?);
            self.group += 1;
        }
        Ok(true)
    }

    fn compare(&mut self, event: &Event<'_>, offset: u64) -> Result<(), IndexError> {
        let differs =
            |what: &str| Err(IndexError::Differs(format!("{what} of the event at byte {offset}")));
        if !self.next()? {
            return differs("it ends before the row");
        }
        let Some(batch) = &self.batch else { return differs("there is no row") };
        let (its_offset, length, exact) = batch.place(self.row);
        if (its_offset, length) != (offset, event.length()) {
            return differs("another place");
        }
        if !exact {
            return Ok(());
        }
        match difference(&batch.event(self.row), event) {
            Some(column) => differs(column.name()),
            None => Ok(()),
        }
    }
}

/// Returns the first column that differs.
fn difference(row: &Event<'_>, event: &Event<'_>) -> Option<Column> {
    let impersonated = |event: &Event<'_>| event.impersonated_user.map(|user| owned(user.name));
    let groups = |event: &Event<'_>| {
        let mut all = Vec::new();
        event.user.groups(|group| all.push(owned(group)));
        all
    };
    let addresses = |event: &Event<'_>| {
        let mut all = Vec::new();
        event.source_ips(|address| all.push(owned(address)));
        all
    };
    let annotations = |event: &Event<'_>| {
        let mut all = Vec::new();
        event.annotations(|key, value| all.push((owned(key), owned(value))));
        all
    };
    let texts = [
        (Column::StageTime, row.stage_time, event.stage_time),
        (Column::Received, row.received, event.received),
        (Column::AuditId, row.audit_id, event.audit_id),
        (Column::Level, row.level, event.level),
        (Column::Stage, row.stage, event.stage),
        (Column::Verb, row.verb, event.verb),
        (Column::User, row.user.name, event.user.name),
        (Column::UserAgent, row.user_agent, event.user_agent),
        (Column::ApiGroup, row.object.api_group, event.object.api_group),
        (Column::ApiVersion, row.object.api_version, event.object.api_version),
        (Column::Resource, row.object.resource, event.object.resource),
        (Column::Subresource, row.object.subresource, event.object.subresource),
        (Column::Namespace, row.object.namespace, event.object.namespace),
        (Column::Name, row.object.name, event.object.name),
        (Column::Uri, row.request_uri, event.request_uri),
        (Column::Reason, row.status.reason, event.status.reason),
    ];
    let text = texts.into_iter().find(|(_, row, event)| owned(*row) != owned(*event));
    let others = [
        (Column::Code, row.status.code != event.status.code),
        (Column::Impersonated, impersonated(row) != impersonated(event)),
        (Column::Groups, groups(row) != groups(event)),
        (Column::SourceIps, addresses(row) != addresses(event)),
        (Column::Annotations, annotations(row) != annotations(event)),
    ];
    let other = others.into_iter().find(|(_, differs)| *differs);
    text.map(|(column, _, _)| column).or(other.map(|(column, _)| column))
}

fn owned(text: Text<'_>) -> Option<Vec<u8>> {
    text.is_present().then(|| text.bytes().into_owned())
}
