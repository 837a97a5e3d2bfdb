//! Batches on the disk until the endpoint has accepted them.
//!
//! One file per batch ([`name`]), written under another name first and then renamed, so that each
//! file is complete. The oldest batch is sent until it is accepted, then deleted: each event
//! arrives at least once, and in order. Only one process may use a directory ([`directory`]).
//!
//! # When the disk fails
//! A batch that cannot be written waits in memory and is tried again; meanwhile events collect in
//! the queue, whose overflow is counted. A batch that cannot be read is tried again, too. It is
//! only counted as lost if its file is gone. A directory that vanishes is created again.
//!
//! # Batches set aside
//! A batch whose content does not match its checksum, and events that the endpoint refuses for
//! good, are kept as `*.rejected` and counted as lost. They take at most half of
//! `--audit-webhook-spool-max-size`; beyond that they are deleted instead. An existing `*.rejected`
//! file is never overwritten or deleted.

mod deliver;
mod directory;
mod name;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::directory::{Directory, Found};
use self::name::{BatchName, Kind};
use super::config::{SpoolConfig, WebhookError};
use super::metrics::WebhookMetrics;
use crate::BackendState;
use api_client::backoff::ExponentialBackoff;

pub(super) use self::deliver::drain;

/// The delays after failed operations on the disk.
const RETRY: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_millis(50), 2.0, Duration::from_secs(1));

/// The directory and what is in it.
#[derive(Debug)]
pub(super) struct Spool {
    config: SpoolConfig,
    directory: Mutex<Arc<Directory>>,
    state: Mutex<State>,
    changed: Notify,
    closed: CancellationToken,
    metrics: Arc<WebhookMetrics>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    batches: VecDeque<Batch>,
    bytes: u64,
    rejected_files: u64,
    rejected_bytes: u64,
    next: u64,
    /// Why the disk cannot be used now: reading, writing.
    failing: [Option<String>; 2],
}

/// A batch that waits.
#[derive(Debug, Clone)]
struct Batch {
    name: BatchName,
    bytes: u64,
    directory: Arc<Directory>,
}

/// An operation on the disk.
#[derive(Debug, Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// A batch is not in the spool.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    /// There is no room for it.
    #[error("the webhook's spool is full; raise --audit-webhook-spool-max-size")]
    Full,
    /// The system refused it.
    #[error("cannot write to the webhook's spool: {0}")]
    Io(#[from] io::Error),
}

impl Spool {
    /// Opens the directory, creates it if it is missing, and finds the batches that are in it.
    pub(super) fn open(
        config: &SpoolConfig,
        metrics: Arc<WebhookMetrics>,
    ) -> Result<Spool, WebhookError> {
        let wrong = |source: io::Error| match source.kind() {
            io::ErrorKind::ResourceBusy => {
                WebhookError::SpoolInUse { path: config.dir.clone(), source }
            }
            _ => WebhookError::Spool { path: config.dir.clone(), source },
        };
        let directory = Arc::new(Directory::open(&config.dir).map_err(wrong)?);
        let spool = Spool {
            config: config.clone(),
            directory: Mutex::new(directory.clone()),
            state: Mutex::default(),
            changed: Notify::new(),
            closed: CancellationToken::new(),
            metrics,
        };
        spool.adopt(&directory).map_err(wrong)?;
        Ok(spool)
    }

    /// Takes over the batches of a directory that was just opened.
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
                // Its file is here now.
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

    /// The directory at the configured path: another one than before if that was deleted or moved.
    fn directory(&self) -> io::Result<Arc<Directory>> {
        let mut current = self.directory.lock().expect("nothing panics while it holds this");
        if !current.is_at_path()? {
            let new = Arc::new(Directory::open(&self.config.dir)?);
            // Those that were set aside are counted again where they are.
            let mut state = self.lock();
            (state.rejected_files, state.rejected_bytes) = (0, 0);
            drop(state);
            self.adopt(&new)?;
            tracing::warn!(
                "the webhook's spool directory {} was deleted or moved; it was created again",
                self.config.dir.display()
            );
            *current = new;
        }
        Ok(current.clone())
    }

    /// Appends a list of `events` events behind all others, on the disk. Tries again until it is
    /// there, the spool is full, or `give_up` is cancelled.
    pub(super) async fn push(
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
                written = write => written.unwrap_or_else(|e| Err(io::Error::other(e).into())),
                () = give_up.cancelled() => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            };
            match written {
                Ok(()) => {
                    self.succeeded(Access::Write);
                    self.changed.notify_one();
                    return Ok(());
                }
                Err(SpoolError::Io(error)) if !give_up.is_cancelled() => {
                    self.failed(Access::Write, &error);
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                        () = give_up.cancelled() => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, list: &[u8], events: u64) -> Result<(), SpoolError> {
        let directory = self.directory()?;
        let bytes = list.len() as u64;
        let number = {
            let mut state = self.lock();
            if state.bytes + state.rejected_bytes + bytes > self.config.max_size {
                return Err(SpoolError::Full);
            }
            state.next += 1;
            state.next - 1
        };
        let name = BatchName::new(number, events, list);
        directory.write(Kind::Pending, &name.file_name(Kind::Pending), list)?;
        let mut state = self.lock();
        state.bytes += bytes;
        state.batches.push_back(Batch { name, bytes, directory });
        self.publish(&state);
        Ok(())
    }

    /// Accepts no more batches; what is left is for the next start, unless the endpoint takes it
    /// now.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Returns whether the disk can be written and read.
    pub(super) fn state(&self) -> BackendState {
        match self.lock().failing.iter().flatten().next() {
            Some(reason) => BackendState::Failing(reason.clone()),
            None => BackendState::Ok,
        }
    }

    /// Waits for the oldest batch. `None`: the spool is closed and empty.
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

    /// A batch is done with.
    fn forget(&self, batch: &Batch) {
        let mut state = self.lock();
        if let Some(at) = state.batches.iter().position(|known| known.name == batch.name) {
            state.batches.remove(at);
            state.bytes = state.bytes.saturating_sub(batch.bytes);
        }
        self.publish(&state);
    }

    /// Waits for `delay`. Returns `false` if the spool was closed, so that nothing is tried again.
    async fn wait(&self, delay: Duration) -> bool {
        tokio::time::timeout(delay, self.closed.cancelled()).await.is_err()
    }

    /// An operation on the disk failed, and will be tried again.
    fn failed(&self, access: Access, error: &io::Error) {
        let what = match access {
            Access::Read => "read from",
            Access::Write => "write to",
        };
        let reason =
            format!("cannot {what} the webhook's spool {}: {error}", self.config.dir.display());
        let mut state = self.lock();
        if state.failing[access as usize].replace(reason.clone()).is_none() {
            tracing::error!("{reason}; retrying, no event is lost");
        }
    }

    fn succeeded(&self, access: Access) {
        if self.lock().failing[access as usize].take().is_some() {
            tracing::info!("the webhook's spool {} is healthy again", self.config.dir.display());
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
