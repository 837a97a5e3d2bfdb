//! Writes queued events to segments of the spool.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::CommitSender;
use crate::delivery::spool::{Segment, Spool, SpoolError};
use crate::{DroppedEvents, Line, WriteError};
use api_client::backoff::ExponentialBackoff;

/// A queued event, and the sender of its commit if a request waits.
pub(super) type Item = (Line, Option<CommitSender>);

/// Maximum number of events that are written with one system call.
const MANY: usize = 1024;
/// In batch mode, events collect for this long before they are written.
const LINGER: Duration = Duration::from_millis(5);
/// Maximum time that written events stay unsynced.
const SYNC: Duration = Duration::from_secs(1);
/// The delays after failed disk operations.
const RETRY: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_millis(50), 2.0, Duration::from_secs(1));

pub(super) struct Writer {
    pub(super) spool: Arc<Spool>,
    pub(super) lost: Arc<DroppedEvents>,
    pub(super) give_up: CancellationToken,
    /// Whether requests wait for the writer.
    pub(super) is_awaited: bool,
    pub(super) max_size: u64,
    pub(super) max_age: Duration,
}

/// The open segment.
struct Open {
    segment: Segment,
    /// When it is closed at the latest.
    until: Instant,
    /// When it must be synced; `None` if nothing was written since the last sync.
    sync: Option<Instant>,
}

impl Writer {
    /// Runs until the queue is closed and empty, then closes the segment.
    pub(super) async fn run(self, mut received: mpsc::Receiver<Item>) {
        let mut open: Option<Open> = None;
        let mut items: Vec<Item> = Vec::new();
        loop {
            let now = Instant::now();
            let until = open.as_ref().map(|open| open.until.min(open.sync.unwrap_or(open.until)));
            let count = tokio::select! {
                biased;
                () = at(until) => {
                    open = self.due(open, now.max(Instant::now())).await;
                    continue;
                }
                count = received.recv_many(&mut items, MANY) => count,
            };
            if count == 0 {
                break;
            }
            if !self.is_awaited && count < MANY {
                tokio::time::sleep(LINGER).await;
                while items.len() < MANY
                    && let Ok(item) = received.try_recv()
                {
                    items.push(item);
                }
            }
            open = self.write(open, std::mem::take(&mut items)).await;
        }
        if let Some(open) = open {
            self.close(open).await;
        }
    }

    /// Closes or syncs the segment if it is due.
    async fn due(&self, open: Option<Open>, now: Instant) -> Option<Open> {
        let mut open = open?;
        if open.until <= now {
            return self.close(open).await;
        }
        if open.sync.is_some_and(|sync| sync <= now) {
            open.sync = None;
            let spool = self.spool.clone();
            open = blocking(move || {
                if let Err(error) = spool.sync(&open.segment) {
                    tracing::warn!("cannot sync a segment of the spool: {error}");
                }
                open
            })
            .await;
        }
        Some(open)
    }

    /// Writes events, and closes segments that are large enough.
    async fn write(&self, mut open: Option<Open>, items: Vec<Item>) -> Option<Open> {
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let mut size = open.as_ref().map_or(0, |open| open.segment.bytes());
            let mut part = Vec::new();
            while let Some(next) = items.next_if(|(line, _)| {
                size == 0 && part.is_empty() || size + line.len() as u64 <= self.max_size
            }) {
                size += next.0.len() as u64;
                part.push(next);
            }
            if !part.is_empty() {
                open = self.part(open, part).await;
            }
            if items.peek().is_some()
                && let Some(full) = open.take()
            {
                open = self.close(full).await;
                if open.is_some() {
                    // The disk fails, and the shutdown has timed out.
                    self.lose(items.collect(), &"the spool cannot be written");
                    return open;
                }
            }
        }
        match open {
            Some(full) if full.segment.bytes() >= self.max_size => self.close(full).await,
            open => open,
        }
    }

    /// Appends events to the segment. Creates one if there is none.
    async fn part(&self, mut open: Option<Open>, mut items: Vec<Item>) -> Option<Open> {
        let fitting = self.spool.fitting(items.iter().map(|(line, _)| &**line));
        if fitting < items.len() {
            let rest = items.split_off(fitting);
            self.lose(rest, &self.spool.full());
            if items.is_empty() {
                return open;
            }
        }
        let size = items.iter().map(|(line, _)| line.len()).sum();
        let mut lines = Vec::with_capacity(size);
        items.iter().for_each(|(line, _)| lines.extend_from_slice(line));
        let (lines, events) = (Arc::new(lines), items.len() as u64);
        let mut backoff = RETRY;
        loop {
            let (spool, lines) = (self.spool.clone(), lines.clone());
            let segment = open.take();
            let max_age = self.max_age;
            let (now, written) =
                blocking(move || append(&spool, segment, &lines, events, max_age)).await;
            open = now;
            let Err(error) = written else {
                for (_, outcome) in items {
                    outcome.and_then(|outcome| outcome.send(Ok(())).ok());
                }
                return open;
            };
            if self.is_awaited || self.give_up.is_cancelled() {
                self.lose(items, &error);
                return open;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = self.give_up.cancelled() => {}
            }
        }
    }

    /// Closes the segment, and retries until that succeeds. If the shutdown times out, the segment
    /// is left for the next start.
    async fn close(&self, open: Open) -> Option<Open> {
        let Open { mut segment, until, sync } = open;
        let mut backoff = RETRY;
        loop {
            let spool = self.spool.clone();
            match blocking(move || spool.finish(segment)).await {
                Ok(()) => return None,
                Err((failed, _)) => segment = failed,
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = self.give_up.cancelled() => return Some(Open { segment, until, sync }),
            }
        }
    }

    fn lose(&self, items: Vec<Item>, error: &dyn std::fmt::Display) {
        self.lost.add(items.len() as u64, error);
        let error: Arc<str> = error.to_string().into();
        for (_, outcome) in items {
            let lost = WriteError::Spool(error.clone());
            outcome.and_then(|outcome| outcome.send(Err(lost)).ok());
        }
    }
}

fn append(
    spool: &Spool,
    open: Option<Open>,
    lines: &[u8],
    events: u64,
    max_age: Duration,
) -> (Option<Open>, Result<(), SpoolError>) {
    let mut open = match open {
        Some(open) => open,
        None => match spool.begin() {
            Ok(segment) => Open { segment, until: Instant::now() + max_age, sync: None },
            Err(error) => return (None, Err(error)),
        },
    };
    let appended = spool.append(&mut open.segment, lines, events);
    open.sync.get_or_insert_with(|| Instant::now() + SYNC);
    (Some(open), appended)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Runs a disk operation on a thread that may block.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
