//! Does what is counted, in the process that runs under callgrind.

use std::hint::black_box;

/// How often a case is done, unless it says otherwise.
const TIMES: u32 = 1000;

/// Which cases are counted, and how thoroughly.
pub struct Counter<'a> {
    only: &'a str,
    quick: bool,
}

impl Counter<'_> {
    /// Counts cases whose name has `only` in it.
    pub fn new(only: &str, quick: bool) -> Counter<'_> {
        Counter { only, quick }
    }

    pub fn wants(&self, name: &str) -> bool {
        name.contains(self.only)
    }

    /// Counts `work`.
    pub fn each(&self, name: &str, mut work: impl FnMut()) {
        self.many(name, |times| (0..times).for_each(|_| work()));
    }

    /// Counts what `work` does in the given number of rounds.
    pub fn many(&self, name: &str, mut work: impl FnMut(u32)) {
        if !self.wants(name) {
            return;
        }
        let times = if self.quick { TIMES / 50 } else { TIMES };
        // What is done only once is no cost of each time.
        counted(&mut work, times / 2);
        counted(&mut work, times);
        println!("{times} {name}");
    }
}

/// The function that callgrind counts.
#[inline(never)]
fn counted(work: &mut dyn FnMut(u32), times: u32) {
    work(black_box(times));
    // Keeps this from being left before that returns.
    black_box(());
}
