//! Counts events by the values of some of their fields.

use std::hash::BuildHasher;
use std::ops::Range;

use aws_lc_rs::digest::{SHA256, digest};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::event::Event;
use crate::index::{Column, Columns, hex};
use crate::output::Field;
use crate::report::kinds::EventFilter;
use crate::scan::{Counting, Numbers, Place, Records, Times, Visitor};

/// Maximum memory for the groups of all threads in bytes, and again for their sum. Events of
/// further groups are counted together.
const LARGEST: usize = 12 << 20;
/// Memory of a group in addition to its key, in bytes.
const OVERHEAD: usize = 96;

/// Maximum length of a value in bytes. A longer one is replaced by its start and its digest, so
/// that a few long values do not use up the memory for groups.
const LONGEST_VALUE: usize = 1024;
/// The length of that start in bytes.
const START: usize = 256;

/// The measures of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measures {
    pub(crate) count: u64,
    /// Number of events with a status code of 400 or higher.
    pub(crate) failed: u64,
    /// Size of the events in the log in bytes, with their newlines.
    pub(crate) bytes: u64,
    /// The times of the first and the last event in microseconds since 1970.
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Default for Measures {
    fn default() -> Measures {
        Measures { count: 0, failed: 0, bytes: 0, first: i64::MAX, last: i64::MIN }
    }
}

impl Measures {
    fn add(&mut self, other: Measures) {
        self.count += other.count;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Counts events by fields; the visitor of one thread.
#[derive(Debug)]
pub(crate) struct GroupBy {
    fields: std::sync::Arc<[Field]>,
    keep: EventFilter,
    measured: Measured,
    /// The group numbers by key.
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    groups: Vec<Group>,
    /// The keys of all groups in one buffer. They are looked up for each event, and must stay in
    /// the CPU cache.
    keys: Vec<u8>,
    size: usize,
    largest: usize,
    /// Events of groups beyond the limit.
    other: Measures,
    key: Vec<u8>,
}

/// A group of one thread.
#[derive(Debug)]
struct Group {
    key: Range<usize>,
    measures: Measures,
}

/// The measures that are needed in addition to the number of events.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// The times of the first and the last event.
    pub(crate) times: bool,
    /// The number of failed events.
    pub(crate) failed: bool,
    /// The size in the log.
    pub(crate) bytes: bool,
}

/// The number that stands for all groups beyond the limit.
const OTHER: u32 = u32::MAX >> 2;

/// The values of a group (`None` if its events do not have the field), and its measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) values: Vec<Option<String>>,
    pub(crate) measures: Measures,
}

/// All groups, and the events beyond the limit.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    pub(crate) rows: Vec<Row>,
    pub(crate) other: Measures,
}

impl GroupBy {
    pub(crate) fn new(
        fields: std::sync::Arc<[Field]>,
        keep: EventFilter,
        measured: Measured,
        threads: usize,
    ) -> GroupBy {
        GroupBy {
            fields,
            keep,
            measured,
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            groups: Vec::new(),
            keys: Vec::new(),
            size: 0,
            largest: LARGEST / (threads + 1),
            other: Measures::default(),
            key: Vec::new(),
        }
    }

    /// Returns the number of the group with this key, or [`OTHER`] if the memory limit is reached.
    #[inline]
    fn group(&mut self, key: &[u8]) -> u32 {
        let (groups, keys, hasher) = (&self.groups, &self.keys, &self.hasher);
        let of = |group: u32| &keys[groups[group as usize].key.clone()];
        let hash = hasher.hash_one(key);
        if let Some(group) = self.table.find(hash, |group| of(*group) == key) {
            return *group;
        }
        if self.size + key.len() + OVERHEAD > self.largest {
            return OTHER;
        }
        self.size += key.len() + OVERHEAD;
        let group = self.groups.len() as u32;
        self.table.insert_unique(hash, group, |group| hasher.hash_one(of(*group)));
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.groups.push(Group { key: start..self.keys.len(), measures: Measures::default() });
        group
    }

    #[inline]
    fn add(&mut self, group: u32, measures: Measures) {
        let group = self.groups.get_mut(group as usize).map(|group| &mut group.measures);
        group.unwrap_or(&mut self.other).add(measures);
    }

