//! Evaluates a filter on a row group of an index, once for each distinct combination of values.

use hashbrown::HashMap;
use parquet::errors::Result;

use super::Stages;
use super::indexed::Group;
use crate::event::{Event, Text};
use crate::index::{Column, Columns, Tuples, Values};

/// The matching rows of a group.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Rows that match.
    pub(super) rows: Vec<u32>,
    /// Matching rows that are not the last event of their request, if no later event follows in
    /// this group.
    pub(super) unfinished: Vec<u32>,
    /// Rows that are not exact: the log must be read to decide whether they match.
    pub(super) inexact: Vec<u32>,
}

/// The decision for all rows with the same values.
#[derive(Debug, Clone, Copy, Default)]
struct Verdict {
    wanted: bool,
    unfinished: bool,
    /// The stage is `RequestReceived`, which has no latency.
    received: bool,
}

/// Selects rows by the loaded columns. Returns `None` if the encoding of the group does not allow
/// it.
pub(super) fn select(
    place: &Group<'_>,
    values: &Values<'_>,
    columns: Columns,
    mut chooses: impl FnMut(&Event<'_>) -> bool,
) -> Result<Option<Selection>> {
    let Group { rules, index, group, .. } = *place;
    let count = index.rows(group) as u32;
    let mut selection = Selection::default();
    let rows: Vec<u32> = match index.exact(group)? {
        None => (0..count).collect(),
        Some(exact) => {
            let (exact, inexact) = (0..count).partition(|row| exact[*row as usize]);
            selection.inexact = inexact;
            exact
        }
    };
    let tuples = values.tuples(&rows, columns, None);
    let is_last = *rules.stages == Stages::Last;
    let verdict = |row: &u32| {
        let event = values.event(*row);
        let is_stage = match rules.stages {
            Stages::Only(stages) => stages.iter().any(|stage| event.stage.is(stage.as_bytes())),
            _ => true,
        };
        Verdict {
            wanted: is_stage && rules.filter.matches_values(&event) && chooses(&event),
            unfinished: is_last && event.is_unfinished(),
            received: event.stage.is(b"RequestReceived"),
        }
    };
    let verdicts: Vec<Verdict> = tuples.first.iter().map(verdict).collect();
    let times = match rules.filter.has_time() {
        false => None,
        true => {
            Some((index.times(group, Column::StageTime)?, index.times(group, Column::Received)?))
        }
    };
    let ids = match rules.filter.columns().has(Column::AuditId) {
        false => None,
        true => match index.uuids(group)? {
            Some(uuids) => Some((uuids, rules.filter.audit_ids())),
            None => return Ok(None),
        },
    };
    let has_id = |row: u32| match &ids {
        None => true,
        Some((uuids, Some(wanted))) => uuids.get(row).is_some_and(|id| wanted.contains(&id)),
        Some((uuids, None)) => {
            let text = uuids.text(row);
            let text = if text.is_empty() { Text::default() } else { Text::new(&text) };
            rules.filter.matches_audit_id(text)
        }
    };
    for (row, tuple) in rows.iter().zip(&tuples.of) {
        let verdict = verdicts[*tuple as usize];
        let in_time = || {
            times.as_ref().is_none_or(|(reached, received)| {
                let (reached, received) = (reached.get(*row), received.get(*row));
                let latency = || Some(reached? - received?).filter(|_| !verdict.received);
                rules.filter.matches_time(|| reached.or(received), latency)
            })
        };
        if verdict.wanted && has_id(*row) && in_time() {
            match verdict.unfinished {
                true => selection.unfinished.push(*row),
                false => selection.rows.push(*row),
            }
        }
    }
    if !selection.unfinished.is_empty() {
        let unfinished = std::mem::take(&mut selection.unfinished);
        match without_ended(place, &rows, &tuples, &verdicts, &unfinished)? {
            Some(unfinished) => selection.unfinished = unfinished,
            None => return Ok(None),
        }
    }
    Ok(Some(selection))
}

/// Returns the rows that no later row of the same request ends.
fn without_ended(
    place: &Group<'_>,
    rows: &[u32],
    tuples: &Tuples,
    verdicts: &[Verdict],
    unfinished: &[u32],
) -> Result<Option<Vec<u32>>> {
    /// Size of a bit set of hashed times, which saves most rows a lookup in the hash map.
    const BITS: usize = 1 << 16;
    let Some(uuids) = place.index.uuids(place.group)? else { return Ok(None) };
    let received = place.index.times(place.group, Column::Received)?;
    let mut open = HashMap::new();
    let mut known = vec![false; BITS];
    let mut next = unfinished.iter().peekable();
    for (row, tuple) in rows.iter().zip(&tuples.of) {
        let received = received.get(*row);
        let bit = received.unwrap_or_default() as usize % BITS;
        if next.next_if(|next| *next == row).is_some() {
            known[bit] = true;
            open.insert((uuids.get(*row), received), *row);
        } else if known[bit] && !verdicts[*tuple as usize].unfinished {
            open.remove(&(uuids.get(*row), received));
        }
    }
    let mut left: Vec<u32> = open.into_values().collect();
    left.sort_unstable();
    Ok(Some(left))
}
