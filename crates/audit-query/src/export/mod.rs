//! Exports events to a directory tree by cluster, date, and hour, in the layout of Hive that
//! DuckDB, ClickHouse, Trino, and Spark read:
//! `cluster=prod/date=2026-11-23/hour=04/events-0.parquet`.
//!
//! Files are written under hidden names, which those programs ignore, and renamed when all of them
//! are complete. Existing files are not replaced unless the caller requests it.

mod archive;
mod text;

pub use self::archive::{ArchiveWriter, Hour};

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::event::Event;
use crate::index::{Column, IndexError, Table, WITH_EVENTS};

/// Maximum number of partitions that are open at once. A later event of a closed partition starts
/// another file.
const OPEN: usize = 3;
/// Hive's name for the partition of events without a value.
const NONE: &str = "__HIVE_DEFAULT_PARTITION__";

/// The format of exported files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Parquet, compressed with zstd
    #[default]
    Parquet,
    /// Comma-separated values with a header (RFC 4180); lists and maps are JSON
    Csv,
    /// The events as they stand in the log, one a line
    Ndjson,
}

/// The values by which files are partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The value of --cluster
    Cluster,
    /// The UTC date of the event
    Date,
    /// The UTC hour of the event
    Hour,
    /// No folders
    None,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Cluster => "cluster",
            Part::Date => "date",
            Part::Hour => "hour",
            Part::None => "none",
        }
    }
}

/// How much of each event is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// All attributes, without the bodies.
    Attributes,
    /// The attributes and the bodies.
    Bodies,
    /// The attributes and the complete event as it is in the log, including its bodies.
    Events,
}

/// The reason why an export failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("{0}: is there already; --overwrite replaces it")]
    Exists(String),
    #[error("{0}: {1}")]
    Io(String, io::Error),
    #[error("{0}: {1}")]
    Parquet(String, IndexError),
}

impl ExportError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
        let path = path.display().to_string();
        move |error| ExportError::Io(path, error)
    }
}

/// Writes events to the files of their partitions. Removes unfinished files on drop.
pub(crate) struct Writer {
    folder: PathBuf,
    format: Format,
    parts: Vec<Part>,
    cluster: String,
    columns: Vec<Column>,
    bodies: bool,
    overwrite: bool,
    /// The open partitions; the most recently used one is last.
    open: Vec<Partition>,
    finished: Vec<Finished>,
}

struct Partition {
    /// The start (inclusive) and the end (exclusive) of the partition in microseconds since 1970.
    from: i64,
    to: i64,
    out: Out,
    file: Finished,
}

enum Out {
    Parquet(Box<Table<BufWriter<File>>>),
    Text(BufWriter<File>),
}

/// A complete file under its hidden name.
struct Finished {
    hidden: PathBuf,
    path: PathBuf,
    events: u64,
}

const HOUR: i64 = 3_600_000_000;

impl Writer {
    pub(crate) fn new(
        folder: &Path,
        format: Format,
        parts: Vec<Part>,
        cluster: String,
        content: Content,
        overwrite: bool,
    ) -> Writer {
        let mut columns = Column::EXPORT.to_vec();
        match content {
            Content::Attributes => {}
            Content::Bodies => columns.extend(Column::BODIES),
            Content::Events => columns.clone_from(&WITH_EVENTS),
        }
        let bodies = content != Content::Attributes;
        let (open, finished) = (Vec::new(), Vec::new());
        let folder = folder.to_owned();
        Writer { folder, format, parts, cluster, columns, bodies, overwrite, open, finished }
    }

    /// Appends an event to the file of its partition.
    pub(crate) fn write(&mut self, event: &Event<'_>) -> Result<(), ExportError> {
        // Events without a time are in a partition before all others.
        let time = event.time().unwrap_or(i64::MIN);
        let is_in = |partition: &Partition| (partition.from..partition.to).contains(&time);
        let at = match self.open.iter().rposition(is_in) {
            Some(at) => at,
            None => {
                if self.open.len() == OPEN {
                    let oldest = self.open.remove(0);
                    self.finished.push(close(oldest)?);
                }
                self.open(time)?;
                self.open.len() - 1
            }
        };
        let last = self.open.len() - 1;
        self.open.swap(at, last);
        let partition = &mut self.open[last];
        partition.file.events += 1;
        match &mut partition.out {
            Out::Parquet(table) => {
                let problem = |error| {
                    ExportError::Parquet(partition.file.hidden.display().to_string(), error)
                };
                table.make_room().map_err(problem)?;
                table.push(event, 0);
                Ok(())
            }
            Out::Text(out) => {
                let result = match self.format {
                    Format::Csv => text::csv(&self.columns, event, out),
                    _ => text::ndjson(self.bodies, event, out),
                };
                result.map_err(ExportError::io(&partition.file.hidden))
            }
        }
    }

