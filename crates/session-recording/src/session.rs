//! A session that is being recorded, for the task of its connection.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::metrics::FailureReason;
use crate::script::Script;
use crate::writer::Message;
use crate::{Activity, Decoder, Direction, Mode, Protocol};

/// Number of bytes for which the writer is woken. It also takes lines once a second.
pub(crate) const BLOCK: usize = 256 << 10;
/// Maximum number of bytes that may wait for the writer.
const MAX_WAITING: usize = 512 << 10;
const TOO_LARGE: &str = "the recording has reached its maximum size";
/// Maximum time that a session waits for the writer before its recording fails.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Why a session is no longer recorded.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
}

/// The state shared by the connection's task and the writer.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Bytes that wait for the writer.
    waiting: AtomicUsize,
    drained: Notify,
    failure: OnceLock<Failure>,
    failed: Notify,
}

struct State {
    decoding: Decoding,
    script: Script,
    /// Whether the writer has been woken for the waiting lines.
    is_announced: bool,
}

enum Decoding {
    Readable(Box<Decoder>),
    /// The protocol is not supported; only sizes are recorded.
    Unreadable,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(script: Script) -> Shared {
        let state = State { decoding: Decoding::Unreadable, script, is_announced: false };
        Shared {
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            drained: Notify::new(),
            failure: OnceLock::new(),
            failed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the first failure.
    pub(crate) fn fail(&self, reason: FailureReason, message: String) -> bool {
        let is_first = self.failure.set(Failure { reason, message }).is_ok();
        self.failed.notify_one();
        is_first
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// Changes the lines that wait for the writer.
    pub(crate) fn with_script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.state().script)
    }

    /// Takes the waiting lines. If there are many, `spare` replaces their buffer.
    pub(crate) fn take_lines(&self, spare: &mut Vec<u8>) -> Vec<u8> {
        let mut state = self.state();
        state.is_announced = false;
        let is_much = state.script.lines.len() >= BLOCK;
        let empty = if is_much { std::mem::take(spare) } else { Vec::new() };
        let lines = state.script.take(empty);
        let before = self.waiting.swap(0, Ordering::AcqRel);
        drop(state);
        if before > MAX_WAITING {
            // Both directions may wait.
            self.drained.notify_waiters();
            self.drained.notify_one();
        }
        lines
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
    /// Streams whose content should be in the recording and is not, or only in part.
    pub omitted: Vec<&'static str>,
    /// Why the recording is not complete.
    pub error: Option<String>,
}

/// Why a session must end: it cannot be recorded, and must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordingFailed(pub String);

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
    is_upgraded: AtomicBool,
    is_ended: bool,
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
        let is_upgraded = AtomicBool::new(false);
        Session { id, file, mode, activity, begin, sender, shared, is_upgraded, is_ended: false }
    }

