//! Runs the cases in the process under callgrind.

use std::hint::black_box;

/// The default number of iterations of a case.
const TIMES: u32 = 1000;

/// Which cases are counted, and with how many iterations.
pub struct Counter<'a> {
    only: &'a str,
    quick: bool,
}

impl Counter<'_> {
    /// Counts the cases whose name contains `only`.
    pub fn new(only: &str, quick: bool) -> Counter<'_> {
        Counter { only, quick }
    }

    pub fn wants(&self, name: &str) -> bool {
        name.contains(self.only)
    }

    /// Counts each iteration of `work`.
    pub fn each(&self, name: &str, mut work: impl FnMut()) {
        self.many(name, |times| (0..times).for_each(|_| work()));
    }

    /// Counts `work`, which gets the number of iterations.
    pub fn many(&self, name: &str, mut work: impl FnMut(u32)) {
        if !self.wants(name) {
            return;
        }
        let times = if self.quick { TIMES / 50 } else { TIMES };
        // A warm-up with its own profile, so that costs that occur only once are not counted.
        counted(&mut work, times / 2);
        counted(&mut work, times);
        println!("{times} {name}");
    }
}

/// The function whose instructions callgrind counts.
#[inline(never)]
fn counted(work: &mut dyn FnMut(u32), times: u32) {
    work(black_box(times));
    // Prevents a tail call, so that callgrind sees the end of this function.
    black_box(());
}
