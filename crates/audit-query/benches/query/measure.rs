//! Runs programs and measures their resource usage.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Case;

/// The number of runs, of which the best counts.
const RUNS: usize = 3;

/// The resources that one process used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// CPU seconds of all threads.
    pub(crate) cpu: f64,
    /// Wall-clock seconds.
    pub(crate) wall: f64,
    /// Peak resident memory in MB.
    pub(crate) peak: f64,
}

impl Measured {
    /// Subtracts the cost of starting the program. The result is at least the resolution of CPU
    /// time, 10 ms.
    pub(crate) fn less(self, start: Measured) -> Measured {
        Measured {
            cpu: (self.cpu - start.cpu).max(0.01),
            wall: (self.wall - start.wall).max(0.001),
            peak: self.peak,
        }
    }
}

/// CPU time of the children of this process that have ended.
fn children_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("there is /proc");
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // cutime and cstime, in hundredths of a second.
    fields[13..15].iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Peak resident memory of a running process in MB. Before `exec`, `VmHWM` is that of this process,
/// so only later values count.
fn peak(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1000.0)
}

/// Runs a program and returns the best of several runs. `None` if the program does not exist or
/// failed with an exit code other than 0 and those in `accepted`.
pub(crate) fn measure(program: &Path, arguments: &[&str], accepted: &[i32]) -> Option<Measured> {
    let mut best = Measured { cpu: f64::MAX, wall: f64::MAX, peak: 0.0 };
    for _ in 0..RUNS {
        let (before, started) = (children_cpu(), Instant::now());
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let status = loop {
            match child.try_wait().ok()? {
                Some(status) => break status,
                None => {
                    best.peak = peak(child.id()).unwrap_or_default().max(best.peak);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        };
        let wall = started.elapsed().as_secs_f64();
        let code = status.code()?;
        if code != 0 && !accepted.contains(&code) {
            return None;
        }
        best.cpu = best.cpu.min(children_cpu() - before);
        best.wall = best.wall.min(wall);
    }
    Some(best)
}

/// Measures a case with a command of this crate.
pub(crate) fn own(case: &Case, log: &Path, threads: usize) -> Measured {
    let threads = format!("--threads={threads}");
    let log = log.display().to_string();
    run(&[case.command, &["--no-index", &threads, &log]].concat())
}

/// Measures a command of this crate.
pub(crate) fn run(command: &[&str]) -> Measured {
    let program = std::env::current_exe().expect("this program has a path");
    // The exit code 1 means that nothing was found.
    measure(&program, &[&["log"], command].concat(), &[1]).expect("the command succeeds")
}

/// Prints rows as a Markdown table.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    println!("| {} |\n|{}", header.join(" | "), "---|".repeat(header.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}
