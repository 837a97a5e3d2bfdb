//! Counts the system calls per request with strace.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Bench;
use crate::comparison::base;
use crate::load::{Http, Load, send};
use crate::peers;
use crate::process::Process;
use crate::report::table;
use crate::servers::Server;

const DEADLINE: Duration = Duration::from_secs(20);
/// A small number suffices, since calls are counted and not timed.
const REQUESTS: usize = 2_000;
/// The number of system calls in a table.
const SHOWN: usize = 6;

/// Counts the system calls of each proxy.
pub fn run(bench: &mut Bench, proxies: &[&Server]) -> Result<()> {
    let Some(strace) = peers::find("strace") else {
        println!("\nSystem calls are not counted: there is no strace (apt-get install strace)");
        return Ok(());
    };
    let requests = REQUESTS.min(bench.scale.requests);
    let load = Load { connections: 16, streams: 4, ..base(Http::Two, requests) };
    let mut found = BTreeMap::new();
    let mut rows = Vec::new();
    for proxy in proxies {
        let output = bench.work.file("strace.txt");
        let mut command = Command::new(&strace);
        command.args(["-c", "-f", "-U", "calls,name", "-o"]).arg(&output);
        command.args(proxy.ids().iter().map(|id| format!("--attach={id}")));
        let mut tracer = Process::start("strace", command, bench.work.path())?;
        let path = bench.work.file("strace.err");
        let is_attached = || {
            let stderr_tail = std::fs::read_to_string(&path).unwrap_or_default();
            (stderr_tail.matches("attached").count() >= proxy.ids().len()).then_some(())
        };
        tracer.wait("attach to the proxy", DEADLINE, is_attached)?;
        send(&bench.work, proxy, &load)?;
        tracer.signal(Signal::INT);
        tracer.wait_end(DEADLINE)?;
        let text = std::fs::read_to_string(&output).context("strace wrote nothing")?;
        let calls = per_request(&text, requests);
        rows.push(row(&proxy.name, &calls));
        found.insert(proxy.name.clone(), calls.into_iter().collect::<BTreeMap<_, _>>());
    }
    let title = format!("System calls of a request, of {requests} (HTTP/2, 16 × 4)");
    table(&title, &["", "all", "most of them"], &rows);
    bench.report.add("syscalls", found)
}

/// Returns the calls per request by name, most frequent first.
fn per_request(text: &str, requests: usize) -> Vec<(String, f64)> {
    let call = |line: &str| {
        let mut fields = line.split_whitespace();
        let calls: f64 = fields.next()?.parse().ok()?;
        let name = fields.next().filter(|&name| name != "total")?;
        Some((name.to_owned(), calls / requests as f64))
    };
    let mut calls: Vec<(String, f64)> = text.lines().filter_map(call).collect();
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    calls
}

fn row(name: &str, calls: &[(String, f64)]) -> Vec<String> {
    let all: f64 = calls.iter().map(|(_, count)| count).sum();
    let most = calls.iter().take(SHOWN).map(|(name, count)| format!("{name} {count:.2}"));
    vec![name.to_owned(), format!("{all:.2}"), most.collect::<Vec<_>>().join(", ")]
}
