//! Runs the threads that process pieces, and merges their results on the calling thread.

use std::collections::VecDeque;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread;

use hashbrown::DefaultHashBuilder;

use super::archive;
use super::chunks::{self, Buffer};
use super::frames::FrameReader;
use super::indexed::{self, Outcome};
use super::merge::Merge;
use super::piece::{self, Found, Rules};
use super::plan::{self, Part, Piece};
use super::queue::{Queue, Taken};
use super::source::{Format, Source};
use super::{Progress, Scan, ScanError, Summary, Visitor};
use crate::event::Event;
use crate::index::Sidecar;

/// Results are handed over once they reach this many bytes, and at the end of a piece.
const BATCH: usize = 64 << 10;
/// Bytes of results to keep in memory when a compressed file is read in reverse order. If there are
/// more, another pass over the file collects the earlier ones.
const KEPT: usize = 8 << 20;
/// Number of objects to read concurrently by default. Requests take longer than decoding, and each
/// needs a few MiB of memory.
const REQUESTS: usize = 3;
/// Bytes of a frame to inspect for a complete first line.
const FIRST_LINE: usize = 64 << 10;

pub(super) fn run<V: Visitor>(
    mut scan: Scan,
    progress: &Progress,
    make: impl Fn() -> V + Sync,
    deliver: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(Vec<V>, Summary), ScanError> {
    let visitor = make();
    let (sources, pieces, notes) = plan::plan(&mut scan, visitor.columns(), progress)?;
    let rules = Rules {
        columns: visitor.columns(),
        deferred: Mutex::default(),
        notes: Mutex::new(notes),
        needle: scan.filter.needle(),
        depends_on_stage: scan.filter.depends_on_stage(),
        filter: &scan.filter,
        stages: &scan.stages,
        hasher: DefaultHashBuilder::default(),
        reverse: scan.reverse,
    };
    let threads = match scan.threads {
        0 if sources.iter().any(Source::is_object) => REQUESTS,
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let threads = threads.clamp(1, pieces.len().max(1));
    let queue = Queue::new(pieces.len(), threads);
    let mut merge = Merge::new(&sources, visitor, deliver, scan.reverse);
    let mut visitors = Vec::new();
    let mut faults = Vec::new();
    thread::scope(|scope| {
        let work = || {
            let mut worker =
                Worker { rules: &rules, progress, visitor: make(), buffer: Buffer::default() };
            let mut faults = Vec::new();
            while let Some(taken) = queue.take() {
                let piece = &pieces[taken.piece];
                let source = &sources[piece.source];
                if let Err(error) = worker.piece(source, piece, &taken) {
                    // An unreachable store is not retried for each of its objects.
                    if source.is_object() && !is_of_content(&error) {
                        queue.stop();
                        progress.stop();
                    }
                    faults.push(ScanError::io(&source.path, error));
                }
            }
            (worker.visitor, faults)
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut flow = ControlFlow::Continue(());
        while let (Some(found), false) = (queue.next(), flow.is_break()) {
            flow = merge.accept(found);
        }
        if flow.is_continue() && !queue.is_stopped() {
            let _ = merge.finish(&rules);
        }
        queue.stop();
        progress.stop();
        for worker in workers {
            match worker.join() {
                Ok((visitor, found)) => {
                    visitors.push(visitor);
                    faults.extend(found);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let (visitor, mut summary) = merge.end();
    visitors.push(visitor);
    summary.faults = faults;
    summary.notes = rules.notes.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((visitors, summary))
}

/// Returns whether an error concerns a single object, so that others may still be readable.
fn is_of_content(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | NotFound | UnexpectedEof)
}

struct Worker<'a, V> {
    rules: &'a Rules<'a>,
    progress: &'a Progress,
    visitor: V,
    buffer: Buffer,
}

impl<V: Visitor> Worker<'_, V> {
    fn piece(&mut self, source: &Source, piece: &Piece, taken: &Taken<'_>) -> io::Result<()> {
        let index = source.index.as_ref();
        match (&piece.part, index) {
            (Part::Range(range), _) => self.text(source, piece.source, range, taken),
            (Part::Group(group), Some(index)) => {
                self.group(source, piece.source, index, *group, taken)
            }
            (Part::Indexed, _) => self.indexed(source, piece.source, taken),
            (Part::Whole, Some(index)) => self.whole(source, piece.source, index, taken),
            _ if source.format == Format::Archive => self.archive(source, piece.source, taken),
            _ => self.scan_whole(source, piece.source, taken),
        }
    }

    /// Scans a log by its index, or without it if the index cannot be used.
    fn indexed(&mut self, source: &Source, number: usize, taken: &Taken<'_>) -> io::Result<()> {
        let rules = self.rules;
        let index = match plan::open_index(source) {
            Ok(index) => index,
            Err(note) => {
                note.into_iter().for_each(|note| rules.note(note));
                return self.unindexed(source, number, taken);
            }
        };
        if plan::is_read_whole(source, &index, rules.columns, rules.filter) {
            return self.whole(source, number, &index, taken);
        }
        let groups = index.groups();
        for group in 0..groups {
            let group = if rules.reverse { groups - 1 - group } else { group };
            self.group(source, number, &index, group, taken)?;
            if self.progress.stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Scans a log segment by segment, without an index.
    fn unindexed(&mut self, source: &Source, number: usize, taken: &Taken<'_>) -> io::Result<()> {
        let Some(mut segments) = plan::segments(source) else {
            return self.scan_whole(source, number, taken);
        };
        if self.rules.reverse {
            segments.reverse();
        }
        for segment in segments {
            self.text(source, number, &segment, taken)?;
            if self.progress.stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Reads an input from its start, unless its index rules out a match.
    fn whole(
        &mut self,
        source: &Source,
        number: usize,
        index: &Sidecar,
        taken: &Taken<'_>,
    ) -> io::Result<()> {
        if indexed::may_have(self.rules, index, number)? {
            return self.scan_whole(source, number, taken);
        }
        self.progress.done.fetch_add(source.size, Ordering::Relaxed);
        Ok(())
    }

    /// Scans the row groups of a Parquet file that stores complete events.
    fn archive(&mut self, source: &Source, number: usize, taken: &Taken<'_>) -> io::Result<()> {
        let (rules, progress) = (self.rules, self.progress);
        let archive = source.archive()?;
        let groups = archive.groups();
        let batch = if rules.reverse { 0 } else { BATCH };
        for at in 0..groups {
            let group = if rules.reverse { groups - 1 - at } else { at };
            let place = archive::Group { rules, source, number, archive: &archive, group };
            let mut flow = ControlFlow::Continue(());
            let mut found = Found::new(number);
            let result = place.each(&mut self.visitor, &mut found, |found| {
                flow = hand_over(found, batch, taken, progress);
                flow
            });
            progress.done.fetch_add(archive.size(group), Ordering::Relaxed);
            let rest = hand_over(&mut found, 0, taken, progress);
            result?;
            if flow.is_break() || rest.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_whole(&mut self, source: &Source, number: usize, taken: &Taken<'_>) -> io::Result<()> {
        match self.rules.reverse {
            true => self.stream_reverse(source, number, taken),
            false => self.stream_forward(source, number, taken),
        }
    }

    /// Scans a row group of an index.
    fn group(
        &mut self,
        source: &Source,
        number: usize,
        index: &Sidecar,
        group: usize,
        taken: &Taken<'_>,
    ) -> io::Result<()> {
        let mut found = Found::new(number);
        let outcome =
            indexed::group(self.rules, source, index, group, &mut self.visitor, &mut found)?;
        match outcome {
            Outcome::Read(range) if source.format == Format::Stream => {
                self.part_of_stream(source, number, &range, taken)
            }
            Outcome::Read(range) => self.text(source, number, &range, taken),
            Outcome::Done => {
                let about = &index.description.groups[group];
                // A text search does not look at lines without the text, so it does not count
                // invalid lines.
                if about.skipped > 0 && self.rules.needle.is_none() {
                    (found.skipped, found.first_skipped) = (about.skipped, about.first_skipped);
                }
                let range = index.range(group);
                let text = range.end - range.start;
                self.progress.done.fetch_add(source.on_disk(text), Ordering::Relaxed);
                let _ = hand_over(&mut found, 0, taken, self.progress);
                Ok(())
            }
        }
    }

    /// Scans a range of a text that can only be read from its start. The range consists of whole
    /// lines.
    fn part_of_stream(
        &mut self,
        source: &Source,
        number: usize,
        range: &Range<u64>,
        taken: &Taken<'_>,
    ) -> io::Result<()> {
        let (rules, visitor, progress) = (self.rules, &mut self.visitor, self.progress);
        let batch = if rules.reverse { usize::MAX } else { BATCH };
        let mut found = Found::new(number);
        let stream = source.stream(progress)?;
        let result = chunks::of_stream(stream, &mut self.buffer, |region, offset| {
            let end = offset + region.len() as u64;
            let part = range.start.clamp(offset, end)..range.end.clamp(offset, end);
            let lines = &region[(part.start - offset) as usize..(part.end - offset) as usize];
            piece::lines(rules, source, lines, part.start, visitor, &mut found);
            match hand_over(&mut found, batch, taken, progress) {
                ControlFlow::Continue(()) if offset < range.end => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        let _ = hand_over(&mut found, 0, taken, progress);
        result
    }

    /// Scans the lines that begin within a range of a text with random access.
    fn text(
        &mut self,
        source: &Source,
        number: usize,
        range: &Range<u64>,
        taken: &Taken<'_>,
    ) -> io::Result<()> {
        let Some(file) = source.file() else { return Ok(()) };
        match &source.frames {
            None => {
                let read_at = |free: &mut [u8], at| file.read_at(free, at);
                self.range(source, number, range, false, read_at, taken)
            }
            Some(frames) => {
                let mut reader = FrameReader::new(file, frames)?;
                let is_start = self.is_start(range.start, &mut reader)?;
                let read_at = |free: &mut [u8], at| reader.read_at(free, at);
                self.range(source, number, range, is_start, read_at, taken)
            }
        }
    }

    /// Scans the lines that begin within a range.
    fn range(
        &mut self,
        source: &Source,
        index: usize,
        range: &Range<u64>,
        is_start: bool,
        read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
        taken: &Taken<'_>,
    ) -> io::Result<()> {
        let (rules, visitor, progress) = (self.rules, &mut self.visitor, self.progress);
        let batch = if rules.reverse { usize::MAX } else { BATCH };
        let mut found = Found::new(index);
        let each = |region: &[u8], offset| {
            piece::lines(rules, source, region, offset, visitor, &mut found);
            progress.done.fetch_add(source.on_disk(region.len() as u64), Ordering::Relaxed);
            hand_over(&mut found, batch, taken, progress)
        };
        let result = chunks::of_range(read_at, range.clone(), is_start, &mut self.buffer, each);
        let _ = hand_over(&mut found, 0, taken, progress);
        result
    }

    /// Returns whether a line begins at a frame boundary. Usually one does: if the first line of
    /// the frame parses as an event, the previous frame need not be decoded, because the rest of a
    /// line that began earlier does not parse as an event.
    fn is_start(&self, start: u64, reader: &mut FrameReader<'_>) -> io::Result<bool> {
        let mut text = vec![0; FIRST_LINE];
        let length = reader.read_at(&mut text, start)?;
        let line = text[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
        if start == 0 || line.len() < length && Event::parse(line).is_some() {
            return Ok(true);
        }
        let mut before = [0];
        reader.read_at(&mut before, start - 1)?;
        Ok(before == *b"\n")
    }

    /// Reads an input from its start, and calls `each` with the results after each chunk, and with
    /// `true` at the end.
    fn stream(
        &mut self,
        source: &Source,
        index: usize,
        mut each: impl FnMut(&mut Found, bool) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let (rules, visitor) = (self.rules, &mut self.visitor);
        let mut found = Found::new(index);
        let stream = source.stream(self.progress)?;
        let result = match source.format {
            Format::Document => chunks::of_document(stream, &mut self.buffer, |value, offset| {
                piece::one(rules, source, value, offset, visitor, &mut found);
                each(&mut found, false)
            }),
            _ => chunks::of_stream(stream, &mut self.buffer, |region, offset| {
                piece::lines(rules, source, region, offset, visitor, &mut found);
                each(&mut found, false)
            }),
        };
        let _ = each(&mut found, true);
        result
    }

    fn stream_forward(
        &mut self,
        source: &Source,
        index: usize,
        taken: &Taken<'_>,
    ) -> io::Result<()> {
        let progress = self.progress;
        // Lines from a pipe are delivered immediately.
        let batch = if source.is_file() { BATCH } else { 1 };
        self.stream(source, index, |found, ended| {
            hand_over(found, if ended { 0 } else { batch }, taken, progress)
        })
    }

    /// Reads the input and keeps the last results, hands them over in reverse order, and reads the
    /// input again for the results before them.
    fn stream_reverse(
        &mut self,
        source: &Source,
        index: usize,
        taken: &Taken<'_>,
    ) -> io::Result<()> {
        let mut before = u64::MAX;
        loop {
            let mut kept: VecDeque<(u64, Found)> = VecDeque::new();
            let (mut size, mut number, mut dropped) = (0, 0, false);
            let progress = self.progress;
            let result = self.stream(source, index, |found, _| {
                if number >= before || progress.stopped() {
                    return ControlFlow::Break(());
                }
                number += 1;
                if found.is_empty() {
                    return ControlFlow::Continue(());
                }
                let mut found = std::mem::replace(found, Found::new(index));
                if before < u64::MAX {
                    // Already counted in the first pass.
                    found.skipped = 0;
                }
                size += found.size();
                kept.push_back((number - 1, found));
                while size > KEPT && kept.len() > 1 && source.is_file() {
                    if let Some((_, oldest)) = kept.pop_front() {
                        size -= oldest.size();
                        dropped = true;
                    }
                }
                ControlFlow::Continue(())
            });
            before = kept.front().map_or(0, |(number, _)| *number);
            while let Some((_, found)) = kept.pop_back() {
                if !taken.push(found) {
                    return Ok(());
                }
            }
            result?;
            if !dropped {
                return Ok(());
            }
        }
    }
}

/// Hands over the results if they have at least `least` bytes.
fn hand_over(
    found: &mut Found,
    least: usize,
    taken: &Taken<'_>,
    progress: &Progress,
) -> ControlFlow<()> {
    let more = progress.stopped()
        || found.is_empty()
        || found.size() < least
        || taken.push(std::mem::replace(found, Found::new(found.source)));
    if more && !progress.stopped() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
