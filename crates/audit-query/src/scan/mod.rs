//! Scans logs and delivers the events that match a filter.
//!
//! Plain files, and zstd files with a seek table, are split into segments that threads process in
//! parallel. Each other compressed file is read by one thread. The results of a piece are delivered
//! in log order, or in reverse log order. Memory is bounded: one buffer per thread, a queue of
//! limited size, and the requests that have begun but not ended (see [`Stages`]).

mod archive;
pub(crate) mod chunks;
mod counted;
mod ended;
pub(crate) mod frames;
mod indexed;
mod merge;
mod piece;
mod plan;
mod queue;
mod run;
mod selection;
pub(crate) mod source;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::event::Event;
use crate::filter::Filter;
use crate::index::Columns;
use crate::input::Input;

/// Selects which events of a request count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stages {
    /// The last event of each request. An event of a stage that is not final (`RequestReceived`,
    /// `ResponseStarted`) counts only if no later event of the request follows in the log. Such
    /// events are delivered last.
    #[default]
    Last,
    /// All events.
    All,
    /// Events of these stages.
    Only(Vec<String>),
}

/// The inputs and options of a scan.
#[derive(Debug)]
pub struct Scan {
    /// Files, in the order in which to deliver their events.
    pub inputs: Vec<Input>,
    /// Selects the events to deliver.
    pub filter: Filter,
    /// Selects which events of a request count.
    pub stages: Stages,
    /// Delivers the latest event first.
    pub reverse: bool,
    /// Number of threads that read and parse. 0 means one per CPU, or a small fixed number if an
    /// input is in object storage.
    pub threads: usize,
    /// Uses the index files next to closed log files.
    pub index: bool,
}

/// Receives the events of one thread.
pub trait Visitor: Send {
    /// Visits a matching event. Called in log order within one piece of the log. Records pushed to
    /// `records` are delivered in the order of the whole log.
    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records);

    /// Returns the index columns that are sufficient to visit an event, or `None` if the event must
    /// be read from the log.
    fn columns(&self) -> Option<Columns> {
        None
    }

    /// Describes how the visitor counts index rows by their values without visiting each row.
    /// Returns `None` if it must visit each event.
    fn counting(&self) -> Option<Counting> {
        None
    }

    /// Returns whether the visitor counts this event. The event only has the columns in
    /// [`Counting::chosen_by`].
    fn chooses(&self, _: &Event<'_>) -> bool {
        true
    }

    /// Returns the class under which the visitor counts all rows with the values of this event, or
    /// `None` if it does not count them. The event has no times unless [`Counting::times`] requests
    /// them.
    fn class(&mut self, _: &Event<'_>, _: Place<'_>) -> Option<u32> {
        None
    }

    /// Counts one row of a class.
    fn count(&mut self, _: u32, _: Numbers) {}
}

/// How a visitor counts index rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting {
    /// The columns that [`Visitor::chooses`] reads.
    pub(crate) chosen_by: Columns,
    pub(crate) times: Times,
    /// Requests [`Numbers::received`] even for rows that have a [`Numbers::stage_time`].
    pub(crate) received: bool,
}

/// The times of an event on which its class depends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Times {
    /// None.
    #[default]
    None,
    /// The hour of the event.
    Hour,
    /// The exact times of the event and of its request.
    Exact,
}

/// Numbers of an index row. Only requested columns are set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Numbers {
    /// The `stageTimestamp`, in microseconds since 1970.
    pub(crate) stage_time: Option<i64>,
    /// The `requestReceivedTimestamp`, in microseconds since 1970.
    pub(crate) received: Option<i64>,
    /// Length of the event in the log in bytes, without its newline.
    pub(crate) length: u64,
}

impl Numbers {
    /// Returns the time of the event, like [`Event::time`].
    #[inline]
    pub(crate) fn time(&self) -> Option<i64> {
        self.stage_time.or(self.received)
    }
}

/// The location of an event.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file.
    pub path: &'a Path,
    /// The offset of the event's first byte in the decompressed file.
    pub offset: u64,
}

/// The output of visitors: at most one record per event.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    /// The end of each record in `bytes`, and the offset of its event.
    ends: Vec<(usize, u64)>,
    offset: u64,
}

impl Records {
    /// Appends the record that `write` writes.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push((self.bytes.len(), self.offset));
    }

    fn get(&self, index: usize) -> (&[u8], u64) {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].0);
        let (end, offset) = self.ends[index];
        (&self.bytes[start..end], offset)
    }
}

/// The result of a scan.
#[derive(Debug, Default)]
pub struct Summary {
    /// For each file with lines that are not events: their number and the offset of the first.
    pub skipped: Vec<Skipped>,
    /// Files that are incomplete or cannot be read to their end.
    pub faults: Vec<ScanError>,
    /// Number of requests that were treated as unfinished to limit memory, see [`Stages::Last`].
    pub assumed_unfinished: u64,
    /// Index files that could not be used, with the reason.
    pub notes: Vec<String>,
}

/// Lines of one file that are not audit events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: std::path::PathBuf,
    /// Number of lines.
    pub lines: u64,
    /// Offset of the first such line in the decompressed file, in bytes. In a Parquet file: its row
    /// number times a constant.
    pub first: u64,
    /// The last such line is the end of the file and lacks its newline, so it is probably partial.
    pub torn: bool,
}

impl Skipped {
    /// Returns a readable position of the first line.
    pub(crate) fn place(&self) -> String {
        match self.path.extension().is_some_and(|extension| extension == "parquet") {
            true => format!("in row {}", self.first / archive::ROW + 1),
            false => format!("at byte {}", self.first),
        }
    }
}

/// An error while reading a log.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The operating system or a decoder returned an error.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        error: std::io::Error,
    },
}

/// The progress of a scan, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of all files on disk.
    pub total: AtomicU64,
    /// Bytes of plain files that were read, and of compressed files that were decoded.
    pub done: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Stops the scan early.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Scan {
    /// Scans the log with one visitor per thread, created by `make`. Passes the records to
    /// `deliver` in order, until `deliver` returns `Break`. Returns all visitors, so that the
    /// caller can sum up their counts.
    ///
    /// # Errors
    /// Returns an error if a file cannot be opened. Errors while reading are in
    /// [`Summary::faults`]; events read before such an error count.
    pub fn run<V: Visitor>(
        self,
        progress: &Progress,
        make: impl Fn() -> V + Sync,
        deliver: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(Vec<V>, Summary), ScanError> {
        run::run(self, progress, make, deliver)
    }
}

/// Calls `each` with each line of one file, decompressed.
pub(crate) fn each_line(path: &Path, mut each: impl FnMut(&[u8])) -> Result<(), ScanError> {
    let source = source::Source::plan(Input::file(path))?;
    let progress = Progress::default();
    let lines = |stream| {
        chunks::of_stream(stream, &mut chunks::Buffer::default(), |region, _| {
            region.split_inclusive(|byte| *byte == b'\n').for_each(&mut each);
            ControlFlow::Continue(())
        })
    };
    source.stream(&progress).and_then(lines).map_err(|error| ScanError::io(path, error))
}

#[cfg(test)]
mod tests;
