//! Keeps batches on disk until the destination has accepted them.
//!
//! Each batch is one file ([`name`]), which is written under another name first and then renamed,
//! so that it is always complete. A batch is written as a whole, or as a segment that grows event
//! by event ([`segment`]). The oldest batch is sent until it is accepted, then deleted, so that
//! each event arrives at least once, and in order. Only one process may use a directory
//! ([`directory`]).
//!
//! # When the disk fails
//! A batch that cannot be written waits in memory and is retried. Meanwhile events collect in the
//! queue, and are counted as lost when it overflows. A batch that cannot be read is retried, too.
//! It only counts as lost if its file was deleted. A missing directory is created again.
//!
//! # Batches set aside
//! A batch whose content does not match its checksum, and events that the destination rejects
//! permanently, are kept as `*.rejected` and counted as lost. These files take at most half of the
//! spool's maximum size; beyond that, batches are deleted instead. An existing `*.rejected` file is
//! never overwritten or deleted.

mod deliver;
mod directory;
mod name;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::directory::{Directory, Found};
use self::name::{BatchName, Kind};
use super::attempt::Format;
use super::config::SpoolConfig;
use super::metrics::DeliveryMetrics;
use crate::BackendState;
use api_client::backoff::ExponentialBackoff;

pub(crate) use self::deliver::drain;
pub(crate) use self::segment::Segment;

/// The delays after failed disk operations.
const RETRY: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_millis(50), 2.0, Duration::from_secs(1));

/// Properties of the spools of one kind of backend.
#[derive(Debug)]
pub(crate) struct SpoolKind {
    /// The name of the spool in messages: `the webhook's spool`.
    pub(crate) name: &'static str,
    /// The setting of the maximum size.
    pub(crate) size_flag: &'static str,
    /// How events are stored.
    pub(crate) format: &'static Format,
}

/// A spool: its directory, and the state of its batches.
#[derive(Debug)]
pub(crate) struct Spool {
    config: SpoolConfig,
    about: &'static SpoolKind,
    directory: Mutex<Arc<Directory>>,
    state: Mutex<State>,
    changed: Notify,
    closed: CancellationToken,
    metrics: Arc<DeliveryMetrics>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    batches: VecDeque<Batch>,
    bytes: u64,
    rejected_files: u64,
    rejected_bytes: u64,
    next: u64,
    /// Whether events of a segment were rejected because the spool is full.
    is_full: bool,
    /// The errors of the disk, by [`Access`]; `None` if the last operation succeeded.
    failing: [Option<String>; 2],
}

/// A batch in the spool.
#[derive(Debug, Clone)]
struct Batch {
    name: BatchName,
    bytes: u64,
    directory: Arc<Directory>,
}

