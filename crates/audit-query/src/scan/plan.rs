//! Cuts inputs into pieces of work.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::process::{Resource, Rlimit};

use super::source::{Format, Source};
use super::{Progress, Scan, ScanError};
use crate::index::{Columns, IndexError, Sidecar};
use crate::input::names::{LogName, Stamp};

/// Large enough that handing it out costs nothing, small enough that little is read beyond a limit.
const SEGMENT: u64 = 4 << 20;
/// So many files may be more than a process may open by default.
const MANY: usize = 200;

/// What one thread does at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) source: usize,
    pub(super) part: Part,
}

/// A part of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// Bytes of text.
    Range(Range<u64>),
    /// The events of a row group of its index.
    Group(usize),
}

/// The inputs and their pieces, in the order in which events are wanted, and notes for the user.
pub(super) type Plan = (Vec<Source>, Vec<Piece>, Vec<String>);

/// Plans how a log is read.
///
/// `columns`: those of an index that are enough for what is done with events.
pub(super) fn plan(
    scan: &mut Scan,
    columns: Option<Columns>,
    progress: &Progress,
) -> Result<Plan, ScanError> {
    let mut sources = Vec::new();
    let mut pieces = Vec::new();
    let mut notes = Notes::default();
    // Where nothing is chosen by columns, and all events are read from the log, an index is of no
    // use.
    if scan.inputs.len() > MANY {
        // A log and its index are open each.
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // No matter if not: opening a file says why.
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
    let index = scan.index && (columns.is_some() || scan.filter.columns() != Columns::default());
    for input in std::mem::take(&mut scan.inputs) {
        let mut source = Source::plan(input)?;
        progress.total.fetch_add(source.size, Ordering::Relaxed);
        let number = sources.len();
        if index && source.size > 0 && source.format != Format::Document {
            source.index = notes.open(&source);
        }
        let mut push = |part| pieces.push(Piece { source: number, part });
        match (&source.index, source.format) {
            // What is compressed as a whole cannot be read from in between.
            (Some(index), Format::Stream)
                if columns.is_none()
                    || scan.filter.has_condition()
                    || !(0..index.groups()).all(|group| index.is_exact(group)) =>
            {
                push(Part::Whole);
            }
            (Some(index), _) => (0..index.groups()).for_each(|group| push(Part::Group(group))),
            (None, Format::Lines) => {
                let mut start = 0;
                while start < source.size {
                    let end = source.size.min(start + SEGMENT);
                    push(Part::Range(start..end));
                    start = end;
                }
            }
            (None, Format::Frames) => {
                let frames = source.frames.iter().flat_map(|frames| frames.pieces(SEGMENT));
                frames.for_each(|range| push(Part::Range(range)));
            }
            (None, Format::Stream | Format::Document) => push(Part::Whole),
        }
        sources.push(source);
    }
    if scan.reverse {
        pieces.reverse();
    }
    Ok((sources, pieces, notes.finish()))
}

/// Collects what there is to say about index files.
#[derive(Default)]
struct Notes {
    notes: Vec<String>,
    used: usize,
    missing: Vec<PathBuf>,
}

impl Notes {
    fn open(&mut self, source: &Source) -> Option<Sidecar> {
        let file = source.file()?;
        let is_live =
            |path: &Path| LogName::parse(path.file_name().unwrap_or_default()).stamp == Stamp::Live;
        match Sidecar::open(&source.path, file) {
            // Without events, it tells nothing of the lines that are not.
            Ok(index) if index.groups() == 0 && index.description.skipped > 0 => {}
            Ok(index) => {
                self.used += 1;
                return Some(index);
            }
            // A log that is written to outgrows an index.
            Err(IndexError::Missing | IndexError::Stale(_)) if is_live(&source.path) => {}
            Err(IndexError::Missing) => self.missing.push(source.path.clone()),
            Err(error) => self.notes.push(format!(
                "{}: the index file is not used: {error}; log index writes it again",
                source.path.display()
            )),
        }
        None
    }

    fn finish(mut self) -> Vec<String> {
        // Who has no index files does not miss one.
        if let (Some(first), true) = (self.missing.first(), self.used > 0) {
            let more = match self.missing.len() {
                1 => String::new(),
                count => format!(" and {} other files", count - 1),
            };
            self.notes.push(format!(
                "{}{more}: no index file, the log is read instead; log index writes one",
                first.display()
            ));
        }
        self.notes
    }
}
