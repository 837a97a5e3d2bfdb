//! Batches on the disk, until the receiver has taken them.
//!
//! One file a batch, `<number>-<events>.json`, written under another name first and then renamed, so
//! that what is there is whole. The oldest is sent until it is taken, and then deleted: each event
//! arrives at least once, and in order.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::config::{SpoolConfig, WebhookError};
use super::sender::{Attempt, Sender};
use crate::metrics::SinkMetrics;
use crate::sink::Losses;

/// A body that the receiver calls bad is set aside after so many attempts.
const POISONED: u32 = 5;

/// The folder and what is in it.
#[derive(Debug)]
pub(super) struct Spool {
    config: SpoolConfig,
    state: Mutex<State>,
    changed: Notify,
    metrics: Arc<SinkMetrics>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    batches: VecDeque<Batch>,
    bytes: u64,
    next: u64,
    closed: bool,
}

#[derive(Debug, Clone)]
struct Batch {
    number: u64,
    events: u64,
    bytes: u64,
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
    /// Makes the folder if need be, and finds what is left in it.
    pub(super) fn open(
        config: &SpoolConfig,
        metrics: Arc<SinkMetrics>,
    ) -> Result<Spool, WebhookError> {
        let wrong = |source| WebhookError::Spool { path: config.dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&config.dir).map_err(wrong)?;
        let mut state = State::default();
        let mut found = Vec::new();
        for entry in fs::read_dir(&config.dir).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            if let Some((number, events)) = parse(&entry.path()) {
                let bytes = entry.metadata().map_err(wrong)?.len();
                found.push(Batch { number, events, bytes });
            }
        }
        found.sort_by_key(|batch| batch.number);
        state.next = found.last().map_or(0, |batch| batch.number + 1);
        state.bytes = found.iter().map(|batch| batch.bytes).sum();
        state.batches = found.into();
        metrics.webhook_spool.set(state.bytes as i64);
        let (state, changed) = (Mutex::new(state), Notify::new());
        Ok(Spool { config: config.clone(), state, changed, metrics })
    }

    /// Puts a list of so many events behind all others, on the disk.
    pub(super) async fn push(
        self: &Arc<Self>,
        list: Vec<u8>,
        events: u64,
    ) -> Result<(), SpoolError> {
        let spool = self.clone();
        let written = tokio::task::spawn_blocking(move || spool.write(&list, events)).await;
        written.map_err(|error| SpoolError::Io(io::Error::other(error)))??;
        self.changed.notify_one();
        Ok(())
    }

    fn write(&self, list: &[u8], events: u64) -> Result<(), SpoolError> {
        let bytes = list.len() as u64;
        let number = {
            let mut state = self.lock();
            if state.bytes + bytes > self.config.max_size {
                return Err(SpoolError::Full);
            }
            state.next += 1;
            state.next - 1
        };
        let batch = Batch { number, events, bytes };
        let temporary = self.config.dir.join("new.tmp");
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(list)?;
        file.sync_data()?;
        fs::rename(&temporary, self.path(&batch))?;
        File::open(&self.config.dir)?.sync_all()?;
        let mut state = self.lock();
        state.bytes += bytes;
        self.metrics.webhook_spool.set(state.bytes as i64);
        state.batches.push_back(batch);
        Ok(())
    }

    /// Takes no more batches; what is left is for the next start, unless the receiver takes it now.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// The oldest batch, once there is one. None: closed, and there is none.
    async fn oldest(&self) -> Option<Batch> {
        loop {
            {
                let state = self.lock();
                if let Some(batch) = state.batches.front() {
                    return Some(batch.clone());
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// The oldest batch is done with.
    fn forget_oldest(&self) {
        let mut state = self.lock();
        if let Some(batch) = state.batches.pop_front() {
            state.bytes -= batch.bytes;
        }
        self.metrics.webhook_spool.set(state.bytes as i64);
    }

    /// Waits out a pause. `false`: it was closed, so that nobody waits any more.
    async fn pause(&self, pause: std::time::Duration) -> bool {
        let closed = async {
            while !self.lock().closed {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(pause, closed).await.is_err()
    }

    fn path(&self, batch: &Batch) -> PathBuf {
        self.config.dir.join(format!("{:020}-{}.json", batch.number, batch.events))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the spool")
    }
}

/// Number and events from a file's name. None: not one of ours.
fn parse(path: &Path) -> Option<(u64, u64)> {
    let (number, events) = path.file_name()?.to_str()?.strip_suffix(".json")?.split_once('-')?;
    Some((number.parse().ok()?, events.parse().ok()?))
}

/// Sends what is in the spool, in order, until it is closed and empty, or closed and the receiver
/// does not take any more.
pub(super) async fn drain(spool: Arc<Spool>, sender: Arc<Sender>, lost: Arc<Losses>) {
    while let Some(batch) = spool.oldest().await {
        let path = spool.path(&batch);
        let list = match tokio::fs::read(&path).await {
            Ok(list) => list,
            Err(error) => {
                lost.add(batch.events, &format!("cannot read {}: {error}", path.display()));
                spool.forget_oldest();
                continue;
            }
        };
        let body = sender.body(&list);
        let mut attempt = 0;
        loop {
            match sender.attempt(body.clone(), batch.events).await {
                Attempt::Taken => {
                    if let Err(error) = tokio::fs::remove_file(&path).await {
                        tracing::error!("cannot remove {}: {error}", path.display());
                    }
                    break;
                }
                Attempt::Failed { failure, poison: true, .. } if attempt + 1 >= POISONED => {
                    lost.add(batch.events, &failure);
                    let aside = path.with_extension("rejected");
                    let moved = tokio::fs::rename(&path, &aside).await;
                    tracing::error!(
                        "the webhook calls {} bad; it is set aside: {moved:?}",
                        aside.display()
                    );
                    break;
                }
                Attempt::Failed { failure, retry_after, .. } => {
                    if attempt == 0 {
                        tracing::warn!("the webhook does not take events, they wait: {failure}");
                    }
                    if !spool.pause(sender.pause(attempt, retry_after)).await {
                        return;
                    }
                }
            }
            attempt += 1;
        }
        spool.forget_oldest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    fn open(dir: &Path, max_size: u64) -> Arc<Spool> {
        let config = SpoolConfig { dir: dir.to_owned(), max_size };
        Arc::new(Spool::open(&config, Arc::default()).unwrap())
    }

    #[tokio::test]
    async fn what_is_there_comes_first_and_what_is_too_much_is_refused() {
        let dir = TestDir::new();
        let path = dir.path().join("spool");
        let spool = open(&path, 10);
        spool.push(b"first".to_vec(), 2).await.unwrap();
        assert!(matches!(spool.push(b"second".to_vec(), 1).await, Err(SpoolError::Full)));
        spool.push(b"third".to_vec(), 3).await.unwrap();

        // The next start. A batch that was being written is none, nor is anybody else's file.
        fs::write(path.join("new.tmp"), "half a ba").unwrap();
        fs::write(path.join("readme.json"), "").unwrap();
        let spool = open(&path, 100);
        spool.push(b"fourth".to_vec(), 4).await.unwrap();
        spool.close();
        let mut found = Vec::new();
        while let Some(batch) = spool.oldest().await {
            found.push((fs::read_to_string(spool.path(&batch)).unwrap(), batch.events));
            spool.forget_oldest();
        }
        let expected = [("first", 2), ("third", 3), ("fourth", 4)];
        assert_eq!(found, expected.map(|(text, events)| (text.to_owned(), events)));
        assert_eq!(spool.metrics.webhook_spool.value(), 0);
    }

    #[tokio::test]
    async fn a_pause_ends_when_the_spool_is_closed() {
        let dir = TestDir::new();
        let spool = open(dir.path(), 10);
        assert!(spool.pause(std::time::Duration::from_millis(1)).await);
        spool.close();
        assert!(!spool.pause(std::time::Duration::from_secs(3600)).await);
    }
}
