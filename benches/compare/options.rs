//! The flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// The program that cargo has built together with this one.
pub const OWN_PROGRAM: &str = env!("CARGO_BIN_EXE_kube-audit-proxy");

/// Measures kube-audit-proxy beside nginx and HAProxy, on this machine.
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub struct Options {
    /// A short run with few requests, which shows that everything works; its figures mean nothing
    #[arg(long)]
    pub quick: bool,
    /// Install the programs that are missing, by apt-get
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
    /// Seconds after which no further round is begun; 540 if not given
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// What to measure, comma-separated; all but the system calls if not given
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Count system calls by strace too
    #[arg(long)]
    syscalls: bool,
    /// Another kube-audit-proxy to measure, or a script that runs one under a profiler
    #[arg(long, value_name = "FILE", default_value = OWN_PROGRAM)]
    pub program: PathBuf,
    /// Where logs and certificates are kept meanwhile: on a disk, for the sake of --audit-log-sync
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub folder: PathBuf,
    /// Write every figure there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the charts there
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Each proxy as fast as it can, over HTTP/2 and HTTP/1.1
    Full,
    /// Latency at a fixed rate: half of what the slowest can
    Half,
    /// CPU time against connections
    Connections,
    /// CPU time against the size of the answer
    Body,
    /// CPU time against rules in the policy
    Rules,
    /// Modes of the log, and when it is synced
    Log,
    /// Memory of idle watches
    Watches,
    /// Time from the start until ready
    Start,
    /// System calls of a request
    Syscalls,
}

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub rounds: usize,
    pub requests: usize,
    pub watches: usize,
    pub starts: usize,
    /// Whether a tenth of the requests is sent before the first round.
    pub warm_up: bool,
    /// How long a measurement at a fixed rate takes.
    pub fixed_rate: Duration,
    /// Until memory that opening the watches needed is given back.
    pub settle: Duration,
    /// When no further round is begun.
    pub time_limit: Duration,
}

impl Options {
    /// The sizes that were asked for.
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

    /// Whether a part is to be measured.
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
