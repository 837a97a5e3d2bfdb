//! Counts how often the rules of the active policy match, and how much is written for them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of all rules of one policy, by backend. They start at zero with each policy that is
/// loaded.
#[derive(Debug)]
pub struct Usage {
    /// By rule, then by backend. The last rule stands for requests that no rule matches.
    counts: Box<[Counts]>,
    /// Events that were left out, by rule of the extension and backend.
    dropped: Box<[AtomicU64]>,
    backends: usize,
}

/// Aligned to cache lines, so that counts of different rules do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    /// Only the count of the first backend is used, since all of them have the same requests.
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Usage {
    /// Creates counts of zero for this many rules, rules of the extension, and backends.
    pub fn new(rules: usize, extension_rules: usize, backends: usize) -> Usage {
        let backends = backends.max(1);
        Usage {
            counts: (0..(rules + 1) * backends).map(|_| Counts::default()).collect(),
            dropped: (0..extension_rules * backends).map(|_| AtomicU64::new(0)).collect(),
            backends,
        }
    }

    /// Counts an event that a rule of the extension withholds from a backend.
    pub fn count_dropped(&self, rule: usize, backend: usize) {
        self.dropped[rule * self.backends + backend].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of events that a rule of the extension withheld from a backend.
    pub fn dropped(&self, rule: usize, backend: usize) -> u64 {
        self.dropped[rule * self.backends + backend].load(Ordering::Relaxed)
    }

    fn at(&self, rule: Option<u32>, backend: usize) -> &Counts {
        let last = self.counts.len() / self.backends - 1;
        let rule = rule.map_or(last, |rule| rule as usize);
        &self.counts[rule * self.backends + backend]
    }

    /// Counts a request.
    #[inline]
    pub fn count_request(&self, rule: Option<u32>) {
        self.at(rule, 0).requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that a backend receives.
    #[inline]
    pub fn count_bytes(&self, rule: Option<u32>, backend: usize, bytes: usize) {
        self.at(rule, backend).bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the number of requests that the rule matched; with `None`, that no rule matched.
    pub fn requests(&self, rule: Option<u32>) -> u64 {
        self.at(rule, 0).requests.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes of the events that the backend received.
    pub fn bytes(&self, rule: Option<u32>, backend: usize) -> u64 {
        self.at(rule, backend).bytes.load(Ordering::Relaxed)
    }
}
