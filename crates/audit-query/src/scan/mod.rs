//! Goes through logs and hands over the events that a filter wants.
//!
//! Plain files, and zstd files with a seek table, are cut into segments that threads share; other
//! compressed files are read by one thread each. What a thread finds in a piece goes to the caller
//! in the order of the log (or the reverse). Memory is bounded: a buffer a thread, a queue of
//! limited size, and the requests that have begun and not ended (see [`Stages`]).

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

/// Which of a request's events count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stages {
    /// One event a request: its last. An event after which others are expected (`RequestReceived`,
    /// `ResponseStarted`) counts only if none follows in the log; such events come at the end.
    #[default]
    Last,
    /// All events.
    All,
    /// Events of these stages.
    Only(Vec<String>),
}

/// What to go through, and how.
#[derive(Debug)]
pub struct Scan {
    /// Files, in the order in which their events are wanted.
    pub inputs: Vec<Input>,
    /// The events wanted.
    pub filter: Filter,
    /// Which of a request's events count.
    pub stages: Stages,
    /// The latest first.
    pub reverse: bool,
    /// How many threads read and parse; 0 is one for each processor.
    pub threads: usize,
    /// Use the index files beside closed logs.
    pub index: bool,
}

/// Receives the events of one thread.
pub trait Visitor: Send {
    /// Called for each event wanted, in the order of the log within one piece of it. What is pushed
    /// to `records` is delivered in the order of the whole log.
    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records);

    /// The columns of an index that are enough to visit an event. `None`: it is read from the log.
    fn columns(&self) -> Option<Columns> {
        None
    }

    /// How the visitor counts rows of an index by their values, without visiting each. `None`: it
    /// visits each event.
    fn counting(&self) -> Option<Counting> {
        None
    }

    /// Whether an event is one that the visitor counts; the event has the columns of
    /// [`Counting::chosen_by`] only.
    fn chooses(&self, _: &Event<'_>) -> bool {
        true
    }

    /// The class by which the visitor counts all rows with the values of this event. `None`: it
    /// does not count them. The event has no times, unless [`Counting::times`] wants them.
    fn class(&mut self, _: &Event<'_>, _: Place<'_>) -> Option<u32> {
        None
    }

    /// Counts a row of a class.
    fn count(&mut self, _: u32, _: Numbers) {}
}

/// How a visitor counts rows of an index.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting {
    /// The columns that [`Visitor::chooses`] looks at.
    pub(crate) chosen_by: Columns,
    pub(crate) times: Times,
    /// [`Numbers::received`] is wanted although there is a [`Numbers::stage_time`].
    pub(crate) received: bool,
}

/// What a class depends on of the times of its events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Times {
    /// Nothing.
    #[default]
    None,
    /// The hour of the event.
    Hour,
    /// The exact times of the event and of its request.
    Exact,
}

/// The numbers of a row of an index, as far as its columns were wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Numbers {
    /// When the stage was reached, in microseconds since 1970.
    pub(crate) stage_time: Option<i64>,
    /// When the request arrived.
    pub(crate) received: Option<i64>,
    /// Length of the event in the log, without its newline.
    pub(crate) length: u64,
}

impl Numbers {
    /// As [`Event::time`].
    #[inline]
    pub(crate) fn time(&self) -> Option<i64> {
        self.stage_time.or(self.received)
    }
}

/// Where an event is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file.
    pub path: &'a Path,
    /// The first byte of the event within the file, decompressed.
    pub offset: u64,
}

/// What visitors hand over, one record an event or none.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    /// Where each record ends, and the offset of its event.
    ends: Vec<(usize, u64)>,
    offset: u64,
}

impl Records {
    /// Appends a record, which `write` writes.
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

/// What a scan has gone through.
#[derive(Debug, Default)]
pub struct Summary {
    /// Lines of a file that are not events, and the offset of the first.
    pub skipped: Vec<Skipped>,
    /// Files that end in the middle, or cannot be read to their end.
    pub faults: Vec<ScanError>,
    /// Requests that were taken for unfinished to save memory, see [`Stages::Last`].
    pub assumed_unfinished: u64,
    /// Index files that could not be used, and why.
    pub notes: Vec<String>,
}

/// Lines of one file that are not audit events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: std::path::PathBuf,
    /// How many.
    pub lines: u64,
    /// Where the first begins, in bytes, decompressed; in a Parquet file, its
    /// row times a constant.
    pub first: u64,
    /// The last of them is the end of the file, without a newline.
    pub torn: bool,
}

impl Skipped {
    /// Where the first is.
    pub(crate) fn place(&self) -> String {
        match self.path.extension().is_some_and(|extension| extension == "parquet") {
            true => format!("in row {}", self.first / archive::ROW + 1),
            false => format!("at byte {}", self.first),
        }
    }
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The operating system, or a decoder, says so.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// What it says.
        error: std::io::Error,
    },
}

/// How far a scan is, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes on disk, of all files.
    pub total: AtomicU64,
    /// Bytes of plain files read, and of compressed files as they are finished.
    pub done: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Ends the scan early.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Scan {
    /// Goes through the log with one visitor a thread, made by `make`. `deliver` gets the records
    /// in order, until it breaks. Returns all visitors, for what they have counted to be added up.
    ///
    /// # Errors
    /// A file cannot be opened. Faults found while reading are in the summary; what was read before
    /// them counts.
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
