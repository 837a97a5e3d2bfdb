//! Sends the batches of the spool.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Access, Batch, BatchName, Kind, RETRY, Spool, segment};
use futures_util::future::BoxFuture;

use crate::DroppedEvents;
use crate::delivery::{Attempt, Courier, Delivered, Sent, Verdict, deliver};

/// A batch that the destination rejects as invalid is set aside after this many responses.
const REFUSALS: u32 = 5;

/// How long the removal of a delivered batch is retried.
const REMOVAL: Duration = Duration::from_secs(10);

/// Sends the batches of the spool in order. Returns when the spool is closed and either empty or
/// the destination accepts no more batches.
pub(crate) async fn drain(spool: Arc<Spool>, courier: Arc<dyn Courier>, lost: Arc<DroppedEvents>) {
    let late = async {
        spool.closed.cancelled().await;
        tokio::time::sleep(courier.last_attempts().1).await;
    };
    let draining = Draining { spool: spool.clone(), courier: courier.clone(), lost };
    let draining = async {
        while let Some(batch) = draining.spool.oldest().await {
            if draining.batch(batch).await.is_none() {
                return;
            }
        }
    };
    tokio::select! {
        () = draining => {}
        () = late => {}
    }
}

struct Draining {
    spool: Arc<Spool>,
    courier: Arc<dyn Courier>,
    lost: Arc<DroppedEvents>,
}

/// The content of a batch file.
enum Content {
    /// The batch, unchanged.
    Intact(Vec<u8>),
    /// The unchanged batch, to be sent from its file.
    File(Arc<File>),
    /// The checksum does not match.
    Corrupt,
    /// Not a list of events. Only with names of earlier versions, which have no checksum.
    Foreign,
    /// The file does not exist any more.
    Gone,
    /// Not a regular file.
    NotRegular(io::Error),
}

impl Draining {
    /// Sends one batch. Returns `None` if it stays in the spool because the process shuts down.
    async fn batch(&self, batch: Batch) -> Option<()> {
        let file_name = batch.name.file_name(Kind::Pending);
        let path = batch.directory.path_of(&file_name);
        let (path, events) = (path.display(), batch.name.events);
        match self.read(&batch).await? {
            Content::Intact(list) => {
                let number = batch.name.number;
                let send = |list, events| self.send(number, list, events);
                let sent = deliver(self.spool.about.format, &list, events, send).await;
                self.settle(&batch, sent).await?;
            }
            Content::File(file) => {
                let sent = match self.send_file(&batch, file).await {
                    Sent::Taken => Delivered::All,
                    Sent::Stopped => Delivered::Stopped,
                    Sent::TooLarge(failure) | Sent::Refused(failure) => {
                        Delivered::Refused { list: None, events, failure }
                    }
                };
                self.settle(&batch, sent).await?;
            }
            Content::Corrupt => {
                self.lost.add(events, &format!("{path} is corrupt: its checksum does not match"));
                self.set_aside(&batch, None, events, "its checksum does not match").await?;
            }
            Content::Gone => {
                let reason =
                    format!("{path} was deleted before {} accepted it", self.courier.destination());
                self.lost.add(events, &reason);
            }
            Content::NotRegular(error) => self.lost.add(events, &format!("{path}: {error}")),
            Content::Foreign => tracing::warn!(
                "ignored {path}: it has the name of a batch, but is not a list of events"
            ),
        }
        self.spool.forget(&batch);
        Some(())
    }

    /// Removes a batch that was sent, or sets it aside. Returns `None` if it stays in the spool
    /// because the process shuts down.
    async fn settle(&self, batch: &Batch, sent: Delivered) -> Option<()> {
        match sent {
            Delivered::All => self.remove(batch).await,
            Delivered::Stopped => None,
            Delivered::Refused { list: refused, events, failure } => {
                self.lost.add(events, &failure);
                self.set_aside(batch, refused, events, &failure.to_string()).await
            }
        }
    }

