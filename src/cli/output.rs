//! Writing to standard output and error, either of which may be closed: `println!` would panic.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::process::ExitCode;

use super::error::describe;

/// What a shell reports of a program that SIGPIPE ended: 128 and the signal's number.
const SIGPIPE: u8 = 141;

/// Writes a line to standard output.
///
/// # Errors
/// It is closed, or full.
pub(super) fn line(text: Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes a line to standard error. If that is closed there is no way left to report it.
pub(super) fn complain(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether `error` means that the reader of the output has gone, like `head` after ten lines.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Ends a command that failed: quietly if the reader of its output has gone, else with the error
/// and `code`.
pub(super) fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    if is_reader_gone(error) {
        return ExitCode::from(SIGPIPE);
    }
    complain(format_args!("error: {}", describe(error)));
    ExitCode::from(code)
}
