//! Sending what is in the spool.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Access, Batch, BatchName, Kind, RETRY, Spool};
use crate::DroppedEvents;
use crate::webhook::list;
use crate::webhook::sender::{Attempt, Sender, Verdict};
use crate::webhook::split::{Delivered, Sent, deliver};

/// A batch that the endpoint calls invalid is set aside after this many such responses.
const REFUSALS: u32 = 5;

/// After shutdown has begun, one attempt may take this long, and all together.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);
const LAST_ATTEMPTS: Duration = Duration::from_secs(3);

/// How long the removal of a delivered batch is tried.
const REMOVAL: Duration = Duration::from_secs(10);

/// Sends what is in the spool, in order, until it is closed and empty, or closed and the endpoint
/// does not accept any more.
pub(in crate::webhook) async fn drain(
    spool: Arc<Spool>,
    sender: Arc<Sender>,
    lost: Arc<DroppedEvents>,
) {
    let late = async {
        spool.closed.cancelled().await;
        tokio::time::sleep(LAST_ATTEMPTS).await;
    };
    let draining = Draining { spool: spool.clone(), sender, lost };
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
    sender: Arc<Sender>,
    lost: Arc<DroppedEvents>,
}

/// The content of a batch file.
enum Content {
    /// The batch as it was written.
    Intact(Vec<u8>),
    /// Something else than what was written.
    Corrupt(Vec<u8>),
    /// Not a list of events, under a name of earlier versions, which have no checksum.
    Foreign,
    /// The file is not there any more.
    Gone,
    /// It is something that cannot be read like a file.
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
                let sent = deliver(&list, events, |list, events| self.send(list, events)).await;
                match sent {
                    Delivered::All => self.remove(&batch).await?,
                    Delivered::Stopped => return None,
                    Delivered::Refused { list: refused, events, failure } => {
                        self.lost.add(events, &failure);
                        let refused = refused.unwrap_or(list);
                        self.set_aside(&batch, refused, events, &failure.to_string()).await?;
                    }
                }
            }
            Content::Corrupt(content) => {
                self.lost.add(events, &format!("{path} is corrupt: its checksum is not right"));
                self.set_aside(&batch, content, events, "its checksum is not right").await?;
            }
            Content::Gone => {
                let reason = format!("{path} was deleted before the endpoint accepted it");
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

    /// Reads a batch; retries until the read succeeds or fails permanently, or the process shuts
    /// down.
    async fn read(&self, batch: &Batch) -> Option<Content> {
        let mut backoff = RETRY;
        loop {
            let (spool, batch) = (self.spool.clone(), batch.clone());
            let reading = tokio::task::spawn_blocking(move || spool.read(&batch));
            let read = tokio::select! {
                read = reading => read.unwrap_or_else(|error| Err(io::Error::other(error))),
                // A disk that does not respond must not hold up the shutdown.
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

    /// Sends one list until the endpoint accepts it or refuses it for good.
    async fn send(&self, list: Vec<u8>, events: u64) -> Sent {
        let body = self.sender.body(&list);
        let (mut attempt, mut refusals) = (0, 0);
        loop {
            let sent = tokio::select! {
                biased;
                sent = self.sender.attempt(body.clone(), events) => sent,
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
                    "the webhook endpoint does not accept events, they wait in the spool: {failure}"
                );
            }
            if !self.spool.wait(self.sender.delay(attempt, retry_after)).await {
                return Sent::Stopped;
            }
            attempt += 1;
        }
    }

    /// Waits until shutdown has begun and this has been waited for long enough.
    async fn hangs(&self) {
        self.spool.closed.cancelled().await;
        tokio::time::sleep(LAST_ATTEMPT).await;
    }

    /// Removes a batch that was delivered.
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

    /// Keeps what was refused in place of the batch, if there is room for it.
    async fn set_aside(
        &self,
        batch: &Batch,
        refused: Vec<u8>,
        events: u64,
        reason: &str,
    ) -> Option<()> {
        self.spool.metrics.rejected_events.inc_by(events);
        let name = batch.name.file_name(Kind::Pending);
        let whole = events == batch.name.events;
        let bytes = refused.len() as u64;
        let file = self.spool.reserve_rejected(bytes).then(|| {
            let aside = match whole {
                // Under its actual checksum, which shows the difference.
                true => batch.name.clone(),
                false => BatchName::new(batch.name.number, events, &refused),
            };
            aside.file_name(Kind::Rejected)
        });
        let Some(file) = file else {
            tracing::error!(
                "deleted a batch of {events} events that was rejected: {reason}; *.rejected files already \
                 use half of --audit-webhook-spool-max-size, move them away"
            );
            return self.remove(batch).await;
        };
        let path = batch.directory.path_of(&file);
        let directory = batch.directory.clone();
        let moved = self
            .insist(None, move || match whole {
                true => match directory.rename(&name, &file) {
                    // Renamed by an attempt whose sync then failed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    renamed => renamed,
                },
                false => {
                    directory.write(Kind::Rejected, &file, &refused)?;
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

    /// Repeats an operation on the disk while it fails: indefinitely, or for a limited time.
    /// `None`: the process shuts down.
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
    /// Reads a batch and compares it with its checksum.
    fn read(&self, batch: &Batch) -> io::Result<Content> {
        let file_name = batch.name.file_name(Kind::Pending);
        let content = match batch.directory.read(&file_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Perhaps it is in the directory that is at the path now.
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
            // The directory's handle may be of no use any more, as after a restart of an NFS
            // server.
            Err(error) => match self.directory()?.read_by_path(&file_name) {
                Ok(content) => content,
                Err(_) => return Err(error),
            },
            Ok(content) => content,
        };
        Ok(match batch.name.matches(&content) {
            Some(true) => Content::Intact(content),
            Some(false) => Content::Corrupt(content),
            None if list::is_list(&content) => Content::Intact(content),
            None => Content::Foreign,
        })
    }

    /// Reserves space for a batch that is set aside; `false` if there is not enough.
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
