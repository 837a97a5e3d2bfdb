//! Finds the ends of requests in row groups for which collecting them was deferred.

use std::io;
use std::sync::PoisonError;

use hashbrown::{HashMap, HashSet};
use parquet::errors::ParquetError;

use super::piece::{DeferredGroup, Rules, Unfinished};
use super::source::{Format, Source};
use crate::event::Event;
use crate::event::time::canonical_micros;
use crate::index::{Archive, Column, Columns, IndexError, Sidecar, io_error, parse_uuid};

/// The identity of a request in an index: its audit ID and its `requestReceivedTimestamp` in
/// microseconds since 1970.
type Request = (Option<[u8; 16]>, Option<i64>);

/// A request without an end so far: the source and offset of its event, and its key in the map of
/// unfinished requests.
#[derive(Debug, Clone, Copy)]
struct Open {
    place: (usize, u64),
    key: u64,
}

/// Removes the requests that ended in a deferred row group from `unfinished`.
pub(super) fn remove(
    rules: &Rules<'_>,
    sources: &[Source],
    unfinished: &mut HashMap<u64, (usize, Unfinished)>,
) {
    let mut deferred = rules.deferred.lock().unwrap_or_else(PoisonError::into_inner);
    deferred.sort_unstable();
    let mut open: HashMap<Request, Open> = unfinished
        .iter()
        .filter_map(|(key, (source, event))| {
            let open = Open { place: (*source, event.offset), key: *key };
            Some((request(event)?, open))
        })
        .collect();
    let mut archives = Archives { sources, open: None };
    for group in deferred.drain(..) {
        if unfinished.is_empty() {
            break;
        }
        if sources[group.source].format == Format::Archive {
            if let Err(error) = archives.remove(rules, &group, unfinished) {
                rules.note(format!(
                    "{}: cannot be read for the ends of requests: {error}",
                    sources[group.source].path.display()
                ));
            }
            continue;
        }
        match ended(&group, sources, &open) {
            Ok(requests) => {
                for request in requests {
                    if let Some(open) = open.remove(&request) {
                        unfinished.remove(&open.key);
                    }
                }
            }
            Err(error) => rules.note(format!(
                "{}: the index file cannot be read: {error}; log index writes it again",
                sources[group.source].path.display()
            )),
        }
    }
}

/// Parquet files with complete events. Keeps the most recently used one open.
struct Archives<'a> {
    sources: &'a [Source],
    open: Option<(usize, Archive)>,
}

impl Archives<'_> {
    /// Removes the requests that began before a row group and ended in it.
    fn remove(
        &mut self,
        rules: &Rules<'_>,
        group: &DeferredGroup,
        unfinished: &mut HashMap<u64, (usize, Unfinished)>,
    ) -> io::Result<()> {
        let in_range = |event: &Event<'_>| match (group.received, event.received_time()) {
            (Some((first, last)), Some(received)) => (first..=last).contains(&received),
            _ => true,
        };
        let candidates: HashSet<u64> = unfinished
            .iter()
            .filter(|(_, (source, event))| {
                (*source, event.offset) < (group.source, group.start)
                    && event.event().is_none_or(|event| in_range(&event))
            })
            .map(|(key, _)| *key)
            .collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let archive = match self.open.take() {
            Some((source, archive)) if source == group.source => archive,
            _ => self.sources[group.source].archive()?,
        };
        let (_, archive) = self.open.insert((group.source, archive));
        let columns = Columns::of(&[Column::AuditId, Column::Received, Column::Stage]);
        let mut find = || {
            archive.file.read_ahead(group.group, columns)?;
            let mut batch = archive.file.batch(group.group, columns)?;
            loop {
                let rows = batch.next()?;
                if rows == 0 {
                    return Ok(());
                }
                for event in (0..rows).map(|row| batch.event(row)) {
                    let key = rules.key(&event);
                    if !event.is_unfinished() && candidates.contains(&key) {
                        unfinished.remove(&key);
                    }
                }
            }
        };
        find().map_err(io_error)
    }
}

/// Returns the identity of a request, or `None` if an exact index row cannot represent it and
/// therefore cannot end it.
fn request(unfinished: &Unfinished) -> Option<Request> {
    let event = unfinished.event()?;
    let id = event.audit_id.is_present().then(|| parse_uuid(&event.audit_id.bytes()));
    let received = event.received.is_present().then(|| canonical_micros(event.received));
    Some((flatten(id)?, flatten(received)?))
}

/// Returns `None` if a value is present but could not be parsed.
fn flatten<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        Some(value) => Some(value),
        None => Some(None),
    }
}

/// Returns the requests that began before a row group and ended in it.
fn ended(
    group: &DeferredGroup,
    sources: &[Source],
    open: &HashMap<Request, Open>,
) -> Result<Vec<Request>, IndexError> {
    let began_before = |request: &Request, open: &Open| {
        let in_range = match (group.received, request.1) {
            (Some((first, last)), Some(received)) => (first..=last).contains(&received),
            _ => true,
        };
        in_range && open.place < (group.source, group.start)
    };
    let candidates: Vec<Request> = open
        .iter()
        .filter(|(request, open)| began_before(request, open))
        .map(|(request, _)| *request)
        .collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let source = &sources[group.source];
    let opened;
    let index = match (&source.index, source.file()) {
        (Some(index), _) => index,
        (None, Some(file)) => {
            opened = Sidecar::open(&source.path, file)?;
            &opened
        }
        (None, None) => return Ok(Vec::new()),
    };
    let ids = candidates.iter().map(|(id, _)| *id);
    let may_have = || {
        let mut ids = ids.clone().flatten().map(|id| id.to_vec());
        index.probe(group.group).may_have(Column::AuditId, &mut ids)
    };
    if ids.clone().all(|id| id.is_some()) && !may_have() {
        return Ok(Vec::new());
    }
    find(index, group.group, &candidates.into_iter().collect()).map_err(IndexError::from)
}

/// Returns the candidates that end in a row group.
fn find(
    index: &Sidecar,
    group: usize,
    candidates: &HashSet<Request>,
) -> Result<Vec<Request>, ParquetError> {
    let received = index.times(group, Column::Received)?;
    let times: HashSet<Option<i64>> = candidates.iter().map(|(_, received)| *received).collect();
    let rows = 0..index.rows(group) as u32;
    let rows: Vec<u32> = rows.filter(|row| times.contains(&received.get(*row))).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let unknown = || ParquetError::General("a column is encoded in an unknown way".to_owned());
    let uuids = index.uuids(group)?.ok_or_else(unknown)?;
    let stages = index.values(group, Columns::of(&[Column::Stage]))?.ok_or_else(unknown)?;
    let exact = index.exact(group)?;
    let is_end = |row: &u32| {
        exact.as_ref().is_none_or(|exact| exact[*row as usize])
            && !stages.event(*row).is_unfinished()
    };
    Ok(rows
        .into_iter()
        .filter(is_end)
        .map(|row| (uuids.get(row), received.get(row)))
        .filter(|request| candidates.contains(request))
        .collect())
}
