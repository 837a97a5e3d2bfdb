//! Counts the instructions and allocations of the parts of a request. These numbers show a
//! regression even on a noisy machine.
//!
//! `cargo bench --bench instructions`, or `-- policy` for the cases with that in their name; `--
//! --quick` runs each only a few times. The program runs itself under valgrind's callgrind, which
//! must be installed. Instructions of the kernel are not counted.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod callgrind;
mod cases;
mod counter;
mod pipeline;
#[path = "../setup/rules.rs"]
mod rules;
#[path = "../setup/sample.rs"]
mod sample;
#[path = "../setup/sinks.rs"]
mod sinks;
#[path = "../setup/user.rs"]
mod user;

use std::process::ExitCode;

use crate::counter::Counter;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Passed to the process that runs under callgrind.
const COUNTED: &str = "--counted";

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has(COUNTED) {
        let only = arguments.iter().find(|argument| !argument.starts_with('-'));
        let counter = Counter::new(only.map_or("", String::as_str), has("--quick"));
        cases::run(&counter);
        pipeline::run(&counter);
        return ExitCode::SUCCESS;
    }
    match callgrind::measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
