//! Rotated logs with index files: the time for writing the index files, and for queries and
//! reports.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};

use crate::measure::{run as measured, table};
use crate::{CASES, generate};

/// The reports to measure in addition to [`CASES`].
const REPORTS: [&[&str]; 9] = [
    &["report", "summary"],
    &["report", "users"],
    &["report", "failed"],
    &["report", "secrets"],
    &["report", "exec"],
    &["report", "tokens"],
    &["report", "volume"],
    &["report", "agents"],
    &["query", "--count", "--forbidden"],
];

/// Creates rotated logs of `size` bytes in total and `file` bytes each, and indexes them.
fn prepare(folder: &Path, size: u64, file: u64) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let mut logs = Vec::new();
    for number in 0..size.div_ceil(file) {
        let name = format!(
            "audit-2026-11-{:02}T{:02}-{:02}-00.000.log",
            1 + number / 1440,
            number / 60 % 24,
            number % 60
        );
        let log = folder.join(name);
        if !log.exists() {
            let mut out = BufWriter::new(File::create(&log).expect("there is room"));
            generate::generate(&mut out, file, number + 1).expect("there is room");
        }
        logs.push(log);
    }
    logs
}

/// Indexes logs; prints the size of the index files and the time for writing one.
fn index(logs: &[PathBuf], folder: &str) {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    run_once(&["index", folder]);
    let text: u64 = logs.iter().map(|log| size(log)).sum();
    let bytes: u64 = logs.iter().map(|log| size(&log.with_extension("log.parquet"))).sum();
    let first = logs[0].display().to_string();
    let took = measured(&["index", "--force", &first]);
    println!(
        "index files: {:.2} % of the log; {:.2} GB of log per CPU second; {:.0} MB peak",
        bytes as f64 / text as f64 * 100.0,
        size(&logs[0]) as f64 / 1e9 / took.cpu,
        took.peak
    );
}

/// Removes files from the page cache, as far as the system allows that.
fn forget(logs: &[PathBuf]) {
    for log in logs {
        for path in [log.clone(), log.with_extension("log.parquet")] {
            if let Ok(file) = File::open(path) {
                let _ = file.sync_all();
                let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            }
        }
    }
}

/// Measures with and without index files.
pub(crate) fn run(folder: &Path, size: u64, file: u64) {
    let folder = folder.join(format!("rotated-{}M", file >> 20));
    let logs = prepare(&folder, size, file);
    let path = folder.display().to_string();
    index(&logs, &path);
    let mut rows = Vec::new();
    let commands = CASES.iter().map(|case| case.command).chain(REPORTS);
    for command in commands {
        let arguments = [command, &[&path]].concat();
        forget(&logs);
        let started = std::time::Instant::now();
        run_once(&arguments);
        let cold = started.elapsed().as_secs_f64();
        let warm = measured(&arguments);
        let without = measured(&[command, &["--no-index", &path]].concat());
        rows.push(vec![
            command.join(" "),
            format!("{:.3}", warm.wall),
            format!("{cold:.3}"),
            format!("{:.2}", warm.cpu),
            format!("{:.0}", warm.peak),
            format!("{:.2}", without.wall),
            format!("{:.2}", without.cpu),
            format!("{:.0}", without.peak),
        ]);
    }
    println!("{} files of {} MiB; all processors", logs.len(), file >> 20);
    table(
        &["command", "warm s", "cold s", "CPU s", "MB peak", "without: s", "CPU s", "MB peak"],
        &rows,
    );
}

/// Runs a command of this crate once.
fn run_once(arguments: &[&str]) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut child = std::process::Command::new(program)
        .arg("log")
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("this program can be started");
    let mut out = Vec::new();
    child.stdout.take().expect("it is piped").read_to_end(&mut out).expect("it can be read");
    child.wait().expect("it ends");
}
