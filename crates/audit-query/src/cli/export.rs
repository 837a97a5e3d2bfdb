//! The command `export`: writes events to files for other programs.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::ZonedDateTime;

use super::progress::ProgressBar;
use super::{Command, CommandError, InputArgs, report_summary};
use crate::event::Event;
use crate::export::{Content, Format, Part, Writer};
use crate::filter::{Filter, FilterArgs};
use crate::input::InputError;
use crate::objects::{Store, Stores, Url};
use crate::output::format::push_compact;
use crate::scan::{Place, Progress, Records, Scan, Visitor};

/// Arguments of `export`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// Which events.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Log files, folders, s3://BUCKET/PREFIX, or - for standard input, and last the folder or URL
    /// to write to
    ///
    /// Objects are created in a bucket when all files are complete, and never replaced. Without a
    /// log, the environment variable KUBE_AUDIT_LOG is used, or standard input if it is not a
    /// terminal.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Which events of a request: last (one event a request), all, or the names of stages
    #[arg(long, value_name = "STAGE", default_value = "last", value_delimiter = ',')]
    pub stage: Vec<String>,
    /// Threads that read and parse; 0 is one for each processor
    #[arg(long, value_name = "N", default_value_t = 0, hide_short_help = true)]
    pub threads: usize,
    /// Do not use the index files beside closed logs
    #[arg(long)]
    pub no_index: bool,
    /// What is written
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Folders by cluster, date, and hour (UTC), in this order:
    /// cluster=NAME/date=2026-11-23/hour=04
    ///
    /// The default is cluster,date,hour with --cluster, else date,hour. none is no folders.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    pub partition: Option<Vec<Part>>,
    /// The name of the cluster, for --partition
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Include request and response objects
    #[arg(long)]
    pub bodies: bool,
    /// Include the events as they stand in the log, so that log query reads the Parquet files
    #[arg(long)]
    pub events: bool,
    /// Replace files that are there already
    #[arg(long)]
    pub overwrite: bool,
    /// Opens buckets for paths that are URLs.
    #[arg(skip)]
    pub stores: Option<Arc<dyn Stores>>,
}

/// Delivers events as they are in the log.
struct Raw;

impl Visitor for Raw {
    fn visit(&mut self, event: &Event<'_>, _: Place<'_>, records: &mut Records) {
        records.push(|out| push_compact(out, event.raw));
    }
}

impl ExportArgs {
    fn partition(&self) -> Result<Vec<Part>, CommandError> {
        let mut parts = match (&self.partition, &self.cluster) {
            (Some(parts), _) => parts.clone(),
            (None, Some(_)) => vec![Part::Cluster, Part::Date, Part::Hour],
            (None, None) => vec![Part::Date, Part::Hour],
        };
        if parts.contains(&Part::Cluster) && self.cluster.as_ref().is_none_or(String::is_empty) {
            let message = "--partition=cluster needs --cluster NAME";
            return Err(CommandError::Usage(message.to_owned()));
        }
        if let Some((at, part)) =
            parts.iter().enumerate().find(|(at, part)| parts[..*at].contains(part))
        {
            let message = format!("--partition: part {} repeats {}", at + 1, part.name());
            return Err(CommandError::Usage(message));
        }
        if parts.len() > 1 && parts.contains(&Part::None) {
            let message = "--partition: none stands alone";
            return Err(CommandError::Usage(message.to_owned()));
        }
        parts.retain(|part| *part != Part::None);
        Ok(parts)
    }
}

/// The destination of an export.
enum Target {
    Folder(PathBuf),
    /// A bucket and a prefix. Files are written to a temporary directory first.
    Store(Arc<dyn Store>, String),
}

impl ExportArgs {
    fn target(&self, path: &Path) -> Result<Target, CommandError> {
        let Some(url) = Url::parse(path) else {
            if path.as_os_str() == "-" || path.exists() && !path.is_dir() {
                return Err(CommandError::Usage(format!(
                    "{}: not a folder; the last argument is the folder to write to",
                    path.display()
                )));
            }
            return Ok(Target::Folder(path.to_owned()));
        };
        if self.overwrite {
            let message =
                "--overwrite: objects in a bucket are never replaced; choose another prefix";
            return Err(CommandError::Usage(message.to_owned()));
        }
        let stores = self.stores.as_deref();
        let stores = stores.ok_or_else(|| InputError::FilesOnly(path.display().to_string()))?;
        let store = stores.open(url.bucket).map_err(|error| store_error(path, error))?;
        Ok(Target::Store(store, url.key.to_owned()))
    }

