//! The cost of the modes and sync settings of the audit log, compared with no audit log.

use anyhow::Result;

use crate::Bench;
use crate::comparison::base;
use crate::load::{Http, Load};
use crate::measure::{Case, Series, alternate};
use crate::options::Part;
use crate::report::{figures, show, table};
use crate::servers::{Level, Own, Server};

const MODES: [&str; 3] = ["batch", "blocking", "blocking-strict"];
const SYNCS: [&str; 3] = ["off", "interval", "always"];
const CLIENTS: usize = 64;
const ROUNDS: usize = 3;

/// Measures all modes with all sync settings, with 64 clients that send one request at a time.
pub fn run(bench: &mut Bench) -> Result<()> {
    let mut servers =
        vec![start(bench, &Own { name: "no audit".into(), ..Own::new(Level::None) })?];
    let mut loads = vec![load(bench, "off")];
    for mode in MODES {
        for sync in SYNCS {
            let name = format!("{mode}, sync {sync}");
            servers.push(start(bench, &Own { name, mode, sync, ..Own::new(Level::Metadata) })?);
            loads.push(load(bench, sync));
        }
    }
    let cases: Vec<Case<'_>> = servers
        .iter()
        .zip(loads)
        .map(|(server, load)| Case { name: server.name.clone(), server, load })
        .collect();
    let end = bench.clock.part(Part::Log.weight());
    let series = alternate(bench, &cases, bench.scale.rounds.min(ROUNDS), end)?;
    bench.report.add("log", figures(&series))?;
    print(&series);
    Ok(())
}

fn start(bench: &Bench, own: &Own) -> Result<Server> {
    own.start(&bench.options.program, &bench.work, bench.upstream)
}

/// Sends fewer requests if each may wait for the disk.
fn load(bench: &Bench, sync: &str) -> Load {
    let share = if sync == "always" { 4 } else { 1 };
    let requests = (bench.scale.requests / share).max(4 * CLIENTS);
    Load { connections: CLIENTS, ..base(Http::Two, requests) }
}

fn print(series: &[Series]) {
    let none = series[0].median(|s| s.cpu_us);
    let row = |one: &Series| {
        vec![
            one.name.clone(),
            show(one.spread(|s| s.cpu_us), 1),
            format!("{:+.1}", one.median(|s| s.cpu_us) - none),
            show(one.spread(|s| s.rate), 0),
            show(one.spread(|s| s.p99_us), 0),
        ]
    };
    let rows: Vec<Vec<String>> = series.iter().map(row).collect();
    let title = format!("--audit-log-mode and --audit-log-sync, level Metadata, {CLIENTS} clients");
    table(&title, &["", "CPU µs/request", "for the log", "requests/s", "p99 µs"], &rows);
}
