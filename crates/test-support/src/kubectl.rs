use std::io::{self, Write};
use std::process::Command;

/// Returns whether `kubectl` can be run. If not, prints one line, which the test harness does not
/// capture, so that a skipped test does not look like one that passed.
pub fn has_kubectl() -> bool {
    let version = Command::new("kubectl").args(["version", "--client"]).output();
    let is_there = version.is_ok_and(|output| output.status.success());
    if !is_there {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let _ = writeln!(io::stderr(), "{test}: skipped, because kubectl is not in the PATH");
    }
    is_there
}