    fn content(&self) -> Result<Content, CommandError> {
        match (self.events, self.bodies, self.format) {
            (true, _, Format::Parquet) => Ok(Content::Events),
            (true, ..) => {
                let message = "--events is for --format parquet";
                Err(CommandError::Usage(message.to_owned()))
            }
            (false, true, _) => Ok(Content::Bodies),
            (false, false, _) => Ok(Content::Attributes),
        }
    }
}

fn store_error(url: &Path, error: io::Error) -> CommandError {
    CommandError::Input(InputError::Store { path: url.display().to_string(), error })
}

impl Command for ExportArgs {
    fn execute(&self) -> Result<bool, CommandError> {
        let (parts, content) = (self.partition()?, self.content()?);
        let Some((last, logs)) = self.paths.split_last() else {
            return Err(CommandError::Usage("name the folder to write to".to_owned()));
        };
        let target = self.target(last)?;
        let input = InputArgs {
            paths: logs.to_vec(),
            stage: self.stage.clone(),
            threads: self.threads,
            no_index: self.no_index,
            stores: self.stores.clone(),
        };
        let filter = Filter::new(&self.filter, &ZonedDateTime::now())?;
        let scan = Scan {
            inputs: input.inputs(&filter)?,
            filter,
            stages: input.stages()?,
            reverse: false,
            threads: input.threads,
            index: !input.no_index,
        };
        let temporary;
        let folder = match &target {
            Target::Folder(folder) => folder,
            Target::Store(..) => {
                temporary = Temporary::new()?;
                &temporary.0
            }
        };
        let cluster = self.cluster.clone().unwrap_or_default();
        let mut writer = Writer::new(folder, self.format, parts, cluster, content, self.overwrite);
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, true);
        let mut result = Ok(());
        let (_, summary) = scan.run(
            &progress,
            || Raw,
            |record| {
                let Some(event) = Event::parse(record) else { return ControlFlow::Continue(()) };
                result = writer.write(&event);
                if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )?;
        drop(bar);
        // The files only appear if the export succeeds.
        let faulty = !summary.faults.is_empty();
        report_summary(summary)?;
        result.map_err(|error| CommandError::Usage(error.to_string()))?;
        if faulty {
            return Ok(false);
        }
        let files = writer.finish().map_err(|error| CommandError::Usage(error.to_string()))?;
        match &target {
            Target::Folder(_) => print(&files)?,
            Target::Store(store, prefix) => upload(&**store, last, prefix, folder, &files)?,
        }
        Ok(!files.is_empty())
    }
}

fn print(files: &[(PathBuf, u64)]) -> io::Result<()> {
    files.iter().try_for_each(|(path, events)| {
        writeln!(io::stdout(), "{}: {events} events", path.display())
    })
}

/// Creates an object for each file. Its key is the prefix and the path of the file in the
/// directory.
fn upload(
    store: &dyn Store,
    url: &Path,
    prefix: &str,
    folder: &Path,
    files: &[(PathBuf, u64)],
) -> Result<(), CommandError> {
    let failed = |error| store_error(url, error);
    let mut objects = Vec::new();
    for (path, events) in files {
        let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
        let key = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}/{name}"),
        };
        // Detects conflicts before storing anything. An object of the same size may be from an
        // earlier run of the same export.
        let size = std::fs::metadata(path).map_err(CommandError::Output)?.len();
        if store.get(&key).map_err(failed)?.is_some_and(|object| object.size != size) {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!(
                    "{key} is there already; objects are never replaced, choose another prefix"
                ),
            )));
        }
        objects.push((path, key, name, events));
    }
    for (path, key, name, events) in objects {
        let is_new = store.create(&key, path).map_err(failed)?;
        let note = if is_new { "" } else { " (was there already)" };
        let url = url.display().to_string();
        writeln!(io::stdout(), "{}/{name}: {events} events{note}", url.trim_end_matches('/'))?;
    }
    Ok(())
}

/// A temporary directory that is removed on drop.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Temporary, CommandError> {
        let time = jiff::Timestamp::now().as_nanosecond();
        let name = format!("kube-audit-proxy-export-{}-{time}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| {
            CommandError::Usage(format!(
                "{}: {error}; files are written there before they are uploaded, set TMPDIR to another \
                 folder",
                path.display()
            ))
        })?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
