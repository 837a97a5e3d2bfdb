//! Starts a pager for long output on a terminal, like git.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Standard output, directly or through a pager.
#[derive(Debug)]
pub(crate) enum Output {
    Direct(BufWriter<io::Stdout>),
    Paged { child: Child, pipe: BufWriter<ChildStdin> },
}

impl Output {
    /// Starts a pager if standard output is a terminal and `wanted` is set: the command in
    /// KUBE_AUDIT_PAGER or PAGER, or `less`. An empty command, or `cat`, disables the pager.
    pub(crate) fn open(wanted: bool) -> Output {
        let direct = || Output::Direct(BufWriter::with_capacity(64 << 10, io::stdout()));
        if !wanted || !io::stdout().is_terminal() {
            return direct();
        }
        let named = ["KUBE_AUDIT_PAGER", "PAGER"].iter().find_map(|name| std::env::var(name).ok());
        let command = named.unwrap_or_else(|| "less".to_owned());
        if command.is_empty() || command == "cat" {
            return direct();
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            // F: exit if the output fits on one screen. R: keep colours. X: do not clear the
            // screen.
            shell.env("LESS", "FRX");
        }
        let Ok(mut child) = shell.spawn() else { return direct() };
        match child.stdin.take() {
            Some(pipe) => Output::Paged { child, pipe: BufWriter::new(pipe) },
            None => direct(),
        }
    }

    /// Flushes the output and waits for the pager to exit.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Output::Direct(mut out) => out.flush(),
            Output::Paged { mut child, pipe } => {
                let written = pipe.into_inner().map(drop);
                child.wait()?;
                written.map_err(|error| error.into_error())
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Direct(out) => out.write(bytes),
            Output::Paged { pipe, .. } => pipe.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Direct(out) => out.flush(),
            Output::Paged { pipe, .. } => pipe.flush(),
        }
    }
}
