//! The most frequent values.

use hashbrown::HashMap;

/// Maximum number of values that are counted separately; further ones are counted together.
const MOST: usize = 4096;

/// Counts values to find the most frequent ones.
#[derive(Debug, Clone, Default)]
pub struct Top {
    counts: HashMap<Vec<u8>, u64>,
    others: u64,
}

impl Top {
    /// Counts a value.
    pub fn count(&mut self, value: &[u8]) {
        self.count_times(value, 1);
    }

    fn count_times(&mut self, value: &[u8], times: u64) {
        if let Some(count) = self.counts.get_mut(value) {
            *count += times;
        } else if self.counts.len() < MOST {
            self.counts.insert(value.to_vec(), times);
        } else {
            self.others += times;
        }
    }

    /// Adds other counts.
    pub fn add(&mut self, other: Top) {
        for (value, count) in other.counts {
            self.count_times(&value, count);
        }
        self.others += other.others;
    }

    /// Returns the most frequent values; values with equal counts are sorted.
    pub fn highest(&self, limit: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(&Vec<u8>, u64)> = self.counts.iter().map(|(v, c)| (v, *c)).collect();
        all.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        all.into_iter().take(limit).map(|(value, count)| (text(value), count)).collect()
    }
}
