//! Cuts inputs into pieces of work.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::source::{Format, Source};
use super::{Progress, Scan, ScanError};

/// Large enough that handing it out costs nothing, small enough that little is read beyond a limit.
const SEGMENT: u64 = 4 << 20;

/// What one thread does at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) source: usize,
    /// Bytes of a plain file; `None` for all of an input.
    pub(super) range: Option<Range<u64>>,
}

/// Returns the inputs and their pieces, in the order in which events are wanted.
pub(super) fn plan(
    scan: &mut Scan,
    progress: &Progress,
) -> Result<(Vec<Source>, Vec<Piece>), ScanError> {
    let mut sources = Vec::new();
    let mut pieces = Vec::new();
    for input in std::mem::take(&mut scan.inputs) {
        let source = Source::plan(input)?;
        progress.total.fetch_add(source.size, Ordering::Relaxed);
        let index = sources.len();
        match source.format {
            Format::Lines => {
                let mut start = 0;
                while start < source.size {
                    let end = source.size.min(start + SEGMENT);
                    pieces.push(Piece { source: index, range: Some(start..end) });
                    start = end;
                }
            }
            Format::Stream | Format::Document => pieces.push(Piece { source: index, range: None }),
        }
        sources.push(source);
    }
    if scan.reverse {
        pieces.reverse();
    }
    Ok((sources, pieces))
}
