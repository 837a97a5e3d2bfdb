//! A session that is being recorded, as the proxy's connection task sees it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::metrics::FailureReason;
use crate::writer::{Batch, Entry, Message};
use crate::{Activity, Decoder, Direction, Mode, Protocol, SessionEvent};

/// Bytes of a session that may wait for the writer.
const MAX_QUEUED: usize = 1 << 20;
/// How long a session waits for the writer before its recording fails.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Why a session is not recorded any more.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
}

/// What the connection task and the writer share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) queued: AtomicUsize,
    pub(crate) drained: Notify,
    failure: OnceLock<Failure>,
    failed: Notify,
}

impl Shared {
    /// Notes the first failure.
    pub(crate) fn fail(&self, reason: FailureReason, message: String) -> bool {
        let is_first = self.failure.set(Failure { reason, message }).is_ok();
        self.failed.notify_one();
        is_first
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// Notes that so many bytes have been taken from the queue.
    pub(crate) fn taken(&self, bytes: usize) {
        let before = self.queued.fetch_sub(bytes, Ordering::AcqRel);
        if before > MAX_QUEUED / 2 && before - bytes <= MAX_QUEUED / 2 {
            // Both directions may wait.
            self.drained.notify_waiters();
            self.drained.notify_one();
        }
    }
}

/// How a recording ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The name of the file.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: Option<String>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// The exit code of the command.
    pub exit_code: Option<i32>,
    /// Why the recording is not complete.
    pub error: Option<String>,
}

/// Why a session must end: it cannot be recorded, and must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MustEnd(pub String);

/// A session that is being recorded. When it is dropped, the recording ends; it is deleted if there
/// was no session because the connection was not upgraded.
#[derive(Debug)]
pub struct Session {
    id: u64,
    file: String,
    mode: Mode,
    activity: Activity,
    begin: Instant,
    sender: Sender<Message>,
    shared: Arc<Shared>,
    decoding: Mutex<Decoding>,
    is_upgraded: AtomicBool,
    is_ended: bool,
}

#[derive(Debug)]
enum Decoding {
    Readable(Box<Decoder>),
    /// Only sizes are recorded.
    Unreadable,
}

impl Session {
    pub(crate) fn new(
        (id, file): (u64, String),
        mode: Mode,
        activity: Activity,
        begin: Instant,
        sender: Sender<Message>,
        shared: Arc<Shared>,
    ) -> Session {
        let decoding = Mutex::new(Decoding::Unreadable);
        let is_upgraded = AtomicBool::new(false);
        Session {
            id,
            file,
            mode,
            activity,
            begin,
            sender,
            shared,
            decoding,
            is_upgraded,
            is_ended: false,
        }
    }