    /// Returns the name of the file after the end of the session.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns the activity of the session.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// Sets the negotiated protocol.
    pub fn set_protocol(&self, protocol: Protocol) {
        let decoder = Box::new(Decoder::new(self.activity, protocol));
        self.shared.state().decoding = Decoding::Readable(decoder);
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    /// Records that the protocol is not supported.
    ///
    /// # Errors
    /// If the session must be recorded.
    pub fn set_unreadable(&self, why: &str) -> Result<(), RecordingFailed> {
        let message = format!("the session cannot be recorded: {why}");
        self.fail(FailureReason::Protocol, message.clone())?;
        self.is_upgraded.store(true, Ordering::Relaxed);
        let at = self.begin.elapsed();
        let mut state = self.shared.state();
        state.decoding = Decoding::Unreadable;
        state.script.add_marker(at, &message);
        Ok(())
    }

    fn fail(&self, reason: FailureReason, message: String) -> Result<(), RecordingFailed> {
        self.shared.fail(reason, message.clone());
        match self.mode {
            Mode::Strict => Err(RecordingFailed(message)),
            Mode::BestEffort => Ok(()),
        }
    }

    /// Records bytes that are about to be forwarded. Returns the number of bytes up to the last
    /// position at which the session can be ended by [`Session::farewell`], if there is one.
    ///
    /// # Errors
    /// If they must be recorded and cannot be; then they must not be forwarded.
    pub fn push(
        &self,
        direction: Direction,
        bytes: &[u8],
    ) -> Result<Option<usize>, RecordingFailed> {
        if self.mode == Mode::Strict
            && let Some(failure) = self.shared.failure()
        {
            return Err(RecordingFailed(failure.message.clone()));
        }
        let at = self.begin.elapsed();
        let mut state = self.shared.state();
        let State { decoding, script, is_announced } = &mut *state;
        // The writer hangs, and the recording has failed.
        let is_lost = script.lines.len() > 4 * MAX_WAITING;
        let pushed = match decoding {
            Decoding::Readable(decoder) => decoder.push(direction, bytes, &mut |event| {
                if !is_lost {
                    script.add(at, direction, event);
                }
            }),
            Decoding::Unreadable => {
                script.count(direction, bytes.len() as u64);
                Ok(Some(bytes.len()))
            }
        };
        let is_too_large = script.end_line();
        if is_too_large {
            script.end_content(at, TOO_LARGE);
        }
        let waiting = script.lines.len();
        self.shared.waiting.store(waiting, Ordering::Release);
        let wakes = waiting >= BLOCK && !std::mem::replace(is_announced, true);
        *is_announced &= waiting >= BLOCK;
        drop(state);
        if wakes {
            // If the writer has ended, `ready` detects it.
            let _ = self.sender.send(Message::Lines(self.id));
        }
        if is_too_large {
            self.shared.fail(FailureReason::Size, TOO_LARGE.to_owned());
            if self.mode == Mode::BestEffort {
                tracing::warn!(
                    file = self.file,
                    "a session recording has reached its maximum size"
                );
            }
        }
        match pushed {
            Ok(boundary) => Ok(boundary),
            Err(why) => {
                let unreadable = self.set_unreadable(why.0);
                // The end of the API server's message is then unknown.
                if direction == Direction::FromServer {
                    self.shared.state().decoding = Decoding::Unreadable;
                }
                unreadable.map(|()| None)
            }
        }
    }

    /// Finds the end of a message in bytes from the API server, without recording them.
    pub fn find_end(&self, bytes: &[u8]) -> Option<usize> {
        match &mut self.shared.state().decoding {
            Decoding::Readable(decoder) => {
                decoder.push(Direction::FromServer, bytes, &mut |_| {}).unwrap_or(None)
            }
            Decoding::Unreadable => None,
        }
    }

    /// Waits until the writer has caught up, which is usually the case. If that takes too long, the
    /// recording fails.
    pub async fn ready(&self) {
        let deadline = tokio::time::Instant::now() + MAX_WAIT;
        while self.shared.waiting.load(Ordering::Acquire) > MAX_WAITING {
            let drained = self.shared.drained.notified();
            if self.shared.waiting.load(Ordering::Acquire) <= MAX_WAITING
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
    pub async fn must_end(&self) -> RecordingFailed {
        if self.mode == Mode::BestEffort {
            return std::future::pending().await;
        }
        loop {
            let failed = self.shared.failed.notified();
            if let Some(failure) = self.shared.failure() {
                return RecordingFailed(failure.message.clone());
            }
            failed.await;
        }
    }

    /// Returns bytes that tell the client why its session ends; `None` in the middle of a message.
    /// `at_end`: they are sent at the position that [`Session::find_end`] returned.
    pub fn farewell(&self, why: &RecordingFailed, at_end: bool) -> Option<Vec<u8>> {
        let text = format!("kube-audit-proxy: session ended: {why}");
        match &self.shared.state().decoding {
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