    /// Reads a batch; retries until the read succeeds or fails permanently, or the process shuts
    /// down.
    async fn read(&self, batch: &Batch) -> Option<Content> {
        let mut backoff = RETRY;
        loop {
            let (spool, batch) = (self.spool.clone(), batch.clone());
            let as_file = self.courier.sends_files();
            let reading = tokio::task::spawn_blocking(move || match as_file {
                true => spool.open_checked(&batch),
                false => spool.read(&batch),
            });
            let read = tokio::select! {
                read = reading => read.unwrap_or_else(|error| Err(io::Error::other(error))),
                // A disk that does not respond must not delay the shutdown.
                () = self.hangs() => return None,
            };
            match read {
                Ok(content) => {
                    self.spool.succeeded(Access::Read);
                    return Some(content);
                }
                Err(error) => self.spool.failed(Access::Read, &error),
            }
            if !self.spool.wait(backoff.next_delay()).await {
                return None;
            }
        }
    }

    /// Sends one batch until the destination accepts it or rejects it permanently.
    async fn send(&self, number: u64, list: Vec<u8>, events: u64) -> Sent {
        let encoded = self.courier.encode(list);
        self.insist_sending(|| self.courier.attempt(number, encoded.clone(), events)).await
    }

    /// Sends one batch from its file, like [`Self::send`].
    async fn send_file(&self, batch: &Batch, file: Arc<File>) -> Sent {
        let Batch { name, bytes, .. } = batch;
        let send = || self.courier.attempt_file(name.number, file.clone(), *bytes, name.events);
        self.insist_sending(send).await
    }

