//! `export`: events as files for other programs.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::ZonedDateTime;

use super::progress::ProgressBar;
use super::{Command, CommandError, InputArgs, report_summary};
use crate::event::Event;
use crate::export::{Format, Part, Writer};
use crate::filter::{Filter, FilterArgs};
use crate::output::format::push_compact;
use crate::scan::{Place, Progress, Records, Scan, Visitor};

/// Arguments of `export`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// Which events.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Log files, folders, or - for standard input, and last the folder to write to
    ///
    /// Without a log, the environment variable KUBE_AUDIT_LOG is used, or standard input if it is
    /// not a terminal.
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
    /// Replace files that are there already
    #[arg(long)]
    pub overwrite: bool,
}

/// Delivers events as they stand in the log.
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

impl Command for ExportArgs {
    fn execute(&self) -> Result<bool, CommandError> {
        let parts = self.partition()?;
        let Some((folder, logs)) = self.paths.split_last() else {
            return Err(CommandError::Usage("name the folder to write to".to_owned()));
        };
        if folder.as_os_str() == "-" || folder.exists() && !folder.is_dir() {
            return Err(CommandError::Usage(format!(
                "{}: not a folder; the last argument is the folder to write to",
                folder.display()
            )));
        }
        let input = InputArgs {
            paths: logs.to_vec(),
            stage: self.stage.clone(),
            threads: self.threads,
            no_index: self.no_index,
        };
        let scan = Scan {
            filter: Filter::new(&self.filter, &ZonedDateTime::now())?,
            inputs: crate::input::resolve(&input.paths()?)?,
            stages: input.stages()?,
            reverse: false,
            threads: input.threads,
            index: !input.no_index,
        };
        let cluster = self.cluster.clone().unwrap_or_default();
        let mut writer =
            Writer::new(folder, self.format, parts, cluster, self.bodies, self.overwrite);
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
        // Files appear only if the export succeeds.
        let faulty = !summary.faults.is_empty();
        report_summary(summary)?;
        result.map_err(|error| CommandError::Usage(error.to_string()))?;
        if faulty {
            return Ok(false);
        }
        let files = writer.finish().map_err(|error| CommandError::Usage(error.to_string()))?;
        let mut out = io::stdout();
        for (path, events) in &files {
            writeln!(out, "{}: {events} events", path.display())?;
        }
        Ok(!files.is_empty())
    }
}