    fn open(&mut self, time: i64) -> Result<(), ExportError> {
        let mut folder = self.folder.clone();
        for part in &self.parts {
            let value = match part {
                Part::Cluster => encoded(&self.cluster),
                Part::Date => of_time(time, 0..10),
                Part::Hour => of_time(time, 11..13),
                Part::None => continue,
            };
            folder.push(format!("{}={value}", part.name()));
        }
        fs::create_dir_all(&folder).map_err(ExportError::io(&folder))?;
        let extension = match self.format {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
        };
        let all = || self.finished.iter().chain(self.open.iter().map(|partition| &partition.file));
        let mut number = 0;
        let (path, hidden) = loop {
            let path = folder.join(format!("events-{number}.{extension}"));
            if all().all(|file| file.path != path) {
                break (path, folder.join(format!(".events-{number}.{extension}.tmp")));
            }
            number += 1;
        };
        if !self.overwrite && path.symlink_metadata().is_ok() {
            return Err(ExportError::Exists(path.display().to_string()));
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(&hidden);
        let out = BufWriter::new(file.map_err(ExportError::io(&hidden))?);
        let out =
            match self.format {
                Format::Parquet => {
                    let table = Table::new(out, &self.columns);
                    Out::Parquet(Box::new(table.map_err(|error| {
                        ExportError::Parquet(hidden.display().to_string(), error)
                    })?))
                }
                Format::Csv => {
                    let mut out = out;
                    text::header(&self.columns, &mut out).map_err(ExportError::io(&hidden))?;
                    Out::Text(out)
                }
                Format::Ndjson => Out::Text(out),
            };
        let (from, to) = self.bounds(time);
        self.open.push(Partition { from, to, out, file: Finished { hidden, path, events: 0 } });
        Ok(())
    }

    /// Returns the start and the end of the partition that contains `time`.
    fn bounds(&self, time: i64) -> (i64, i64) {
        let has = |part| self.parts.contains(&part);
        if !has(Part::Date) && !has(Part::Hour) {
            return (i64::MIN, i64::MAX);
        }
        if time == i64::MIN {
            return (i64::MIN, i64::MIN + 1);
        }
        // Partitioned by hour alone, the same hour of another day is another file of the same
        // directory.
        let length = if has(Part::Hour) { HOUR } else { 24 * HOUR };
        let from = time.div_euclid(length) * length;
        (from, from + length)
    }

    /// Completes all files and renames them. Returns their paths and numbers of events.
    pub(crate) fn finish(mut self) -> Result<Vec<(PathBuf, u64)>, ExportError> {
        for partition in std::mem::take(&mut self.open) {
            let finished = close(partition)?;
            self.finished.push(finished);
        }
        self.finished.sort_by(|a, b| a.path.cmp(&b.path));
        let mut files = Vec::new();
        for Finished { hidden, path, events } in &self.finished {
            // Unlike a rename, a link fails if the name exists, even if a concurrent process has
            // just created it.
            let named = match self.overwrite {
                true => fs::rename(hidden, path),
                false => fs::hard_link(hidden, path).and_then(|()| fs::remove_file(hidden)),
            };
            named.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => ExportError::Exists(path.display().to_string()),
                _ => ExportError::Io(path.display().to_string(), error),
            })?;
            files.push((path.clone(), *events));
        }
        Ok(files)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let open = self.open.iter().map(|partition| &partition.file);
        for file in self.finished.iter().chain(open) {
            let _ = fs::remove_file(&file.hidden);
        }
    }
}

fn close(partition: Partition) -> Result<Finished, ExportError> {
    let Partition { out, file, .. } = partition;
    let result = (|| {
        let out = match out {
            Out::Parquet(mut table) => {
                table.finish_rows()?;
                table.writer.into_inner()?
            }
            Out::Text(out) => out,
        };
        out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        Ok::<_, IndexError>(())
    })();
    match result {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = fs::remove_file(&file.hidden);
            Err(ExportError::Parquet(file.hidden.display().to_string(), error))
        }
    }
}

/// Returns a part of the text of a time.
fn of_time(time: i64, part: std::ops::Range<usize>) -> String {
    match jiff::Timestamp::from_microsecond(time) {
        Ok(time) => format!("{time:.0}").get(part).unwrap_or(NONE).to_owned(),
        Err(_) => NONE.to_owned(),
    }
}

/// Returns a value as a path component, with all special characters as `%XX`, like Hive.
fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
