//! Splits inputs into pieces of work.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::process::{Resource, Rlimit};

use super::source::{Format, Source};
use super::{Progress, Scan, ScanError};
use crate::filter::Filter;
use crate::index::{self, Columns, IndexError, Sidecar};
use crate::input::names::{LogName, Stamp};

/// Bytes per segment: large enough that scheduling costs are negligible, small enough that little
/// is read beyond a limit.
const SEGMENT: u64 = 4 << 20;
/// With more inputs than this, the default limit of open files may be too low.
const MANY: usize = 200;
/// With more inputs than this, each thread opens the index files it uses and closes them
/// afterwards.
const OPENED: usize = 16;
/// Index files of logs larger than this many bytes are opened in advance anyway, because several
/// threads share them.
const SHARED: u64 = 256 << 20;

/// The unit of work of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) source: usize,
    pub(super) part: Part,
}

/// A part of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The whole input.
    Whole,
    /// A byte range of the decompressed text.
    Range(Range<u64>),
    /// The events of one row group of the index.
    Group(usize),
    /// All row groups of the index, which is not open yet.
    Indexed,
}

/// The inputs, their pieces in delivery order, and notes for the user.
pub(super) type Plan = (Vec<Source>, Vec<Piece>, Vec<String>);

/// Plans how to read the inputs.
///
/// `columns` are the index columns that are sufficient for the visitors; `None` if events must be
/// read from the log.
pub(super) fn plan(
    scan: &mut Scan,
    columns: Option<Columns>,
    progress: &Progress,
) -> Result<Plan, ScanError> {
    let mut sources = Vec::new();
    let mut pieces = Vec::new();
    let mut notes = Notes::default();
    if scan.inputs.len() > MANY {
        // Each log needs two file descriptors: the log and its index.
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // A failure can be ignored: opening a file then reports the cause.
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
    // An index is of no use if the filter selects nothing by columns and the visitors read all
    // events from the log.
    let index = scan.index && (columns.is_some() || scan.filter.columns() != Columns::default());
    let opens = scan.inputs.len() <= OPENED;
    for input in std::mem::take(&mut scan.inputs) {
        let mut source = Source::plan(input)?;
        progress.total.fetch_add(source.size, Ordering::Relaxed);
        let number = sources.len();
        let may_have_index = index
            && source.size > 0
            && source.file().is_some()
            && !matches!(source.format, Format::Document | Format::Archive);
        let mut push = |part| pieces.push(Piece { source: number, part });
        if may_have_index && !opens && source.size <= SHARED && notes.exists(&source) {
            push(Part::Indexed);
            sources.push(source);
            continue;
        }
        if may_have_index && (opens || source.size > SHARED) {
            source.index = notes.open(&source);
        }
        match (&source.index, source.format) {
            (Some(index), _) if is_read_whole(&source, index, columns, &scan.filter) => {
                push(Part::Whole);
            }
            (Some(index), _) => (0..index.groups()).for_each(|group| push(Part::Group(group))),
            (None, _) => match segments(&source) {
                Some(segments) => segments.into_iter().for_each(|range| push(Part::Range(range))),
                None => push(Part::Whole),
            },
        }
        sources.push(source);
    }
    if scan.reverse {
        pieces.reverse();
    }
    Ok((sources, pieces, notes.finish()))
}

/// Returns the ranges of the text that threads can process in parallel, or `None` if the text can
/// only be read from its start.
pub(super) fn segments(source: &Source) -> Option<Vec<Range<u64>>> {
    match (source.format, &source.frames) {
        (Format::Lines, _) => {
            let starts = (0..source.size).step_by(SEGMENT as usize);
            Some(starts.map(|start| start..source.size.min(start + SEGMENT)).collect())
        }
        (Format::Frames, Some(frames)) => Some(frames.pieces(SEGMENT)),
        _ => None,
    }
}

/// Returns whether a log with an index is read from its start anyway, because it is compressed as
/// one stream without random access.
pub(super) fn is_read_whole(
    source: &Source,
    index: &Sidecar,
    columns: Option<Columns>,
    filter: &Filter,
) -> bool {
    source.format == Format::Stream
        && (columns.is_none()
            || filter.has_condition()
            || !(0..index.groups()).all(|group| index.is_exact(group)))
}

/// Opens the index file of a log. If it cannot be used, returns a note for the user, or `None` if
/// the reason is expected.
pub(super) fn open_index(source: &Source) -> Result<Sidecar, Option<String>> {
    let Some(file) = source.file() else { return Err(None) };
    match Sidecar::open(&source.path, file) {
        // An index without row groups does not record the lines that are not events.
        Ok(index) if index.groups() == 0 && index.description.skipped > 0 => Err(None),
        Ok(index) => Ok(index),
        // The index of a log that is still being written becomes stale as the log grows.
        Err(IndexError::Missing | IndexError::Stale(_)) if is_live(&source.path) => Err(None),
        Err(error) => Err(Some(format!(
            "{}: the index file is not used: {error}; log index writes it again",
            source.path.display()
        ))),
    }
}

fn is_live(path: &Path) -> bool {
    LogName::parse(path.file_name().unwrap_or_default()).stamp == Stamp::Live
}

/// Collects notes about index files.
#[derive(Default)]
struct Notes {
    notes: Vec<String>,
    used: usize,
    missing: Vec<PathBuf>,
}

impl Notes {
    /// Returns whether a log has an index file, which may be stale.
    fn exists(&mut self, source: &Source) -> bool {
        if index::path(&source.path).exists() {
            self.used += 1;
            return true;
        }
        if !is_live(&source.path) {
            self.missing.push(source.path.clone());
        }
        false
    }

    fn open(&mut self, source: &Source) -> Option<Sidecar> {
        if !self.exists(source) {
            return None;
        }
        match open_index(source) {
            Ok(index) => return Some(index),
            Err(note) => self.notes.extend(note),
        }
        self.used -= 1;
        None
    }

    fn finish(mut self) -> Vec<String> {
        // A missing index file is reported only if other logs have one.
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
