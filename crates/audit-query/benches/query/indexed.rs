//! Rotated logs with index files: how long writing them takes, and queries and reports with them.

use std::fs::{self, File};
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use audit_query::filter::Filter;
use audit_query::index;
use audit_query::input;
use audit_query::scan::{Progress, Scan, Stages};

use crate::{Case, Print, cases, cpu_seconds, generate};

/// The default size of a log file before it is rotated.
const FILE: u64 = 100 << 20;

/// Makes rotated logs of so many bytes, and indexes them.
fn prepare(folder: &Path, size: u64) {
    fs::create_dir_all(folder).expect("the folder can be made");
    let (mut text, mut bytes, mut cpu) = (0, 0, 0.0);
    for number in 0..size.div_ceil(FILE) {
        let name = format!("audit-2026-11-01T{:02}-{:02}-00.000.log", number / 60, number % 60);
        let log = folder.join(name);
        if !log.exists() {
            let mut out = BufWriter::new(File::create(&log).expect("there is room"));
            generate::generate(&mut out, FILE, number + 1).expect("there is room");
        }
        if index::is_current(&log).is_err() {
            let before = cpu_seconds();
            let written = index::write(&log, &|| false).expect("the log can be indexed");
            cpu += cpu_seconds() - before;
            text += written.text;
            bytes += written.size;
        }
    }
    if text > 0 {
        println!(
            "index files: {:.2} % of the log, {:.2} GB a CPU second",
            bytes as f64 / text as f64 * 100.0,
            text as f64 / 1e9 / cpu
        );
    }
}

/// Measures with and without index files, in wall-clock and CPU seconds.
pub(crate) fn run(folder: &Path, size: u64) {
    let folder = folder.join("rotated");
    prepare(&folder, size);
    for case in cases() {
        for index in [true, false] {
            let mut best = (f64::MAX, f64::MAX, 0);
            for _ in 0..3 {
                let (started, before) = (Instant::now(), cpu_seconds());
                let events = one(&folder, &case, index);
                let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - before);
                best = (best.0.min(wall), best.1.min(cpu), events);
            }
            println!(
                "{:9} {:40} {:7.3} s {:7.2} CPU s  {} events",
                if index { "index" } else { "no index" },
                case.name,
                best.0,
                best.1,
                best.2
            );
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    println!("memory: {peak}");
}

fn one(folder: &Path, case: &Case, index: bool) -> u64 {
    let scan = Scan {
        inputs: input::resolve(&[folder.to_owned()]).expect("the logs were made before"),
        filter: Filter::new(&case.args, &jiff::ZonedDateTime::now()).expect("filters are valid"),
        stages: Stages::Last,
        reverse: false,
        threads: 0,
        index,
    };
    let mut found = 0;
    if case.by.is_empty() {
        // Events are printed as they stand in the log.
        scan.run(
            &Progress::default(),
            || Print,
            |_| {
                found += 1;
                ControlFlow::Continue(())
            },
        )
        .expect("the logs can be read");
        return found;
    }
    let (counts, _) = scan
        .run(&Progress::default(), || case.count(), |_| ControlFlow::Continue(()))
        .expect("the logs can be read");
    counts.iter().map(|count| count.events).sum()
}
