//! Measures several cases alternately, and computes medians.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::Bench;
use crate::load::{Load, Sample, send};
use crate::servers::Server;

/// The time limit of the benchmark, divided among its parts.
pub struct Clock {
    end: Instant,
    weights: f64,
}

impl Clock {
    /// Divides `limit` among parts whose weights have the sum `weights`.
    pub fn new(limit: Duration, weights: f64) -> Clock {
        Clock { end: Instant::now() + limit, weights }
    }

    /// Returns when a part of this weight must end. Time that a part does not use is left to later
    /// ones.
    pub fn part(&mut self, weight: f64) -> Instant {
        let now = Instant::now();
        let left = self.end.saturating_duration_since(now);
        let share = (weight / self.weights.max(weight)).min(1.0);
        self.weights -= weight;
        now + left.mul_f64(share)
    }
}

/// A server and a load to measure.
pub struct Case<'a> {
    /// The name in tables.
    pub name: String,
    pub server: &'a Server,
    pub load: Load,
}

/// All measurements of one case.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub name: String,
    pub samples: Vec<Sample>,
}

impl Series {
    /// Returns minimum, median and maximum of a figure.
    pub fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(figure).collect())
    }

    /// Returns the median of a figure.
    pub fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        self.spread(figure).median
    }
}

/// Minimum, median and maximum.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// All are NaN if there are no values.
    pub fn of(mut values: Vec<f64>) -> Spread {
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            0 if half > 0 => f64::midpoint(at(half - 1), at(half)),
            _ => at(half),
        };
        Spread { min: at(0), median, max: at(values.len().saturating_sub(1)) }
    }
}

/// After a warm-up, measures all cases once per round, starting each round with another case. Ends
/// early at `end`, but not before the first round.
pub fn alternate(
    bench: &Bench,
    cases: &[Case<'_>],
    rounds: usize,
    end: Instant,
) -> Result<Vec<Series>> {
    let work = &bench.work;
    for case in cases.iter().filter(|_| bench.scale.warm_up) {
        let few = (case.load.requests / 10).max(case.load.connections).max(16);
        send(work, case.server, &Load { requests: few, ..case.load })?;
    }
    let named = |case: &Case<'_>| Series { name: case.name.clone(), samples: Vec::new() };
    let mut series: Vec<Series> = cases.iter().map(named).collect();
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let start = Instant::now();
        if round > 0 && start + longest > end {
            println!("(The time was up after {round} of {rounds} rounds.)");
            break;
        }
        for turn in 0..cases.len() {
            let index = (turn + round) % cases.len();
            let case = &cases[index];
            series[index].samples.push(send(work, case.server, &case.load)?);
        }
        longest = longest.max(start.elapsed());
    }
    // If the processes of a server were not found, it would seem to cost nothing.
    let free = series.iter().find(|one| one.median(|sample| sample.cpu_us) <= 0.0);
    ensure!(free.is_none(), "no CPU time is known of {:?}", free.map(|one| &one.name));
    Ok(series)
}
