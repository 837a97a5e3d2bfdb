//! Counts events over time, for charts and to find quiet periods.

use hashbrown::HashMap;

/// Maximum number of buckets per thread; if there are more, their width is doubled.
const BUCKETS: usize = 1 << 15;
/// Initial width of a bucket: one second in microseconds.
const NARROWEST: i64 = 1_000_000;
/// Number of buckets on each side of a quiet period from which the usual rate is determined.
const AROUND: usize = 32;
/// Minimum number of events that are expected in a quiet period.
const EXPECTED: f64 = 30.0;
/// Minimum ratio of a quiet period to nearly all other pauses.
const LONGER: i64 = 10;
/// Minimum number of buckets that determine the usual rate.
const ENOUGH: usize = 20;

/// The events of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) events: u64,
    pub(crate) failed: u64,
    first: i64,
    last: i64,
}

impl Bucket {
    const EMPTY: Bucket = Bucket { events: 0, failed: 0, first: i64::MAX, last: i64::MIN };

    fn add(&mut self, other: Bucket) {
        self.events += other.events;
        self.failed += other.failed;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Counts of events over time.
#[derive(Debug)]
pub(crate) struct Timeline {
    width: i64,
    buckets: HashMap<i64, Bucket>,
    /// The bucket of the last event, which has not been added to the others yet.
    current: (i64, Bucket),
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline { width: NARROWEST, buckets: HashMap::new(), current: (0, Bucket::EMPTY) }
    }
}

/// A period without events that is unusual in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuietPeriod {
    /// The times of the events before and after it, in microseconds since 1970.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// The number of events that a period of the same length around it has.
    pub(crate) expected: u64,
}

impl Timeline {
    /// Adds an event.
    #[inline]
    pub(crate) fn add(&mut self, time: i64, failed: bool) {
        let one = Bucket { events: 1, failed: u64::from(failed), first: time, last: time };
        let index = time.div_euclid(self.width);
        if index != self.current.0 {
            self.flush();
            self.current.0 = time.div_euclid(self.width);
        }
        self.current.1.add(one);
    }

    fn flush(&mut self) {
        let bucket = std::mem::replace(&mut self.current.1, Bucket::EMPTY);
        if bucket.events > 0 {
            self.insert(self.current.0, bucket);
        }
    }

    fn insert(&mut self, index: i64, bucket: Bucket) {
        self.buckets.entry(index).or_insert(Bucket::EMPTY).add(bucket);
        while self.buckets.len() > BUCKETS {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.width *= 2;
        for (index, bucket) in std::mem::take(&mut self.buckets) {
            self.buckets.entry(index.div_euclid(2)).or_insert(Bucket::EMPTY).add(bucket);
        }
    }

    /// Combines the counts of all threads.
    pub(crate) fn merge(all: impl Iterator<Item = Timeline>) -> Timeline {
        let mut whole = Timeline::default();
        for mut part in all {
            part.flush();
            while whole.width < part.width {
                whole.widen();
            }
            for (_, bucket) in part.buckets {
                let index = bucket.first.div_euclid(whole.width);
                whole.insert(index, bucket);
            }
        }
        whole
    }

    fn sorted(&self) -> Vec<Bucket> {
        let mut all: Vec<_> = self.buckets.values().copied().collect();
        all.sort_unstable_by_key(|bucket| bucket.first);
        all
    }

    /// Returns at most `most` bars of equal width: the start of the first bar and the width of a
    /// bar in microseconds, and the numbers of events and failures of each bar.
    pub(crate) fn bars(&self, most: usize) -> (i64, i64, Vec<(u64, u64)>) {
        let all = self.sorted();
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            return (0, NARROWEST, Vec::new());
        };
        let mut width = self.width;
        let count = |width: i64| last.last.div_euclid(width) - first.first.div_euclid(width) + 1;
        while count(width) > most as i64 {
            width *= 2;
        }
        let start = first.first.div_euclid(width);
        let mut bars = vec![(0, 0); count(width) as usize];
        for bucket in &all {
            let bar = &mut bars[(bucket.first.div_euclid(width) - start) as usize];
            bar.0 += bucket.events;
            bar.1 += bucket.failed;
        }
        (start * width, width, bars)
    }

    /// Returns quiet periods, that is, periods without events that are long compared with other
    /// pauses and with the rate of events around them. The longest is first.
    pub(crate) fn holes(&self) -> Vec<QuietPeriod> {
        let all = self.sorted();
        if all.len() < ENOUGH {
            return Vec::new();
        }
        let pause = |index: usize| all[index + 1].first - all[index].last;
        let mut pauses: Vec<i64> = (0..all.len() - 1).map(pause).collect();
        pauses.sort_unstable();
        let usual = pauses[pauses.len() * 95 / 100].max(self.width);
        let mut holes = Vec::new();
        for index in 0..all.len() - 1 {
            let length = pause(index);
            if length < usual.saturating_mul(LONGER) {
                continue;
            }
            let around = [
                &all[index.saturating_sub(AROUND - 1)..=index],
                &all[index + 1..(index + 1 + AROUND).min(all.len())],
            ];
            // Considers each side on its own, because a restart of the API server may cause a burst
            // of events.
            let rates = around.map(|side| {
                let events: u64 = side.iter().map(|bucket| bucket.events).sum();
                let time = side[side.len() - 1].last - side[0].first + self.width;
                events as f64 / time as f64
            });
            let expected = rates[0].min(rates[1]) * length as f64;
            if expected >= EXPECTED {
                let (from, to) = (all[index].last, all[index + 1].first);
                holes.push(QuietPeriod { from, to, expected: expected as u64 });
            }
        }
        holes.sort_by_key(|hole| std::cmp::Reverse(hole.to - hole.from));
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn of(times: impl Iterator<Item = i64>) -> Timeline {
        let mut parts = [Timeline::default(), Timeline::default()];
        for (index, time) in times.enumerate() {
            parts[index / 7 % 2].add(time, index % 10 == 0);
        }
        Timeline::merge(parts.into_iter())
    }

    #[test]
    fn a_hole_is_found_in_a_steady_log() {
        let steady = (0..4000).map(|index| 1_700_000_000 * SECOND + index * SECOND / 2);
        assert!(of(steady.clone()).holes().is_empty());
        let start = 1_700_000_500 * SECOND;
        let holes = of(steady.filter(|time| !(start..start + 60 * SECOND).contains(time))).holes();
        let [hole] = holes[..] else { panic!("{holes:?}") };
        assert_eq!((hole.from, hole.to), (start - SECOND / 2, start + 60 * SECOND));
        assert!((110..=125).contains(&hole.expected), "{hole:?}");
    }

    #[test]
    fn a_log_that_is_often_quiet_has_no_holes() {
        // A burst of ten events every two minutes; one burst is missing.
        let bursts = (0..200).filter(|burst| *burst != 77);
        let times = bursts.flat_map(|burst| (0..10).map(move |one| (burst * 120 + one) * SECOND));
        assert!(of(times).holes().is_empty());
    }

    #[test]
    fn bars_add_up_whatever_their_width() {
        let timeline = of((0..100_000).map(|index| index * 3 * SECOND));
        assert!(timeline.buckets.len() <= BUCKETS && timeline.width > NARROWEST);
        for most in [1, 7, 100, 100_000] {
            let (start, width, bars) = timeline.bars(most);
            assert!(bars.len() <= most && start <= 0 && width >= NARROWEST);
            assert_eq!(bars.iter().map(|bar| bar.0).sum::<u64>(), 100_000);
            assert_eq!(bars.iter().map(|bar| bar.1).sum::<u64>(), 10_000);
        }
    }
}