    /// Combines the counts of all threads.
    pub(crate) fn merge(all: Vec<GroupBy>) -> Groups {
        let mut all = all.into_iter();
        let Some(mut whole) = all.next() else { return Groups::default() };
        whole.largest = LARGEST;
        for part in all {
            whole.other.add(part.other);
            // A class may have had no rows.
            for Group { key, measures } in part.groups.into_iter().filter(Group::is_counted) {
                let group = whole.group(&part.keys[key]);
                whole.add(group, measures);
            }
        }
        let keys = whole.keys;
        let row = |Group { key, measures }| Row { values: values(&keys[key]), measures };
        let rows = whole.groups.into_iter().filter(Group::is_counted).map(row).collect();
        Groups { rows, other: whole.other }
    }

    /// Writes the key of an event to `self.key`.
    #[inline]
    fn set_key(&mut self, event: &Event<'_>, place: Place<'_>) {
        let key = &mut self.key;
        key.clear();
        for field in self.fields.iter() {
            let start = key.len();
            key.extend_from_slice(&[0; 4]);
            let length = match field.push(event, place, key) {
                // The length plus one, because a missing value, encoded as 0, differs from an empty
                // one.
                true => {
                    if key.len() - start - 4 > LONGEST_VALUE {
                        shorten(key, start + 4);
                    }
                    (key.len() - start - 4) as u32 + 1
                }
                false => {
                    key.truncate(start + 4);
                    0
                }
            };
            key[start..start + 4].copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Returns whether the events of a class failed.
    pub(crate) fn has_failed(class: u32) -> bool {
        class & 1 == 1
    }

    fn is_failed(event: &Event<'_>) -> bool {
        event.status.code.is_some_and(|code| code >= 400)
    }

    #[inline]
    fn measures(&self, failed: bool, bytes: u64, time: Option<i64>) -> Measures {
        Measures {
            count: 1,
            failed: u64::from(failed),
            bytes,
            first: time.unwrap_or(i64::MAX),
            last: time.unwrap_or(i64::MIN),
        }
    }
}

impl Group {
    fn is_counted(&self) -> bool {
        self.measures.count > 0
    }
}

impl Visitor for GroupBy {
    fn columns(&self) -> Option<Columns> {
        let Measured { times, failed, bytes } = self.measured;
        let measured: [(bool, &[Column]); 3] = [
            (times, &[Column::StageTime, Column::Received]),
            (failed, &[Column::Code]),
            (bytes, &[Column::Length]),
        ];
        let measured = measured
            .iter()
            .filter(|(is_measured, _)| *is_measured)
            .fold(Columns::of(self.keep.by), |all, (_, columns)| all.and(Columns::of(columns)));
        let mut fields = self.fields.iter().map(Field::columns);
        fields.try_fold(measured, |all, columns| Some(all.and(columns?)))
    }

    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, _: &mut Records) {
        if !(self.keep.matches)(event) {
            return;
        }
        self.set_key(event, place);
        let key = std::mem::take(&mut self.key);
        let group = self.group(&key);
        self.key = key;
        let time = if self.measured.times { event.time() } else { None };
        let measures = self.measures(GroupBy::is_failed(event), event.length() + 1, time);
        self.add(group, measures);
    }

    fn counting(&self) -> Option<Counting> {
        let times = self.fields.iter().map(|field| match field {
            Field::Time | Field::Received | Field::Latency => Times::Exact,
            Field::Date | Field::Hour => Times::Hour,
            _ => Times::None,
        });
        Some(Counting {
            chosen_by: Columns::of(self.keep.by),
            times: times.max().unwrap_or_default(),
            received: false,
        })
    }

    fn chooses(&self, event: &Event<'_>) -> bool {
        (self.keep.matches)(event)
    }

    fn class(&mut self, event: &Event<'_>, place: Place<'_>) -> Option<u32> {
        self.set_key(event, place);
        let key = std::mem::take(&mut self.key);
        let group = self.group(&key);
        self.key = key;
        Some(group << 1 | u32::from(GroupBy::is_failed(event)))
    }

    #[inline]
    fn count(&mut self, class: u32, numbers: Numbers) {
        let measures =
            self.measures(GroupBy::has_failed(class), numbers.length + 1, numbers.time());
        self.add(class >> 1, measures);
    }
}

/// Replaces the value that begins at `from` with its start and digest.
#[cold]
fn shorten(key: &mut Vec<u8>, from: usize) {
    let value = &key[from..];
    let digest = hex(digest(&SHA256, value).as_ref());
    let rest = format!("\u{2026} ({} bytes, SHA-256 {digest})", value.len());
    // The start must end between two characters.
    let is_inner = |at: &usize| key[*at] & 0xc0 == 0x80;
    let end = (from..=from + START).rev().find(|at| !is_inner(at)).unwrap_or(from);
    key.truncate(end);
    key.extend_from_slice(rest.as_bytes());
}

/// Returns the values in a key: each is preceded by its length plus one, or 0 if it is missing.
pub(crate) fn values(mut key: &[u8]) -> Vec<Option<String>> {
    let mut values = Vec::new();
    while let Some((length, rest)) = key.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (text, rest) = rest.split_at(length.saturating_sub(1));
        values.push((length > 0).then(|| String::from_utf8_lossy(text).into_owned()));
        key = rest;
    }
    values
}

