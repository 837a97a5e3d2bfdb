//! One replica of the proxy and several: CPU time of a request, throughput, and the events after
//! one replica is killed.
//!
//! `cargo bench --bench replicas`. Needs nginx, as the API server. Linux only: CPU time is read
//! from `/proc`.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod client;
#[path = "../compare/peer_servers.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod peer_servers;
#[path = "../compare/peers.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod peers;
#[path = "../compare/process.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod process;
#[path = "../compare/servers.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod servers;
#[path = "../compare/usage.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod usage;
#[path = "../compare/workspace.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod workspace;

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::client::{Load, Outcome};
use crate::servers::{Level, Own, Server};
use crate::usage::Usage;
use crate::workspace::Workspace;

/// The program that cargo has built together with this one.
const OWN_PROGRAM: &str = env!("CARGO_BIN_EXE_kube-audit-proxy");

/// Measures several replicas of the proxy, and kills one.
#[derive(Debug, Parser)]
#[command(name = "replicas")]
struct Options {
    /// A short run with few requests, which shows that no event is lost; its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Number of replicas
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..))]
    replicas: u8,
    /// Rounds; each measures one replica and all of them
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rounds: usize,
    /// Requests of one measurement
    #[arg(long, value_name = "COUNT", default_value_t = 50_000)]
    requests: usize,
    /// Another kube-audit-proxy to measure
    #[arg(long, value_name = "FILE", default_value = OWN_PROGRAM)]
    program: PathBuf,
    /// Directory for logs and certificates during the run
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
    /// The flag that `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.requests) = (1, 2_000);
    }
    ensure!(
        peers::find("nginx").is_some(),
        "nginx is missing; on Debian: apt-get install nginx-light"
    );
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let work = Workspace::new(&options.folder)?;
    let upstream = peer_servers::upstream(&work)?;
    let mut bench = Bench { runtime, replicas: Vec::new(), work };
    for number in 0..options.replicas {
        let name = format!("replica {number}");
        let own = Own { name, ..Own::new(Level::Metadata) };
        let server = own.start(&options.program, &bench.work, upstream.address)?;
        let log = bench.work.file(&format!("replica-{number}.log"));
        bench.replicas.push(Replica { server, log });
    }
    bench.measure(&options)?;
    bench.kill_one(&options)
}

/// A replica and its audit log.
struct Replica {
    server: Server,
    log: PathBuf,
}

struct Bench {
    runtime: Runtime,
    replicas: Vec<Replica>,
    work: Workspace,
}

/// The figures of one measurement.
struct Sample {
    cpu_us: f64,
    rate: f64,
}

impl Bench {
    /// Compares one replica with all of them, with the same number of connections for each replica.
    /// Each request has one event in one of the logs.
    fn measure(&self, options: &Options) -> Result<()> {
        let all = self.replicas.len();
        let mut samples = [Vec::new(), Vec::new()];
        // The first round warms up.
        for round in 0..=options.rounds {
            for (count, samples) in [1, all].into_iter().zip(&mut samples) {
                let replicas = &self.replicas[..count];
                let ids: Vec<u32> =
                    replicas.iter().flat_map(|one| one.server.ids().to_vec()).collect();
                let before = Usage::of(&ids)?;
                let outcome = self.send(count, options.requests, Arc::default())?;
                let (user, system) = Usage::of(&ids)?.since(before).micros();
                ensure!(outcome.broken == 0, "{} requests failed", outcome.broken);
                self.check(&outcome, None)?;
                if round > 0 {
                    let requests = outcome.answered.len() as f64;
                    let rate = requests / outcome.elapsed.as_secs_f64();
                    samples.push(Sample { cpu_us: (user + system) / requests, rate });
                }
            }
        }
        println!("{:<12} {:>18} {:>14}", "replicas", "CPU µs/request", "requests/s");
        for (count, samples) in [1, all].into_iter().zip(&samples) {
            let cpu = median(samples.iter().map(|sample| sample.cpu_us));
            let rate = median(samples.iter().map(|sample| sample.rate));
            println!("{count:<12} {cpu:>18.1} {rate:>14.0}");
        }
        let [one, several] = &samples;
        let ratio = |figure: fn(&Sample) -> f64| {
            median(several.iter().map(figure)) / median(one.iter().map(figure))
        };
        println!(
            "ratio        {:>17.2}× {:>13.2}×",
            ratio(|sample| sample.cpu_us),
            ratio(|sample| sample.rate)
        );
        Ok(())
    }

    /// Kills a replica when half of the requests have a response. Each request with a response has
    /// an event.
    fn kill_one(&self, options: &Options) -> Result<()> {
        let answered = Arc::new(AtomicUsize::new(0));
        let killed = &self.replicas[0];
        let pid = i32::try_from(killed.server.ids()[0]).ok().and_then(Pid::from_raw);
        let pid = pid.context("the replica has no process ID")?;
        let killer = {
            let (answered, half) = (answered.clone(), options.requests / 2);
            self.runtime.spawn(async move {
                while answered.load(Ordering::Relaxed) < half {
                    tokio::task::yield_now().await;
                }
                kill_process(pid, Signal::KILL)
            })
        };
        let outcome = self.send(self.replicas.len(), options.requests, answered)?;
        self.runtime.block_on(killer)??;
        let events = self.check(&outcome, Some(killed))?;
        println!(
            "\nkill -9 of one of {}: {} requests, {} without a response, {events} events; none lost",
            self.replicas.len(),
            outcome.answered.len() + outcome.broken,
            outcome.broken,
        );
        Ok(())
    }

    fn send(
        &self,
        replicas: usize,
        requests: usize,
        answered: Arc<AtomicUsize>,
    ) -> Result<Outcome> {
        let addresses: Vec<SocketAddr> =
            self.replicas[..replicas].iter().map(|one| one.server.address).collect();
        let load = Load { connections: 4 * replicas, streams: 4, requests };
        let ca = self.work.file("ca.crt");
        self.runtime
            .block_on(client::send(&ca, &addresses, &load, answered))
            .with_context(|| self.replicas[0].server.stderr_tail())
    }

    /// Checks that the union of the logs has exactly one event for each response, and empties the
    /// logs. A killed replica can also have events of requests without a response, and a partial
    /// last line. Returns the number of events.
    fn check(&self, outcome: &Outcome, killed: Option<&Replica>) -> Result<usize> {
        let mut found = HashSet::new();
        for replica in &self.replicas {
            let text = fs::read_to_string(&replica.log).unwrap_or_default();
            let is_killed = killed.is_some_and(|killed| killed.log == replica.log);
            for line in text.split_inclusive('\n') {
                if is_killed && !line.ends_with('\n') {
                    continue;
                }
                let event: Value = serde_json::from_str(line)
                    .with_context(|| format!("{}: {line}", replica.log.display()))?;
                let id = event["auditID"].as_str().context("an event has no auditID")?;
                ensure!(found.insert(id.to_owned()), "two events have the auditID {id}");
            }
            if !text.is_empty() {
                // The proxy appends, so the next line is the first.
                fs::File::options().write(true).open(&replica.log)?.set_len(0)?;
            }
        }
        let lost = outcome.answered.iter().filter(|id| !found.contains(*id)).count();
        ensure!(lost == 0, "{lost} of {} responses have no event", outcome.answered.len());
        let further = found.len() - outcome.answered.len();
        ensure!(further <= outcome.broken, "{further} events are of no request that was sent");
        Ok(found.len())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
