//! Percentiles of the duration of requests.

use hashbrown::HashMap;

use crate::event::Event;
use crate::event::time::Stopwatch;
use crate::index::Columns;
use crate::output::Field;
use crate::scan::{Counting, Numbers, Place, Records, Times, Visitor};

/// Maximum number of distinct durations of all groups in all threads. Beyond that, durations are
/// rounded down to ten binary digits (0.1 %).
const EXACT: usize = 900_000;
const DIGITS: u32 = 10;
/// Durations below this, in microseconds, may be counted in a table of 128 KiB.
const TABLE: usize = 1 << 15;
/// A group with more distinct durations than this gets a table, unless there are too many tables.
const MANY: usize = 1024;
const TABLES: usize = 32;
/// Number of durations that are added to the counts together. Batches use the CPU cache better than
/// single additions.
const BATCH: usize = 512;

/// Durations grouped by a field, counted by one thread.
#[derive(Debug)]
pub(crate) struct Latencies {
    by: Field,
    /// The number of the group for each value.
    groups: HashMap<Vec<u8>, u32>,
    durations: Vec<Durations>,
    tables: usize,
    distinct: usize,
    most: usize,
    rounded: bool,
    key: Vec<u8>,
    stopwatch: Stopwatch,
    /// Groups and durations that have not been added yet; fewer than [`BATCH`].
    batch: Vec<(u32, u64)>,
}

/// How often each duration occurs.
#[derive(Debug, Default)]
struct Durations {
    /// Counts of short durations; empty or of length [`TABLE`].
    table: Vec<u32>,
    /// Counts of the other durations.
    map: HashMap<u64, u64>,
}

impl Durations {
    /// Adds a duration. Returns whether it is the first of this length.
    #[inline]
    fn add(&mut self, micros: u64, count: u64) -> bool {
        if let Some(known) = self.table.get_mut(usize::try_from(micros).unwrap_or(usize::MAX))
            && let Some(sum) = u32::try_from(count).ok().and_then(|count| known.checked_add(count))
        {
            return std::mem::replace(known, sum) == 0;
        }
        let known = self.map.entry(micros).or_default();
        *known += count;
        *known == count
    }

    fn make_table(&mut self) {
        self.table = vec![0; TABLE];
        for (micros, count) in std::mem::take(&mut self.map) {
            self.add(micros, count);
        }
    }

    fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Iterates over durations and their counts. A very frequent duration may occur twice.
    fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let table = self.table.iter().enumerate().filter(|(_, count)| **count > 0);
        let table = table.map(|(micros, count)| (micros as u64, u64::from(*count)));
        table.chain(self.map.iter().map(|(micros, count)| (*micros, *count)))
    }
}

/// The durations of one group, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LatencyRow {
    pub(crate) value: String,
    pub(crate) count: u64,
    /// The 50th, 90th, 95th, 99th, and 100th percentile (nearest rank).
    pub(crate) percentiles: [u64; 5],
}

/// The names and values of [`LatencyRow::percentiles`].
pub(crate) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)];

impl Latencies {
    pub(crate) fn new(by: Field, threads: usize) -> Latencies {
        Latencies {
            by,
            groups: HashMap::new(),
            durations: Vec::new(),
            tables: 0,
            distinct: 0,
            most: EXACT / (threads + 1),
            rounded: false,
            key: Vec::new(),
            stopwatch: Stopwatch::default(),
            batch: Vec::with_capacity(BATCH),
        }
    }

    /// Returns the number of the group for a value.
    #[inline]
    fn group(&mut self, key: &[u8]) -> u32 {
        if let Some(group) = self.groups.get(key) {
            return *group;
        }
        let group = self.durations.len() as u32;
        self.groups.insert(key.to_vec(), group);
        self.durations.push(Durations::default());
        group
    }

    #[inline]
    fn add(&mut self, group: u32, micros: u64, count: u64) {
        let micros = if self.rounded { round(micros) } else { micros };
        let group = &mut self.durations[group as usize];
        if group.add(micros, count) {
            self.distinct += 1;
            if group.table.is_empty() && group.map.len() > MANY && self.tables < TABLES {
                self.tables += 1;
                group.make_table();
            }
            if self.distinct > self.most && !self.rounded {
                self.round();
            }
        }
    }

    /// Adds a duration to the batch, and the batch to the counts when it is full.
    #[inline]
    fn note(&mut self, group: u32, micros: u64) {
        self.batch.push((group, micros));
        if self.batch.len() == BATCH {
            self.count_batch();
        }
    }