    /// Returns the name of the file, as it will be when the session has ended.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns what the session is for.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// Notes which protocol was agreed on.
    pub fn set_protocol(&self, protocol: Protocol) {
        let decoder = Box::new(Decoder::new(self.activity, protocol));
        *self.decoding() = Decoding::Readable(decoder);
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    /// Notes that the protocol cannot be read.
    ///
    /// # Errors
    /// If the session must be recorded.
    pub fn set_unreadable(&self, why: &str) -> Result<(), MustEnd> {
        let message = format!("the session cannot be recorded: {why}");
        self.fail(FailureReason::Protocol, message.clone())?;
        *self.decoding() = Decoding::Unreadable;
        self.is_upgraded.store(true, Ordering::Relaxed);
        let mut batch = Batch::default();
        batch.entries.push(Entry::Remark(message));
        self.send(batch);
        Ok(())
    }

    fn fail(&self, reason: FailureReason, message: String) -> Result<(), MustEnd> {
        self.shared.fail(reason, message.clone());
        match self.mode {
            Mode::Strict => Err(MustEnd(message)),
            Mode::BestEffort => Ok(()),
        }
    }

    /// Records bytes that are about to be passed on. Returns the number of bytes up to the last
    /// place at which a session can be ended by [`Session::farewell`], if there is one.
    ///
    /// # Errors
    /// If they cannot be recorded, and must be; then they must not be passed on.
    pub fn push(&self, direction: Direction, bytes: &[u8]) -> Result<Option<usize>, MustEnd> {
        if self.mode == Mode::Strict
            && let Some(failure) = self.shared.failure()
        {
            return Err(MustEnd(failure.message.clone()));
        }
        let mut batch = Batch { at: self.begin.elapsed(), ..Batch::default() };
        let mut decoding = self.decoding();
        let pushed = match &mut *decoding {
            Decoding::Readable(decoder) => {
                batch.bytes.reserve(bytes.len());
                decoder.push(direction, bytes, &mut |event| batch.add(direction, event))
            }
            Decoding::Unreadable => {
                batch.entries.push(Entry::Count(direction, bytes.len() as u64));
                Ok(Some(bytes.len()))
            }
        };
        drop(decoding);
        if !batch.entries.is_empty() {
            self.send(batch);
        }
        match pushed {
            Ok(boundary) => Ok(boundary),
            Err(why) => {
                let unreadable = self.set_unreadable(why.0);
                // Where the API server's messages end is not known any more.
                if direction == Direction::FromServer {
                    *self.decoding() = Decoding::Unreadable;
                }
                unreadable.map(|()| None)
            }
        }
    }

    /// Finds the end of a message in bytes from the API server, without recording them.
    pub fn find_end(&self, bytes: &[u8]) -> Option<usize> {
        match &mut *self.decoding() {
            Decoding::Readable(decoder) => {
                decoder.push(Direction::FromServer, bytes, &mut |_| {}).unwrap_or(None)
            }
            Decoding::Unreadable => None,
        }
    }

    fn send(&self, batch: Batch) {
        // The writer hangs, and the recording has failed.
        if self.shared.queued.load(Ordering::Acquire) > 4 * MAX_QUEUED {
            return;
        }
        self.shared.queued.fetch_add(batch.cost(), Ordering::AcqRel);
        // If the writer is gone, `ready` notices.
        let _ = self.sender.send(Message::Batch(self.id, batch));
    }

    /// Waits until the writer has caught up, which it mostly has. If it takes too long, the
    /// recording fails.
    pub async fn ready(&self) {
        let deadline = tokio::time::Instant::now() + MAX_WAIT;
        while self.shared.queued.load(Ordering::Acquire) > MAX_QUEUED {
            let drained = self.shared.drained.notified();
            if self.shared.queued.load(Ordering::Acquire) <= MAX_QUEUED
                || self.shared.failure().is_some()
            {
                return;
            }
            if tokio::time::timeout_at(deadline, drained).await.is_err() {
                let message = format!("the disk is too slow: nothing was written for {MAX_WAIT:?}");
                self.shared.fail(FailureReason::Timeout, message);
            }
        }
    }

    /// Waits until the session must end because its recording has failed; forever in best-effort
    /// mode.
    pub async fn must_end(&self) -> MustEnd {
        if self.mode == Mode::BestEffort {
            return std::future::pending().await;
        }
        loop {
            let failed = self.shared.failed.notified();
            if let Some(failure) = self.shared.failure() {
                return MustEnd(failure.message.clone());
            }
            failed.await;
        }
    }

    /// Returns bytes that tell the client why its session ends; `None` in the middle of a message.
    /// `at_end`: they are sent at the place that [`Session::find_end`] returned.
    pub fn farewell(&self, why: &MustEnd, at_end: bool) -> Option<Vec<u8>> {
        let text = format!("kube-audit-proxy: session ended: {why}");
        match &*self.decoding() {
            Decoding::Readable(decoder) => decoder.farewell(&text, at_end),
            Decoding::Unreadable => Some(Vec::new()),
        }
    }

    /// Ends the recording.
    pub async fn finish(mut self) -> Outcome {
        self.is_ended = true;
        let (reply, outcome) = oneshot::channel();
        let failed = |why: &str| Outcome {
            file: self.file.clone(),
            error: Some(why.to_owned()),
            ..Outcome::default()
        };
        let at = self.begin.elapsed();
        if self.sender.send(Message::Finish(self.id, at, Some(reply))).is_err() {
            return failed("the writer has ended");
        }
        match tokio::time::timeout(MAX_WAIT, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => failed("the writer has ended"),
            Err(_) => failed("the disk is too slow: the recording could not be finished"),
        }
    }

    fn decoding(&self) -> MutexGuard<'_, Decoding> {
        self.decoding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        let at = self.begin.elapsed();
        let _ = self.sender.send(match self.is_upgraded.load(Ordering::Relaxed) {
            true => Message::Finish(self.id, at, None),
            false => Message::Discard(self.id),
        });
    }
}

impl Batch {
    /// Adds an event; data of a stream is joined with what is before it.
    fn add(&mut self, direction: Direction, event: SessionEvent<'_>) {
        let entry = match event {
            SessionEvent::Data(stream, bytes) => {
                self.bytes.extend_from_slice(bytes);
                if let Some(Entry::Data(last, length)) = self.entries.last_mut()
                    && *last == stream
                {
                    *length += bytes.len();
                    return;
                }
                Entry::Data(stream, bytes.len())
            }
            SessionEvent::Status(bytes) => {
                self.bytes.extend_from_slice(bytes);
                Entry::Status(bytes.len())
            }
            SessionEvent::Resize(columns, rows) => Entry::Resize(columns, rows),
            SessionEvent::Port(port) => Entry::Port(port),
            SessionEvent::Forwarded(bytes) => {
                if let Some(Entry::Count(_, count)) = self.entries.last_mut() {
                    *count += bytes;
                    return;
                }
                Entry::Count(direction, bytes)
            }
        };
        self.entries.push(entry);
    }
}
