//! The command `query`: prints the events that match a filter.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use jiff::ZonedDateTime;

use super::pager::Output;
use super::progress::ProgressBar;
use super::{Colour, CommandError, InputArgs, report_summary};
use crate::event::Event;
use crate::filter::{Filter, FilterArgs};
use crate::index::Columns;
use crate::input;
use crate::output::Field;
use crate::output::format::{push_compact, push_csv, push_tsv, push_yaml};
use crate::output::table::{Style, Table, cell};
use crate::proof::Seals;
use crate::scan::{Counting, Numbers, Place, Progress, Records, Scan, Visitor};

/// How events are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// The events as they stand in the log, one a line
    Json,
    /// One document an event
    Yaml,
    /// Comma-separated values with a header (RFC 4180)
    Csv,
    /// Tab-separated values with a header
    Tsv,
    /// Audit IDs, one a line
    Id,
}

/// Arguments of `query`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct QueryArgs {
    /// Which events.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Where from.
    #[command(flatten)]
    pub input: InputArgs,
    /// How events are printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Columns of table, csv, and tsv: time,user,verb,resource,namespace,name,code,annotations.KEY,
    /// ...
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// The latest first; reads from the end of the log
    #[arg(long)]
    pub reverse: bool,
    /// Print only how many events match
    #[arg(long, conflicts_with_all = ["output", "columns", "reverse"])]
    pub count: bool,
    /// With each event, print the sealed block that proves it; exit with 2 if an event is not what
    /// was sealed
    #[arg(long, requires = "public_key", conflicts_with = "count")]
    pub proof: bool,
    /// Public keys (PEM) that the log may be sealed with, for --proof
    #[arg(long, value_name = "FILE", requires = "proof")]
    pub public_key: Vec<std::path::PathBuf>,
    /// When to colour
    #[arg(long, alias = "colour", value_enum, default_value_t, value_name = "WHEN")]
    pub color: Colour,
    /// Do not start a pager on a terminal
    #[arg(long)]
    pub no_pager: bool,
}

const TABLE: [Field; 8] = [
    Field::Time,
    Field::Who,
    Field::Verb,
    Field::Object,
    Field::Namespace,
    Field::Name,
    Field::Code,
    Field::SourceIp,
];
const WIDE: [Field; 13] = [
    Field::Time,
    Field::Who,
    Field::Verb,
    Field::Object,
    Field::Namespace,
    Field::Name,
    Field::Code,
    Field::Reason,
    Field::Latency,
    Field::SourceIps,
    Field::UserAgent,
    Field::Stage,
    Field::AuditId,
];
const SEPARATED: [Field; 18] = [
    Field::Time,
    Field::AuditId,
    Field::Stage,
    Field::Level,
    Field::User,
    Field::Impersonated,
    Field::Verb,
    Field::Resource,
    Field::ApiGroup,
    Field::Subresource,
    Field::Namespace,
    Field::Name,
    Field::Code,
    Field::Reason,
    Field::Latency,
    Field::SourceIp,
    Field::UserAgent,
    Field::Uri,
];

/// Delivers each event as it is printed; for tables, its cells.
struct Print {
    format: Format,
    fields: Arc<[Field]>,
    scratch: Vec<u8>,
}

impl Visitor for Print {
    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records) {
        let Print { format, fields, scratch } = self;
        records.push(|out| match format {
            Format::Json => {
                push_compact(out, event.raw);
                out.push(b'\n');
            }
            Format::Yaml => push_yaml(out, event.raw),
            Format::Id => {
                event.audit_id.push_to(out);
                out.push(b'\n');
            }
            Format::Csv | Format::Tsv => {
                for (index, field) in fields.iter().enumerate() {
                    scratch.clear();
                    field.push(event, place, scratch);
                    match format {
                        Format::Csv if index > 0 => out.push(b','),
                        _ if index > 0 => out.push(b'\t'),
                        _ => {}
                    }
                    match format {
                        Format::Csv => push_csv(out, scratch),
                        _ => push_tsv(out, scratch),
                    }
                }
                out.push(b'\n');
            }
            Format::Table | Format::Wide => push_cells(out, fields, event, place, scratch),
        });
    }
}

/// Appends cells, each preceded by its length.
pub(super) fn push_cells(
    out: &mut Vec<u8>,
    fields: &[Field],
    event: &Event<'_>,
    place: Place<'_>,
    scratch: &mut Vec<u8>,
) {
    for field in fields {
        scratch.clear();
        field.push(event, place, scratch);
        if *field == Field::Time && scratch.len() == 27 && scratch.ends_with(b"Z") {
            // Milliseconds are precise enough for human readers.
            scratch.truncate(23);
            scratch.push(b'Z');
        }
        out.extend_from_slice(&(scratch.len() as u32).to_le_bytes());
        out.extend_from_slice(scratch);
    }
}

/// Parses the cells that [`push_cells`] appended, and sanitizes them for a terminal.
pub(super) fn cells(record: &[u8]) -> Vec<String> {
    raw_cells(record).into_iter().map(cell).collect()
}