    fn count_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        for (group, micros) in batch.drain(..) {
            self.add(group, micros, 1);
        }
        self.batch = batch;
    }

    fn round(&mut self) {
        self.rounded = true;
        self.distinct = 0;
        for group in &mut self.durations {
            let exact = std::mem::take(group);
            group.table = vec![0; exact.table.len()];
            for (micros, count) in exact.iter() {
                self.distinct += usize::from(group.add(round(micros), count));
            }
        }
    }

    fn set_key(&mut self, event: &Event<'_>, place: Place<'_>) -> u32 {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        self.by.push(event, place, &mut key);
        let group = self.group(&key);
        self.key = key;
        group
    }

    /// Combines the counts of all threads, sorted by number of requests. Also returns whether
    /// durations were rounded.
    pub(crate) fn merge(mut all: Vec<Latencies>) -> (Vec<LatencyRow>, bool) {
        all.iter_mut().for_each(Latencies::count_batch);
        let mut all = all.into_iter();
        let Some(mut whole) = all.next() else { return (Vec::new(), false) };
        whole.most = EXACT;
        for part in all {
            if part.rounded && !whole.rounded {
                whole.round();
            }
            for (key, group) in &part.groups {
                let group = &part.durations[*group as usize];
                if group.is_empty() {
                    continue;
                }
                let whole_group = whole.group(key);
                for (micros, count) in group.iter() {
                    whole.add(whole_group, micros, count);
                }
            }
        }
        let rounded = whole.rounded;
        let rows =
            whole.groups.iter().map(|(key, group)| row(key, &whole.durations[*group as usize]));
        let mut rows: Vec<_> = rows.filter(|row| row.count > 0).collect();
        rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
        (rows, rounded)
    }
}

fn row(key: &[u8], group: &Durations) -> LatencyRow {
    let mut counts: Vec<_> = group.iter().collect();
    counts.sort_unstable();
    let count: u64 = counts.iter().map(|(_, count)| count).sum();
    let percentile = |share: f64| {
        let rank = ((share * count as f64).ceil() as u64).max(1);
        let mut passed = 0;
        let at = counts.iter().find(|(_, count)| {
            passed += count;
            passed >= rank
        });
        at.map_or(0, |(micros, _)| *micros)
    };
    let percentiles = PERCENTILES.map(|(_, share)| percentile(share));
    LatencyRow { value: String::from_utf8_lossy(key).into_owned(), count, percentiles }
}

fn round(micros: u64) -> u64 {
    let drop = (u64::BITS - micros.leading_zeros()).saturating_sub(DIGITS);
    micros >> drop << drop
}

impl Visitor for Latencies {
    fn columns(&self) -> Option<Columns> {
        Some(Field::Latency.columns()?.and(self.by.columns()?))
    }

    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, _: &mut Records) {
        let latency = event.timed(&mut self.stopwatch);
        let Some(micros) = latency.and_then(|micros| u64::try_from(micros).ok()) else { return };
        let group = self.set_key(event, place);
        self.note(group, micros);
    }

    fn counting(&self) -> Option<Counting> {
        let times = match self.by {
            Field::Time | Field::Received | Field::Latency => Times::Exact,
            Field::Date | Field::Hour => Times::Hour,
            _ => Times::None,
        };
        Some(Counting { times, received: true, ..Counting::default() })
    }

    fn class(&mut self, event: &Event<'_>, place: Place<'_>) -> Option<u32> {
        (!event.stage.is(b"RequestReceived")).then(|| self.set_key(event, place))
    }

    #[inline]
    fn count(&mut self, class: u32, numbers: Numbers) {
        if let (Some(reached), Some(received)) = (numbers.stage_time, numbers.received)
            && let Ok(micros) = u64::try_from(reached - received)
        {
            self.note(class, micros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut latencies = Latencies::new(Field::Verb, 1);
        for micros in 1..=200 {
            let group = latencies.group(b"get");
            latencies.note(group, micros);
        }
        let group = latencies.group(b"list");
        latencies.add(group, 7, 1);
        let (rows, rounded) = Latencies::merge(vec![latencies]);
        assert!(!rounded);
        assert_eq!(rows[0].percentiles, [100, 180, 190, 198, 200]);
        assert_eq!((rows[1].value.as_str(), rows[1].percentiles), ("list", [7; 5]));
    }

    #[test]
    fn frequent_durations_are_counted_on() {
        let mut durations = Durations::default();
        assert!(durations.add(7, 1) && !durations.add(7, 1));
        durations.make_table();
        assert!(durations.add(7, u64::from(u32::MAX)), "an entry of the map is needed, too");
        assert_eq!(durations.iter().map(|(_, count)| count).sum::<u64>(), u64::from(u32::MAX) + 2);
        assert!(durations.add(TABLE as u64, 1) && durations.add(u64::MAX, 1));
        assert_eq!(durations.iter().count(), 4);
    }

    #[test]
    fn many_durations_are_rounded_to_a_thousandth() {
        let mut latencies = Latencies::new(Field::Verb, 1);
        let largest = EXACT as u64 / 2 + 1000;
        for micros in 1..=largest {
            let group = latencies.group(b"get");
            latencies.note(group, micros);
        }
        latencies.count_batch();
        assert!(latencies.distinct < 10_000);
        let (rows, rounded) = Latencies::merge(vec![latencies]);
        assert!(rounded);
        for ((_, share), micros) in PERCENTILES.iter().zip(rows[0].percentiles) {
            let exact = share * largest as f64;
            assert!((micros as f64) <= exact && micros as f64 >= exact * 0.998, "{micros} {exact}");
        }
    }
}
