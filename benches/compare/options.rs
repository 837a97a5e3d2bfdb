//! The flags of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// The program that cargo has built with this benchmark.
pub const OWN_PROGRAM: &str = env!("CARGO_BIN_EXE_kube-audit-proxy");

/// Compares kube-audit-proxy with nginx and HAProxy on this machine
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub struct Options {
    /// Send few requests, only to check that everything works; the figures are meaningless
    #[arg(long)]
    pub quick: bool,
    /// Install missing programs with apt-get
    #[arg(long)]
    pub install: bool,
    /// Rounds of the comparison; every round measures each proxy once. 5 if not given
    #[arg(long, value_name = "COUNT", value_parser = at_least_one)]
    rounds: Option<usize>,
    /// Requests of one measurement; 20000 if not given
    #[arg(long, value_name = "COUNT", value_parser = at_least_one)]
    requests: Option<usize>,
    /// Idle watches; 10000 if not given
    #[arg(long, value_name = "COUNT", value_parser = at_least_one)]
    watches: Option<usize>,
    /// Seconds after which no new round starts; 540 if not given
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// What to measure, comma-separated; everything except system calls if not given
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Also count system calls with strace
    #[arg(long)]
    syscalls: bool,
    /// Another kube-audit-proxy to measure, or a script that runs one under a profiler
    #[arg(long, value_name = "FILE", default_value = OWN_PROGRAM)]
    pub program: PathBuf,
    /// Directory for logs and certificates; should be on a disk because of --audit-log-sync
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub folder: PathBuf,
    /// File for all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// File for the charts
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Ignored; `cargo bench` passes it
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Each proxy at full speed, over HTTP/2 and HTTP/1.1
    Full,
    /// Latency at a fixed rate, half of the slowest proxy's
    Half,
    /// CPU time by the number of connections
    Connections,
    /// CPU time by the size of the response
    Body,
    /// CPU time by the number of policy rules
    Rules,
    /// Modes and sync settings of the audit log
    Log,
    /// Memory of idle watches
    Watches,
    /// Time from start to ready
    Start,
    /// System calls per request
    Syscalls,
}

/// The sizes of measurements.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub rounds: usize,
    pub requests: usize,
    pub watches: usize,
    pub starts: usize,
    /// Whether a tenth of the requests is sent before the first round.
    pub warm_up: bool,
    /// Duration of a measurement at a fixed rate.
    pub fixed_rate: Duration,
    /// Time for memory that was needed to open watches to be freed.
    pub settle: Duration,
    /// Time after which no new round starts.
    pub time_limit: Duration,
}

impl Options {
    /// Returns the sizes for these flags.
    pub fn scale(&self) -> Scale {
        let usual = if self.quick {
            Scale {
                rounds: 1,
                requests: 400,
                watches: 300,
                starts: 2,
                warm_up: false,
                fixed_rate: Duration::from_millis(300),
                settle: Duration::from_millis(200),
                time_limit: Duration::from_secs(45),
            }
        } else {
            Scale {
                rounds: 5,
                requests: 20_000,
                watches: 10_000,
                starts: 10,
                warm_up: true,
                fixed_rate: Duration::from_secs(2),
                settle: Duration::from_secs(2),
                time_limit: Duration::from_secs(540),
            }
        };
        Scale {
            rounds: self.rounds.unwrap_or(usual.rounds),
            requests: self.requests.unwrap_or(usual.requests),
            watches: self.watches.unwrap_or(usual.watches),
            time_limit: self.time_limit.map_or(usual.time_limit, Duration::from_secs),
            ..usual
        }
    }

    /// Returns whether a part is to be measured.
    pub fn wants(&self, part: Part) -> bool {
        match part {
            Part::Syscalls => self.syscalls || self.only.contains(&part),
            part => self.only.is_empty() || self.only.contains(&part),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("must be a number".to_owned()),
    }
}