/// Parses the cells that [`push_cells`] appended.
pub(super) fn raw_cells(mut record: &[u8]) -> Vec<&[u8]> {
    let mut cells = Vec::new();
    while let Some((length, rest)) = record.split_first_chunk::<4>() {
        let (text, rest) = rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len()));
        cells.push(text);
        record = rest;
    }
    cells
}

/// Returns an empty table for events.
pub(super) fn table(fields: &[Field], colour: bool) -> Table {
    let header = fields.iter().map(|field| field.name().to_uppercase()).collect();
    let style = |field: &Field| match field {
        Field::Time | Field::Received => Style::Time,
        Field::Verb => Style::Verb,
        Field::Code => Style::Code,
        _ => Style::Plain,
    };
    let right = fields.iter().map(|field| *field == Field::Latency).collect();
    Table::new(header, fields.iter().map(style).collect(), right, colour)
}

/// Returns the columns of a format, or those that are given.
pub(super) fn fields(format: Format, columns: &[String]) -> Result<Arc<[Field]>, CommandError> {
    if columns.is_empty() {
        return Ok(match format {
            Format::Wide => WIDE.into(),
            Format::Csv | Format::Tsv => SEPARATED.into(),
            _ => TABLE.into(),
        });
    }
    let parse = |column: &String| {
        let field: Result<Field, _> = column.parse();
        field.map_err(|problem| CommandError::Usage(format!("--columns={column}: {problem}")))
    };
    columns.iter().map(parse).collect()
}

/// Counts events.
struct Count(u64);

impl Visitor for Count {
    fn visit(&mut self, _: &Event<'_>, _: Place<'_>, _: &mut Records) {
        self.0 += 1;
    }

    fn columns(&self) -> Option<Columns> {
        Some(Columns::default())
    }

    fn counting(&self) -> Option<Counting> {
        Some(Counting::default())
    }

    fn class(&mut self, _: &Event<'_>, _: Place<'_>) -> Option<u32> {
        Some(0)
    }

    fn count(&mut self, _: u32, _: Numbers) {
        self.0 += 1;
    }
}

impl QueryArgs {
    /// Runs the command, prints an error, and returns the exit code.
    pub fn run(&self, seals: &dyn Seals) -> ExitCode {
        super::exit_code(if self.proof { self.prove(seals) } else { self.execute() })
    }

    pub(super) fn scan(&self) -> Result<Scan, CommandError> {
        let filter = Filter::new(&self.filter, &ZonedDateTime::now())?;
        Ok(Scan {
            inputs: self.input.inputs(&filter)?,
            filter,
            stages: self.input.stages()?,
            reverse: self.reverse,
            threads: self.input.threads,
            index: !self.input.no_index,
        })
    }

    fn count(&self) -> Result<bool, CommandError> {
        let scan = self.scan()?;
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, true);
        let (counts, summary) = scan.run(&progress, || Count(0), |_| ControlFlow::Continue(()))?;
        drop(bar);
        let count: u64 = counts.iter().map(|count| count.0).sum();
        let count = self.limit.map_or(count, |limit| count.min(limit));
        writeln!(io::stdout(), "{count}")?;
        report_summary(summary)?;
        Ok(count > 0)
    }
}

impl QueryArgs {
    fn execute(&self) -> Result<bool, CommandError> {
        let fields = fields(self.output, &self.columns)?;
        if self.count {
            return self.count();
        }
        let scan = self.scan()?;
        let terminal = io::stdout().is_terminal();
        let mut out = Output::open(!self.no_pager);
        let is_table = matches!(self.output, Format::Table | Format::Wide);
        let mut table = is_table.then(|| table(&fields, self.color.on(terminal)));
        if matches!(self.output, Format::Csv | Format::Tsv) {
            let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
            let separator = if self.output == Format::Csv { "," } else { "\t" };
            writeln!(out, "{}", names.join(separator))?;
        }
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, false);
        // Events from a pipe are printed immediately.
        let streams = scan.inputs.iter().any(input::Input::is_stdin);
        let (mut found, mut result) = (0_u64, Ok(()));
        let limit = self.limit.unwrap_or(u64::MAX);
        let make = || Print { format: self.output, fields: fields.clone(), scratch: Vec::new() };
        let (_, summary) = scan.run(&progress, make, |record| {
            if found >= limit {
                return ControlFlow::Break(());
            }
            found += 1;
            result = match &mut table {
                Some(table) => table.row(cells(record), &mut out),
                None => out.write_all(record),
            };
            if result.is_ok() && streams && table.is_none() {
                result = out.flush();
            }
            if result.is_err() || found == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        drop(bar);
        if let (Some(table), true, Ok(())) = (&mut table, found > 0, &result) {
            result = table.flush(&mut out);
        }
        let finished = out.finish();
        let is_closed = |result: &io::Result<()>| {
            result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if is_closed(&result) || is_closed(&finished) {
            return Ok(found > 0);
        }
        result?;
        finished?;
        report_summary(summary)?;
        Ok(found > 0)
    }
}
