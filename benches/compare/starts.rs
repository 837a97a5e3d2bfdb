//! The time from the start of the process until `/readyz` responds 200.

use std::time::Instant;

use anyhow::Result;

use crate::Bench;
use crate::measure::Spread;
use crate::report::show;
use crate::servers::{Level, Own};

/// Starts the proxy several times.
pub fn run(bench: &mut Bench) -> Result<()> {
    let own = Own { name: "starting".into(), ..Own::new(Level::Metadata) };
    let mut millis = Vec::new();
    for _ in 0..bench.scale.starts {
        let begun = Instant::now();
        let server = own.start(&bench.options.program, &bench.work, bench.upstream)?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
        drop(server);
    }
    let spread = Spread::of(millis);
    println!("\nFrom start to ready, {} times: {} ms", bench.scale.starts, show(spread, 1));
    bench.report.add("start to ready, ms", spread)
}
