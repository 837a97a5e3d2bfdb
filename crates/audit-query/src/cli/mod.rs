//! The commands `query`, `report`, `follow`, `index`, and `export`: their flags and output.
//!
//! Exit codes: 0 if events were found, 1 if none were found, 2 after an error.

mod export;
mod follow;
mod index;
mod pager;
mod progress;
mod proof;
mod query;
mod report;
mod run_report;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;

pub use self::export::ExportArgs;
pub use self::follow::FollowArgs;
pub use self::index::IndexArgs;
pub use self::query::QueryArgs;
pub use self::report::ReportArgs;
use crate::filter::{Filter, FilterError};
use crate::input::{self, Input, InputError};
use crate::objects::Stores;
use crate::scan::{ScanError, Skipped, Stages, Summary};

/// The environment variable with the path of the log, used if no path is given.
const PATH_VARIABLE: &str = "KUBE_AUDIT_LOG";

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A filter is invalid.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A path cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A log cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A flag, or a combination of flags, is invalid.
    #[error("{0}")]
    Usage(String),
    /// A seal cannot be read.
    #[error("cannot prove events: {0}")]
    Proof(io::Error),
    /// Events or seals were modified.
    #[error("{0}")]
    Tampered(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// A command of this crate.
pub trait Command {
    /// Runs the command. Returns whether anything was found.
    ///
    /// # Errors
    /// See [`CommandError`].
    fn execute(&self) -> Result<bool, CommandError>;

    /// Runs the command, prints an error, and returns the exit code.
    fn run(&self) -> ExitCode {
        exit_code(self.execute())
    }
}

/// Prints an error and returns the exit code.
fn exit_code(result: Result<bool, CommandError>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // The reader of the output, such as `head`, has closed it.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Where the events are, and how they are read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InputArgs {
    /// Log files, folders, s3://BUCKET/PREFIX, or - for standard input; a log brings the files
    /// rotated from it
    ///
    /// gs:// and az:// name objects of Google Cloud Storage and Azure Blob Storage; credentials
    /// come from the environment. Without a path, the environment variable KUBE_AUDIT_LOG is used,
    /// or standard input if it is not a terminal.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Which events of a request: last (one event a request), all, or the names of stages
    #[arg(
        long,
        value_name = "STAGE",
        default_value = "last",
        value_delimiter = ',',
        help_heading = "Filters (repeat a flag for or, !VALUE for not, * matches anything)"
    )]
    pub stage: Vec<String>,
    /// Threads that read and parse; 0 is one for each processor
    #[arg(long, value_name = "N", default_value_t = 0, hide_short_help = true)]
    pub threads: usize,
    /// Do not use the index files beside closed logs
    #[arg(long)]
    pub no_index: bool,
    /// Opens buckets for paths that are URLs.
    #[arg(skip)]
    pub stores: Option<Arc<dyn Stores>>,
}

impl InputArgs {
    /// Returns the files and objects to read, except those that the filter's period excludes.
    pub(crate) fn inputs(&self, filter: &Filter) -> Result<Vec<Input>, CommandError> {
        let inputs = input::resolve_all(&self.paths()?, self.stores.as_deref(), filter.period())?;
        Ok(inputs)
    }

    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, CommandError> {
        if !self.paths.is_empty() {
            return Ok(self.paths.clone());
        }
        match std::env::var_os(PATH_VARIABLE) {
            Some(path) if !path.is_empty() => Ok(vec![path.into()]),
            _ if !io::stdin().is_terminal() => Ok(vec![OsString::from("-").into()]),
            _ => Err(CommandError::Usage(format!(
                "no log: name a file or a folder, set {PATH_VARIABLE}, or pipe events to standard input"
            ))),
        }
    }

    pub(crate) fn stages(&self) -> Result<Stages, CommandError> {
        const NAMES: [&str; 4] =
            ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
        match &self.stage[..] {
            [] => return Ok(Stages::Last),
            [one] if one == "last" => return Ok(Stages::Last),
            [one] if one == "all" => return Ok(Stages::All),
            _ => {}
        }
        let name = |stage: &String| {
            let known = NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(stage));
            known.map(str::to_owned).ok_or_else(|| {
                CommandError::Usage(format!(
                    "--stage={stage}: unknown stage; accepted are last, all, {}",
                    NAMES.join(", ")
                ))
            })
        };
        Ok(Stages::Only(self.stage.iter().map(name).collect::<Result<_, _>>()?))
    }
}

/// Whether to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    pub(crate) fn on(self, terminal: bool) -> bool {
        match self {
            Colour::Auto => {
                terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
            Colour::Always => true,
            Colour::Never => false,
        }
    }
}

/// Prints what a scan could not read. Returns the first fault if a file could not be read to its
/// end.
pub(crate) fn report_summary(summary: Summary) -> Result<(), CommandError> {
    for skipped in &summary.skipped {
        let Skipped { path, lines, .. } = skipped;
        let lines = match lines {
            1 => "1 line is not an audit event".to_owned(),
            lines => format!("{lines} lines are not audit events"),
        };
        let (path, place) = (path.display(), skipped.place());
        eprintln!("warning: {path}: {lines} and skipped; the first is {place}");
    }
    for note in &summary.notes {
        eprintln!("warning: {note}");
    }
    if summary.assumed_unfinished > 0 {
        eprintln!(
            "warning: {} requests without a final event are shown although their final event may \
             follow later in the log; --stage=all shows all events",
            summary.assumed_unfinished
        );
    }
    let mut faults = summary.faults.into_iter();
    let first = faults.next();
    for fault in faults {
        eprintln!("error: {fault}");
    }
    first.map_or(Ok(()), |fault| Err(fault.into()))
}
