//! Writes to standard output and standard error. Either may be closed, in which case `println!`
//! would panic.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::process::ExitCode;

use super::error::describe;

/// The exit code that shells report for a program that SIGPIPE ended: 128 plus the number of the
/// signal.
const SIGPIPE: u8 = 141;

/// Writes a line to standard output.
///
/// # Errors
/// If standard output is closed or full.
pub(super) fn line(text: Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes a line to standard error. A failure is ignored, since it cannot be reported.
pub(super) fn error_line(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether `error` means that the reader of the output has closed it, like `head` after ten lines.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns the exit code of a failed command: SIGPIPE's if the reader has closed the output,
/// otherwise `code` after printing the error.
pub(super) fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    if is_reader_gone(error) {
        return ExitCode::from(SIGPIPE);
    }
    error_line(format_args!("error: {}", describe(error)));
    ExitCode::from(code)
}