/// The kind of a disk operation.
#[derive(Debug, Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// Why a batch could not be added to the spool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The spool is full.
    #[error("{} is full; raise {}", .0.name, .0.size_flag)]
    Full(&'static SpoolKind),
    /// A disk operation failed.
    #[error("cannot write to {about}: {source}", about = .0.name, source = .1)]
    Io(&'static SpoolKind, io::Error),
}

impl Spool {
    /// Opens the directory, creating it if it is missing, and lists its batches.
    pub(crate) fn open(
        config: &SpoolConfig,
        about: &'static SpoolKind,
        metrics: Arc<DeliveryMetrics>,
    ) -> io::Result<Spool> {
        let directory = Arc::new(Directory::open(&config.dir, about.format.extension)?);
        let spool = Spool {
            config: config.clone(),
            about,
            directory: Mutex::new(directory.clone()),
            state: Mutex::default(),
            changed: Notify::new(),
            closed: CancellationToken::new(),
            metrics,
        };
        spool.adopt(&directory)?;
        Ok(spool)
    }

    /// Adds the batches of a directory that was just opened.
    fn adopt(&self, directory: &Arc<Directory>) -> io::Result<()> {
        let found = directory.batches()?;
        let mut state = self.lock();
        for Found { name, kind, bytes } in found {
            state.next = state.next.max(name.number.saturating_add(1));
            if kind == Kind::Rejected {
                state.rejected_files += 1;
                state.rejected_bytes += bytes;
                continue;
            }
            let batch = Batch { name, bytes, directory: directory.clone() };
            match state.batches.iter_mut().find(|known| known.name == batch.name) {
                // The file is in the new directory.
                Some(known) => *known = batch,
                None => {
                    state.bytes += bytes;
                    state.batches.push_back(batch);
                }
            }
        }
        state.batches.make_contiguous().sort_by_key(|batch| batch.name.number);
        self.publish(&state);
        Ok(())
    }

    /// Returns the directory at the configured path. Opens it again if it was deleted or moved.
    fn directory(&self) -> io::Result<Arc<Directory>> {
        let mut current = self.directory.lock().expect("nothing panics while it holds this");
        if !current.is_at_path()? {
            let new = Arc::new(Directory::open(&self.config.dir, self.about.format.extension)?);
            // Files that were set aside are counted again in the new directory.
            let mut state = self.lock();
            (state.rejected_files, state.rejected_bytes) = (0, 0);
            drop(state);
            self.adopt(&new)?;
            tracing::warn!(
                "{}: the directory {} was deleted or moved; it was created again",
                self.about.name,
                self.config.dir.display()
            );
            *current = new;
        }
        Ok(current.clone())
    }

    /// Appends a list of `events` events to the spool and syncs it. Retries until that succeeds,
    /// the spool is full, or `give_up` is cancelled.
    pub(crate) async fn push(
        self: &Arc<Self>,
        list: Vec<u8>,
        events: u64,
        give_up: &CancellationToken,
    ) -> Result<(), SpoolError> {
        let list: Arc<[u8]> = list.into();
        let mut backoff = RETRY;
        loop {
            let (spool, list) = (self.clone(), list.clone());
            let write = tokio::task::spawn_blocking(move || spool.write(&list, events));
            let written = tokio::select! {
                biased;
                written = write => written.unwrap_or_else(|e| Err(self.io(io::Error::other(e)))),
                () = give_up.cancelled() => Err(self.io(io::ErrorKind::TimedOut.into())),
            };
            match written {
                Ok(()) => {
                    self.succeeded(Access::Write);
                    self.changed.notify_one();
                    return Ok(());
                }
                Err(SpoolError::Io(_, error)) if !give_up.is_cancelled() => {
                    self.failed(Access::Write, &error);
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                        () = give_up.cancelled() => return Err(self.io(error)),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, list: &[u8], events: u64) -> Result<(), SpoolError> {
        let directory = self.directory().map_err(|error| self.io(error))?;
        let bytes = list.len() as u64;
        let number = {
            let mut state = self.lock();
            if state.bytes + state.rejected_bytes + bytes > self.config.max_size {
                return Err(SpoolError::Full(self.about));
            }
            state.next += 1;
            state.next - 1
        };
        let name = BatchName::new(self.about.format.extension, number, events, list);
        let written = directory.write(Kind::Pending, &name.file_name(Kind::Pending), list);
        written.map_err(|error| self.io(error))?;
        let mut state = self.lock();
        state.bytes += bytes;
        state.batches.push_back(Batch { name, bytes, directory });
        self.publish(&state);
        Ok(())
    }

    fn io(&self, error: io::Error) -> SpoolError {
        SpoolError::Io(self.about, error)
    }

    /// Closes the spool: it accepts no more batches. The remaining ones are sent after the next
    /// start, unless the destination accepts them now.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Returns whether the disk can be read and written.
    pub(crate) fn state(&self) -> BackendState {
        match self.lock().failing.iter().flatten().next() {
            Some(reason) => BackendState::Failing(reason.clone()),
            None => BackendState::Ok,
        }
    }

    /// Waits for the oldest batch. Returns `None` if the spool is closed and empty.
    async fn oldest(&self) -> Option<Batch> {
        loop {
            let closed = self.closed.is_cancelled();
            if let Some(batch) = self.lock().batches.front() {
                return Some(batch.clone());
            }
            if closed {
                return None;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Removes a batch from the state.
    fn forget(&self, batch: &Batch) {
        let mut state = self.lock();
        if let Some(at) = state.batches.iter().position(|known| known.name == batch.name) {
            state.batches.remove(at);
            state.bytes = state.bytes.saturating_sub(batch.bytes);
            state.is_full = false;
        }
        self.publish(&state);
    }

    /// Waits for `delay`. Returns `false` if the spool was closed, so there is no other attempt.
    async fn wait(&self, delay: Duration) -> bool {
        tokio::time::timeout(delay, self.closed.cancelled()).await.is_err()
    }

    /// Notes a failed disk operation, which will be retried.
    fn failed(&self, access: Access, error: &io::Error) {
        let what = match access {
            Access::Read => "read from",
            Access::Write => "write to",
        };
        let reason =
            format!("cannot {what} {} {}: {error}", self.about.name, self.config.dir.display());
        let mut state = self.lock();
        if state.failing[access as usize].replace(reason.clone()).is_none() {
            tracing::error!("{reason}; retrying, no event is lost");
        }
    }

    fn succeeded(&self, access: Access) {
        if self.lock().failing[access as usize].take().is_some() {
            tracing::info!("{} {} is healthy again", self.about.name, self.config.dir.display());
        }
    }

    fn publish(&self, state: &State) {
        self.metrics.spool_bytes.set(state.bytes as i64);
        self.metrics.rejected_files.set(state.rejected_files as i64);
        self.metrics.rejected_bytes.set(state.rejected_bytes as i64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the spool")
    }
}

#[cfg(test)]
mod tests;
