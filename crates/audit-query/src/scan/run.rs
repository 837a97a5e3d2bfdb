//! Threads that read pieces, and the one that puts together what they find.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::thread;

use hashbrown::DefaultHashBuilder;

use super::chunks::{self, Buffer};
use super::merge::Merge;
use super::piece::{self, Found, Rules};
use super::plan::{self, Piece};
use super::queue::{Queue, Taken};
use super::source::{Format, Source};
use super::{Progress, Scan, ScanError, Summary, Visitor};

/// What is found is handed over when it is this long, and at the end of a piece.
const BATCH: usize = 64 << 10;
/// What is kept of a compressed file that is read in reverse order; the rest is read again.
const KEPT: usize = 8 << 20;

pub(super) fn run<V: Visitor>(
    mut scan: Scan,
    progress: &Progress,
    make: impl Fn() -> V + Sync,
    deliver: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(Vec<V>, Summary), ScanError> {
    let (sources, pieces) = plan::plan(&mut scan, progress)?;
    let rules = Rules {
        needle: scan.filter.needle(),
        depends_on_stage: scan.filter.depends_on_stage(),
        filter: &scan.filter,
        stages: &scan.stages,
        hasher: DefaultHashBuilder::default(),
        reverse: scan.reverse,
    };
    let threads = match scan.threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let threads = threads.clamp(1, pieces.len().max(1));
    let queue = Queue::new(pieces.len(), threads);
    let mut merge = Merge::new(&sources, make(), deliver, scan.reverse);
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
        if flow.is_continue() {
            let _ = merge.finish();
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
    Ok((visitors, summary))
}

struct Worker<'a, V> {
    rules: &'a Rules<'a>,
    progress: &'a Progress,
    visitor: V,
    buffer: Buffer,
}

impl<V: Visitor> Worker<'_, V> {
    fn piece(&mut self, source: &Source, piece: &Piece, taken: &Taken<'_>) -> io::Result<()> {
        match (&piece.range, source.plain()) {
            (Some(range), Some(file)) => {
                let (rules, visitor, progress) = (self.rules, &mut self.visitor, self.progress);
                let mut found = Found::new(piece.source);
                let result =
                    chunks::of_range(file, range.clone(), &mut self.buffer, |region, offset| {
                        piece::lines(rules, source, region, offset, visitor, &mut found);
                        progress.done.fetch_add(region.len() as u64, Ordering::Relaxed);
                        hand_over(
                            &mut found,
                            if rules.reverse { usize::MAX } else { BATCH },
                            taken,
                            progress,
                        )
                    });
                let _ = hand_over(&mut found, 0, taken, progress);
                result
            }
            _ if self.rules.reverse => self.stream_reverse(source, piece.source, taken),
            _ => self.stream_forward(source, piece.source, taken),
        }
    }

    /// Reads an input from its start, and calls `each` with what was found, after each part of it and
    /// at the end.
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
        // From a pipe, lines are shown as they come.
        let batch = if source.is_file() { BATCH } else { 1 };
        self.stream(source, index, |found, ended| {
            hand_over(found, if ended { 0 } else { batch }, taken, progress)
        })
    }

    /// Keeps what was found last, hands it over from its end, and reads again for what was before.
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
                    // Counted when it was read first.
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

/// Hands over what was found if it is at least `least` bytes.
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