    async fn insist_sending<'a>(&self, send: impl Fn() -> BoxFuture<'a, Attempt>) -> Sent {
        let (mut attempt, mut refusals) = (0, 0);
        loop {
            let sent = tokio::select! {
                biased;
                sent = send() => sent,
                () = self.hangs() => return Sent::Stopped,
            };
            let (failure, retry_after, verdict) = match sent {
                Attempt::Taken => return Sent::Taken,
                Attempt::Failed { failure, retry_after, verdict } => {
                    (failure, retry_after, verdict)
                }
            };
            match verdict {
                Verdict::TooLarge => return Sent::TooLarge(failure),
                Verdict::Final => return Sent::Refused(failure),
                Verdict::Invalid => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        return Sent::Refused(failure);
                    }
                }
                Verdict::Unavailable => {}
            }
            if attempt == 0 {
                tracing::warn!(
                    "{} does not accept events, they wait in the spool: {failure}",
                    self.courier.destination()
                );
            }
            if !self.spool.wait(self.courier.delay(attempt, retry_after)).await {
                return Sent::Stopped;
            }
            attempt += 1;
        }
    }

    /// Waits for the beginning of the shutdown, and then for the time limit of one attempt.
    async fn hangs(&self) {
        self.spool.closed.cancelled().await;
        tokio::time::sleep(self.courier.last_attempts().0).await;
    }

    /// Removes a delivered batch.
    async fn remove(&self, batch: &Batch) -> Option<()> {
        let name = batch.name.file_name(Kind::Pending);
        let directory = batch.directory.clone();
        let removed = self.insist(Some(REMOVAL), move || directory.remove(&name)).await?;
        if let Err(error) = removed {
            tracing::error!(
                "cannot delete the delivered batch {}: {error}; it will be sent again after the \
                 next start",
                batch.directory.path_of(&batch.name.file_name(Kind::Pending)).display()
            );
        }
        Some(())
    }

    /// Keeps the rejected events in place of the batch, if there is space for them. `refused` is
    /// `None` for the whole batch.
    async fn set_aside(
        &self,
        batch: &Batch,
        refused: Option<Vec<u8>>,
        events: u64,
        reason: &str,
    ) -> Option<()> {
        self.spool.metrics.rejected_events.inc_by(events);
        let name = batch.name.file_name(Kind::Pending);
        let bytes = refused.as_ref().map_or(batch.bytes, |refused| refused.len() as u64);
        let file = self.spool.reserve_rejected(bytes).then(|| {
            let aside = match &refused {
                // Keeps the checksum in the name, so that it shows whether the content was changed.
                None => batch.name.clone(),
                Some(refused) => {
                    let extension = self.spool.about.format.extension;
                    BatchName::new(extension, batch.name.number, events, refused)
                }
            };
            aside.file_name(Kind::Rejected)
        });
        let Some(file) = file else {
            tracing::error!(
                "deleted a batch of {events} events that was rejected: {reason}; *.rejected files already \
                 use half of {}, move them away",
                self.spool.about.size_flag
            );
            return self.remove(batch).await;
        };
        let path = batch.directory.path_of(&file);
        let directory = batch.directory.clone();
        let moved = self
            .insist(None, move || match &refused {
                None => match directory.rename(&name, &file) {
                    // A previous attempt has renamed it, but its sync failed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    renamed => renamed,
                },
                Some(refused) => {
                    directory.write(Kind::Rejected, &file, refused)?;
                    directory.remove(&name)
                }
            })
            .await;
        match moved? {
            Ok(()) => {
                tracing::error!("moved {events} rejected events to {}: {reason}", path.display());
            }
            Err(error) => {
                tracing::error!("cannot set aside {events} rejected events: {reason}; {error}");
                self.spool.release_rejected(bytes);
            }
        }
        Some(())
    }

    /// Retries a disk operation until it succeeds or, if there is one, the limit has passed.
    /// Returns `None` if the process shuts down.
    async fn insist(
        &self,
        limit: Option<Duration>,
        act: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Option<io::Result<()>> {
        let mut backoff = RETRY;
        let (act, started) = (Arc::new(act), Instant::now());
        loop {
            let once = act.clone();
            let acting = tokio::task::spawn_blocking(move || once());
            let done = tokio::select! {
                done = acting => done.unwrap_or_else(|error| Err(io::Error::other(error))),
                () = self.hangs() => return None,
            };
            match done {
                Ok(()) => {
                    self.spool.succeeded(Access::Write);
                    return Some(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Some(Err(error));
                }
                Err(error) if limit.is_some_and(|limit| started.elapsed() >= limit) => {
                    return Some(Err(error));
                }
                Err(error) => self.spool.failed(Access::Write, &error),
            }
            if !self.spool.wait(backoff.next_delay()).await {
                return None;
            }
        }
    }
}

impl Spool {
    /// Reads a batch and verifies its checksum.
    fn read(&self, batch: &Batch) -> io::Result<Content> {
        let file_name = batch.name.file_name(Kind::Pending);
        let content = match batch.directory.read(&file_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It may be in the directory that is at the path now.
                let current = self.directory()?;
                match current.read(&file_name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(Content::Gone);
                    }
                    content => content?,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(Content::NotRegular(error));
            }
            // The directory handle may be stale, such as after a restart of an NFS server.
            Err(error) => match self.directory()?.read_by_path(&file_name) {
                Ok(content) => content,
                Err(_) => return Err(error),
            },
            Ok(content) => content,
        };
        Ok(match batch.name.matches(&content) {
            Some(true) => Content::Intact(content),
            Some(false) => Content::Corrupt,
            None if (self.about.format.is_valid)(&content) => Content::Intact(content),
            None => Content::Foreign,
        })
    }

    /// Opens the file of a batch, after verifying its checksum.
    fn open_checked(&self, batch: &Batch) -> io::Result<Content> {
        let name = batch.name.file_name(Kind::Pending);
        let file = match batch.directory.open_file(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match self.directory()?.open_file(&name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(Content::Gone);
                    }
                    file => file?,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(Content::NotRegular(error));
            }
            file => file?,
        };
        let scan = segment::scan(&file)?;
        let is_whole = scan.bytes == batch.bytes && scan.torn == 0;
        match batch.name.matches_hash(&scan.hash()) {
            Some(true) if is_whole => Ok(Content::File(Arc::new(file))),
            _ => Ok(Content::Corrupt),
        }
    }

    /// Reserves space for a batch that is set aside. Returns `false` if there is not enough.
    fn reserve_rejected(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        let fits = state.rejected_bytes + bytes <= self.config.max_size / 2;
        if fits {
            state.rejected_files += 1;
            state.rejected_bytes += bytes;
            self.publish(&state);
        }
        fits
    }

    fn release_rejected(&self, bytes: u64) {
        let mut state = self.lock();
        state.rejected_files = state.rejected_files.saturating_sub(1);
        state.rejected_bytes = state.rejected_bytes.saturating_sub(bytes);
        self.publish(&state);
    }
}
