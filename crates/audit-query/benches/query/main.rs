//! Measures how fast logs are searched and summarized, in CPU time, and compares that with DuckDB,
//! chDB, jq and ripgrep.
//!
//! `cargo bench -p audit-query --bench query` generates a log of 1 GB and measures the commands of
//! this crate on it, uncompressed and compressed with gzip and zstd. Each measurement is a separate
//! process, like for the other programs: the best of three runs, minus the start, which is measured
//! with a log of one event.
//!
//! - `-- --peers` also measures the other programs and prints ratios; see README.md in this
//!   folder.
//! - `-- --rotated GB [--file MB]` measures rotated logs of that size with and without index files.
//! - `-- log query|report|index ...` runs only that command, for profilers.

mod generate;
mod measure;
mod peers;
mod rotated;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use audit_query::cli::{Command as _, IndexArgs, QueryArgs, ReportArgs};
use audit_query::proof::{Outline, Prover, Seals};
use clap::Parser;

use crate::measure::{Measured, own, table};

/// The commands of this crate, like in the proxy's binary.
#[derive(Debug, Parser)]
enum Log {
    Query(Box<QueryArgs>),
    Report(Box<ReportArgs>),
    Index(IndexArgs),
}

/// Logs without seals.
struct Unsealed;

impl Seals for Unsealed {
    fn prover(&self, _: &[PathBuf]) -> Result<Box<dyn Prover>, String> {
        Err("there are no seals".to_owned())
    }

    fn outline(&self, _: &Path) -> io::Result<Option<Outline>> {
        Ok(None)
    }
}

/// A question, and the command that answers it.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    question: &'static str,
    command: &'static [&'static str],
}

/// The questions for all programs.
const CASES: [Case; 4] = [
    Case {
        name: "a",
        question: "who deleted one Secret",
        command: &[
            "query",
            "-ojson",
            "--verb=delete",
            "--resource=secrets",
            "--name=stripe-signing-key",
        ],
    },
    Case {
        name: "b",
        question: "one user's failures in an hour",
        command: &[
            "query",
            "-ojson",
            "--user=alice@example.com",
            "--failed",
            "--since=2026-11-01T00:10:00Z",
            "--until=2026-11-01T01:10:00Z",
        ],
    },
    Case {
        name: "c",
        question: "count by user, verb, resource, code",
        command: &["report", "top", "--by=user,verb,resource,code", "-ojson"],
    },
    Case {
        name: "d",
        question: "latency percentiles by verb",
        command: &["report", "latency", "--by=verb", "-ojson"],
    },
];

/// Creates the log and its compressed copies, unless they exist.
fn logs(folder: &Path) -> io::Result<[PathBuf; 3]> {
    fs::create_dir_all(folder)?;
    let [plain, gzip, zstd] =
        ["plain.log", "gzip.log.gz", "zstd.log.zst"].map(|name| folder.join(name));
    if !plain.exists() {
        generate::generate(&mut BufWriter::new(File::create(&plain)?), 1_000_000_000, 1)?;
    }
    if !gzip.exists() {
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gzip)?, flate2::Compression::default());
        io::copy(&mut File::open(&plain)?, &mut encoder)?;
        encoder.finish()?.flush()?;
    }
    if !zstd.exists() {
        zstd::stream::copy_encode(File::open(&plain)?, File::create(&zstd)?, 3)?;
    }
    Ok([plain, gzip, zstd])
}

/// Creates a log that contains only the first event, to measure the start.
fn one_event(folder: &Path, log: &Path) -> io::Result<PathBuf> {
    use std::io::BufRead;
    let mut line = Vec::new();
    io::BufReader::new(File::open(log)?).read_until(b'\n', &mut line)?;
    let path = folder.join("empty.log");
    fs::write(&path, line)?;
    Ok(path)
}

/// The value of a flag of this benchmark.
fn value(flag: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag).skip(1);
    arguments.next().map(|value| value.parse().expect("the flag takes a number"))
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "log") {
        return match Log::parse_from(std::env::args().skip(1)) {
            Log::Query(args) => args.run(&Unsealed),
            Log::Report(args) => args.run(&Unsealed),
            Log::Index(args) => args.run(),
        };
    }
    let folder = std::env::temp_dir().join("audit-query-bench");
    if let Some(gigabytes) = value("--rotated") {
        rotated::run(&folder, gigabytes * 1_000_000_000, value("--file").unwrap_or(100) << 20);
        return ExitCode::SUCCESS;
    }
    let logs = logs(&folder).expect("logs can be made in the temporary folder");
    let empty = one_event(&folder, &logs[0]).expect("the folder is there");
    let size = fs::metadata(&logs[0]).expect("it was made").len() as f64 / 1e9;
    println!("{size:.2} GB of events, no index files; one thread unless stated");
    let mut rows = Vec::new();
    for log in &logs {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        for case in &CASES {
            let start = own(case, &empty, 1);
            let measured = own(case, log, 1).less(start);
            rows.push(row(&name, case, measured, size, start));
        }
    }
    for threads in [1, 2, 4] {
        for case in &CASES {
            let start = own(case, &empty, threads);
            let measured = own(case, &logs[0], threads).less(start);
            rows.push(row(&format!("{threads} thread(s)"), case, measured, size, start));
        }
    }
    table(
        &[
            "log",
            "question",
            "CPU s",
            "wall s",
            "GB per CPU s",
            "GB per s",
            "MB peak",
            "start-up s",
        ],
        &rows,
    );
    if std::env::args().any(|argument| argument == "--peers") {
        peers::run(&folder, &logs[0], &empty);
    }
    ExitCode::SUCCESS
}

fn row(log: &str, case: &Case, measured: Measured, size: f64, start: Measured) -> Vec<String> {
    vec![
        log.to_owned(),
        format!("{}: {}", case.name, case.question),
        format!("{:.2}", measured.cpu),
        format!("{:.2}", measured.wall),
        format!("{:.1}", size / measured.cpu),
        format!("{:.1}", size / measured.wall),
        format!("{:.0}", measured.peak),
        format!("{:.2}", start.cpu),
    ]
}