/// Returns the number of threads of a scan, see [`crate::scan::Scan::threads`].
pub(crate) fn threads(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    }
}

/// The order of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// By number of events, descending.
    Count,
    /// By size, descending.
    Bytes,
    /// By the time of the first event, ascending.
    First,
}

impl Groups {
    /// Sorts the groups. Equal groups are sorted by their values.
    pub(crate) fn sort(&mut self, sort: Sort) {
        self.rows.sort_by(|a, b| {
            let order = match sort {
                Sort::Count => b.measures.count.cmp(&a.measures.count),
                Sort::Bytes => b.measures.bytes.cmp(&a.measures.bytes),
                Sort::First => a.measures.first.cmp(&b.measures.first),
            };
            order.then_with(|| a.values.cmp(&b.values))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_do_not_take_the_room_of_others() {
        let fields: std::sync::Arc<[Field]> = [Field::UserAgent].into();
        let mut groups = GroupBy::new(fields, EventFilter::ALL, Measured::default(), 1);
        let place = Place { path: std::path::Path::new("a"), offset: 0 };
        for (index, char) in ["x", "y", "\u{e9}", "\u{1f600}"].into_iter().enumerate() {
            for last in ["1", "2"] {
                let agent = "-".repeat(index) + &char.repeat(3 << 20) + last;
                let line = format!(r#"{{"auditID":"1","userAgent":"{agent}"}}"#);
                let event = Event::parse(line.as_bytes()).unwrap();
                groups.visit(&event, place, &mut Records::default());
            }
        }
        let groups = GroupBy::merge(vec![groups]);
        assert_eq!((groups.rows.len(), groups.other.count), (8, 0));
        for row in groups.rows {
            let value = row.values[0].as_deref().unwrap();
            assert!(value.len() < 400 && !value.contains('\u{fffd}'), "{value}");
            assert!(value.contains("\u{2026} (") && value.contains(" bytes, SHA-256 "), "{value}");
        }
    }

    #[test]
    fn groups_are_bounded_and_no_event_is_lost() {
        let fields: std::sync::Arc<[Field]> = [Field::AuditId].into();
        let make = || GroupBy::new(fields.clone(), EventFilter::ALL, Measured::default(), 2);
        let mut parts = [make(), make(), make()];
        let mut records = Records::default();
        let place = Place { path: std::path::Path::new("a"), offset: 0 };
        for id in 0..300_000 {
            let line = format!(r#"{{"auditID":"{id}"}}"#);
            let event = Event::parse(line.as_bytes()).unwrap();
            parts[id % 3].visit(&event, place, &mut records);
        }
        assert!(parts.iter().all(|part| part.size <= LARGEST / 3));
        let groups = GroupBy::merge(parts.into());
        assert!(groups.rows.len() > 50_000 && groups.rows.len() * OVERHEAD <= LARGEST);
        let counted: u64 = groups.rows.iter().map(|row| row.measures.count).sum();
        assert_eq!(counted + groups.other.count, 300_000);
    }
}
