//! The command `index`: writes or verifies index files.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Command, CommandError, PATH_VARIABLE};
use crate::index::{self, IndexError};
use crate::input::names::{LogName, Stamp};
use crate::input::{self, rotated};

/// Arguments of `index`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct IndexArgs {
    /// Log files or folders; a log brings the files rotated from it
    ///
    /// Without a path, the environment variable KUBE_AUDIT_LOG is used. A log that is rotated, and
    /// so still written to, is left out.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Compare existing index files with their logs, event by event, and write nothing
    #[arg(long)]
    pub check: bool,
    /// Write index files again that are up to date
    #[arg(long, conflicts_with = "check")]
    pub force: bool,
}

impl Command for IndexArgs {
    fn execute(&self) -> Result<bool, CommandError> {
        let mut out = io::stdout();
        let mut good = true;
        let mut failed = None;
        for log in self.logs()? {
            let result = match self.check {
                true => self.check(&log, &mut out),
                false => self.write(&log, &mut out),
            };
            match result {
                Ok(is_good) => good &= is_good,
                Err(error @ CommandError::Output(_)) => return Err(error),
                // An error of one log does not prevent indexing the others.
                Err(error) => {
                    eprintln!("error: {error}");
                    failed = Some(log);
                }
            }
        }
        match failed {
            Some(_) => Err(CommandError::Usage("not all logs could be indexed".to_owned())),
            None => Ok(good),
        }
    }
}

impl IndexArgs {
    fn logs(&self) -> Result<Vec<PathBuf>, CommandError> {
        let paths = match std::env::var_os(PATH_VARIABLE) {
            _ if !self.paths.is_empty() => self.paths.clone(),
            Some(path) if !path.is_empty() => vec![path.into()],
            _ => {
                return Err(CommandError::Usage(format!(
                    "no log: name a file or a folder, or set {PATH_VARIABLE}"
                )));
            }
        };
        if paths.iter().any(|path| path.as_os_str() == "-") {
            let message = "-: standard input cannot be indexed; name files";
            return Err(CommandError::Usage(message.to_owned()));
        }
        let inputs = input::resolve(&paths)?;
        Ok(inputs.into_iter().map(|input| input.path).filter(|path| !is_written_to(path)).collect())
    }

    fn write(&self, log: &Path, out: &mut impl Write) -> Result<bool, CommandError> {
        if !self.force && index::is_current(log).is_ok() {
            writeln!(out, "{}: up to date", index::path(log).display())?;
            return Ok(true);
        }
        let start = Instant::now();
        let written = index::write(log, &|| false).map_err(|error| of(log, &error))?;
        let share = written.size as f64 / written.text.max(1) as f64 * 100.0;
        writeln!(
            out,
            "{}: {} events, {:.1} MB ({share:.1} % of the log), {:.0} MB/s",
            written.path.display(),
            written.events,
            written.size as f64 / 1e6,
            written.text as f64 / 1e6 / start.elapsed().as_secs_f64().max(1e-9)
        )?;
        Ok(true)
    }

    fn check(&self, log: &Path, out: &mut impl Write) -> Result<bool, CommandError> {
        let path = index::path(log);
        match index::verify(log) {
            Ok(events) => writeln!(out, "{}: intact, {events} events", path.display())?,
            Err(IndexError::Io(error)) => return Err(of(log, &IndexError::Io(error))),
            Err(error) => {
                writeln!(out, "{}: NOT USABLE: {error}", path.display())?;
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn of(log: &Path, error: &IndexError) -> CommandError {
    CommandError::Usage(format!("{}: {error}", log.display()))
}

/// Returns whether a log is rotated and still being written: its index would soon be stale.
fn is_written_to(log: &Path) -> bool {
    let Some(name) = log.file_name() else { return false };
    let parsed = LogName::parse(name);
    if parsed.stamp != Stamp::Live || parsed.compressed {
        return false;
    }
    let folder = match log.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut lock = log.as_os_str().to_owned();
    lock.push(".lock");
    fs::exists(PathBuf::from(lock)).unwrap_or(false)
        || rotated(&folder, &parsed.base).is_ok_and(|files| !files.is_empty())
}
