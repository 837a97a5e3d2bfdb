//! How many instructions and allocations the parts of a request cost: figures that show a
//! regression on a noisy machine, too.
//!
//! `cargo bench --bench instructions`, or `-- policy` for the cases of that name alone;
//! `-- --quick` does each a few times only. It runs itself under valgrind's callgrind, which must
//! be installed. Instructions of the kernel are not counted.

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

/// As the program has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Given to the process that runs under callgrind.
const COUNTED: &str = "--counted";

fn main() -> ExitCode {
    // Cargo itself gives `--bench`.
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
