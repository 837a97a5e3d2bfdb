//! Compares the cost of a request in kube-audit-proxy, nginx and HAProxy on this machine.
//!
//! `cargo bench --bench compare`; see README.md in this folder. Linux only: CPU time and memory are
//! read from `/proc`.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod chart;
mod comparison;
mod load;
mod log_modes;
mod measure;
mod options;
mod peer_servers;
mod peers;
mod process;
mod report;
mod servers;
mod starts;
mod sweeps;
mod syscalls;
#[path = "../setup/tls_server.rs"]
mod tls_server;
mod usage;
mod watches;
mod workspace;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::chart::Chart;
use crate::measure::Clock;
use crate::options::{OWN_PROGRAM, Options, Part, Scale};
use crate::report::Report;
use crate::servers::{Level, Own, Server, WORKERS};
use crate::workspace::Workspace;

/// The state that all parts of the benchmark share.
struct Bench {
    options: Options,
    scale: Scale,
    clock: Clock,
    report: Report,
    work: Workspace,
    /// nginx, which takes the place of the API server.
    upstream: SocketAddr,
}

impl Part {
    const OF_PROXIES: [Part; 6] =
        [Part::Full, Part::Half, Part::Connections, Part::Body, Part::Rules, Part::Syscalls];

    /// The weight of the part when the time is divided.
    fn weight(self) -> f64 {
        match self {
            Part::Full => 6.0,
            Part::Half | Part::Rules => 2.0,
            Part::Connections => 5.0,
            Part::Body => 4.0,
            Part::Log => 3.0,
            Part::Watches => 1.5,
            Part::Start | Part::Syscalls => 0.0,
        }
    }
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    peers::check(options.install)?;
    end_when_asked()?;
    raise_file_limit();
    let begun = Instant::now();
    let scale = options.scale();
    let wanted = Part::value_variants().iter().filter(|&&part| options.wants(part));
    // The full load has a share for each protocol.
    let shares = wanted.map(|&part| part.weight() * if part == Part::Full { 2.0 } else { 1.0 });
    let clock = Clock::new(scale.time_limit, shares.sum());
    let work = Workspace::new(&options.folder)?;
    let direct = peer_servers::upstream(&work)?;
    let report = Report::new(
        &about(&options),
        json!({
            "quick": options.quick, "rounds": scale.rounds, "requests": scale.requests,
        }),
    );
    let upstream = direct.address;
    let mut bench = Bench { options, scale, clock, report, work, upstream };
    let charts = parts(&mut bench, &direct)?;
    if let Some(file) = &bench.options.json {
        bench.report.write(file)?;
    }
    if let Some(file) = &bench.options.svg {
        std::fs::write(file, chart::svg(&charts))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("\nEvery answer was 200, and every audit log had its events for each request.");
    println!("Done in {:.0} s.", begun.elapsed().as_secs_f64());
    Ok(())
}

fn parts(bench: &mut Bench, direct: &Server) -> Result<Vec<Chart>> {
    let charts = if Part::OF_PROXIES.into_iter().any(|part| bench.options.wants(part)) {
        parts_of_proxies(bench, direct)?
    } else {
        Vec::new()
    };
    if bench.options.wants(Part::Log) {
        log_modes::run(bench)?;
    }
    if bench.options.wants(Part::Watches) {
        watches::run(bench)?;
    }
    if bench.options.wants(Part::Start) {
        starts::run(bench)?;
    }
    Ok(charts)
}

/// Runs the parts that measure all proxies.
fn parts_of_proxies(bench: &mut Bench, direct: &Server) -> Result<Vec<Chart>> {
    let proxies = proxies(bench)?;
    let proxies: Vec<&Server> = proxies.iter().collect();
    let all: Vec<&Server> = std::iter::once(direct).chain(proxies.iter().copied()).collect();
    let mut charts = Vec::new();
    comparison::run(bench, &all)?;
    // The proxy with two events per request is left out of the charts: its line would be between
    // others.
    let swept = &proxies[..proxies.len() - 1];
    if bench.options.wants(Part::Connections) {
        charts.push(sweeps::connections(bench, swept)?);
    }
    if bench.options.wants(Part::Body) {
        charts.push(sweeps::body(bench, swept)?);
    }
    if bench.options.wants(Part::Rules) {
        charts.push(sweeps::rules(bench, proxies[0])?);
    }
    if bench.options.wants(Part::Syscalls) {
        syscalls::run(bench, &proxies)?;
    }
    Ok(charts)
}

/// Starts all proxies: first nginx, last the one with two events per request. Prints their process
/// IDs for profilers.
fn proxies(bench: &Bench) -> Result<Vec<Server>> {
    let (work, upstream) = (&bench.work, bench.upstream);
    let mut all = vec![
        peer_servers::nginx_proxy(work, upstream, "nginx", "")?,
        peer_servers::haproxy(work, upstream, "haproxy")?,
    ];
    for level in [Level::None, Level::Metadata, Level::RequestResponse] {
        all.push(Own::new(level).start(&bench.options.program, work, upstream)?);
    }
    let name = "kap Metadata, two events".to_owned();
    let two = Own { name, received: true, ..Own::new(Level::Metadata) };
    all.push(two.start(&bench.options.program, work, upstream)?);
    for proxy in &all {
        println!("  {:<20} {}, processes {:?}", proxy.name, proxy.address, proxy.ids());
    }
    Ok(all)
}

fn about(options: &Options) -> Vec<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let is_slow = cfg!(debug_assertions) && options.program == Path::new(OWN_PROGRAM);
    let build = if is_slow { ", a build WITHOUT optimization" } else { "" };
    vec![
        format!(
            "{processors} processors, {}",
            model.map_or("of an unknown model", |(_, name)| name)
        ),
        format!("{}; {}", peers::version("nginx", "-v"), peers::version("haproxy", "-v")),
        format!("{}; kap is kube-audit-proxy{build}", peers::version("h2load", "--version")),
        format!("program: {}", options.program.display()),
        format!(
            "Workers: nginx {WORKERS} processes, HAProxy {WORKERS} threads, kube-audit-proxy \
             {processors} threads, the upstream (nginx) {WORKERS} processes, h2load 1 thread."
        ),
        "TLS on both sides, the upstream's certificate verified. nginx speaks HTTP/1.1 to the \
         upstream, the others HTTP/2. nginx and HAProxy record nothing; kube-audit-proxy \
         authenticates a bearer token, impersonates, and writes one event a request (blocking), \
         or two where it says so."
            .to_owned(),
        "Figures are medians of all rounds (least–most). CPU is the proxy's own, of all its \
         processes and threads."
            .to_owned(),
    ]
}

/// Ends the benchmark on SIGINT and SIGTERM, at the next wait, so that all processes are ended.
fn end_when_asked() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            process::INTERRUPTED.store(true, Ordering::Relaxed);
        });
    });
    Ok(())
}

/// Raises the limit of open files, because some parts open many connections.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
