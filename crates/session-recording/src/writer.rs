//! The threads that write recordings.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::cast::CastEncoder;
use crate::files;
use crate::metrics::FailureReason;
use crate::script::Script;
use crate::session::{BLOCK, Shared};
use crate::{Description, Outcome, RecordingMetrics, Settings};

mod file;

use file::RecordingFile;

/// Maximum delay between a session and its recording on disk.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between deletions of old recordings.
const RETENTION_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum size of a buffer that is reused.
const MAX_SPARE: usize = 1 << 20;

/// A message to a writer, of the session with that number.
pub(crate) enum Message {
    Begin(u64, Box<Create>),
    /// Lines are waiting.
    Lines(u64),
    Finish(u64, Duration, Option<oneshot::Sender<Outcome>>),
    Discard(u64),
}

/// A request to create a recording.
pub(crate) struct Create {
    pub(crate) description: Description,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reply: oneshot::Sender<io::Result<String>>,
}

/// The recordings of one thread.
pub(crate) struct Writer {
    settings: Arc<Settings>,
    metrics: Arc<RecordingMetrics>,
    sessions: HashMap<u64, Recorded>,
    /// An empty buffer.
    spare: Vec<u8>,
}

struct Recorded {
    file: RecordingFile,
    shared: Arc<Shared>,
}

impl Writer {
    pub(crate) fn new(settings: Arc<Settings>, metrics: Arc<RecordingMetrics>) -> Writer {
        Writer { settings, metrics, sessions: HashMap::new(), spare: Vec::new() }
    }

    /// Runs until all senders are dropped. `cleans`: also deletes old recordings.
    pub(crate) fn run(&mut self, receiver: &Receiver<Message>, cleans: bool) {
        let mut next_flush = Instant::now() + FLUSH_INTERVAL;
        let mut next_clean = Instant::now();
        loop {
            let wait = if self.sessions.is_empty() {
                RETENTION_INTERVAL
            } else {
                next_flush.saturating_duration_since(Instant::now())
            };
            match receiver.recv_timeout(wait) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if now >= next_flush {
                self.sessions.values_mut().for_each(|recorded| recorded.flush(&mut self.spare));
                next_flush = now + FLUSH_INTERVAL;
            }
            if cleans && now >= next_clean {
                self.clean();
                next_clean = now + RETENTION_INTERVAL;
            }
        }
        for (_, recorded) in std::mem::take(&mut self.sessions) {
            let at = recorded.file.elapsed();
            let _ = self.finish(recorded, at);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Begin(id, create) => {
                let Create { description, shared, reply } = *create;
                let created = self.create(id, &description, shared);
                // If the requester no longer waits, the recording is discarded.
                let _ = reply.send(created);
            }
            Message::Lines(id) => {
                if let Some(recorded) = self.sessions.get_mut(&id) {
                    recorded.write(&mut self.spare);
                }
            }
            Message::Finish(id, at, reply) => {
                if let Some(recorded) = self.sessions.remove(&id) {
                    let outcome = self.finish(recorded, at);
                    if let Some(reply) = reply {
                        let _ = reply.send(outcome);
                    }
                }
            }
            Message::Discard(id) => {
                if let Some(recorded) = self.sessions.remove(&id) {
                    self.metrics.active.dec();
                    recorded.file.discard();
                }
            }
        }
    }

    fn create(
        &mut self,
        id: u64,
        description: &Description,
        shared: Arc<Shared>,
    ) -> io::Result<String> {
        let Settings { dir, compress, .. } = &*self.settings;
        let start = Timestamp::now();
        let created = files::create(dir, start, &description.audit_id, *compress)?;
        let name = created.name.clone();
        let mut file = RecordingFile::new(created, *compress, self.metrics.bytes.clone())?;
        let mut header = Vec::new();
        CastEncoder::header(description, start.as_second(), &mut header);
        let written = file.write(&header).and_then(|()| file.flush());
        if let Err(error) = written {
            file.discard();
            return Err(error);
        }
        self.metrics.active.inc();
        self.metrics.started.inc();
        self.sessions.insert(id, Recorded { file, shared });
        Ok(name)
    }

    fn finish(&mut self, mut recorded: Recorded, at: Duration) -> Outcome {
        self.metrics.active.dec();
        let failure = recorded.shared.failure();
        let incomplete = failure.map(|failure| failure.message.clone()).unwrap_or_default();
        let summary = recorded.shared.with_script(|script| script.finish(at, incomplete));
        recorded.write(&mut self.spare);
        let mut error = recorded.shared.failure().cloned();
        let (exit_code, bytes_in, bytes_out) =
            (summary.exit_code, summary.bytes_in, summary.bytes_out);
        let omitted = summary.omitted(self.settings.input);
        let (file, sha256) = recorded.file.finish();
        let sha256 = match sha256 {
            Ok(sha256) => Some(sha256),
            Err(source) => {
                error.get_or_insert_with(|| crate::session::Failure {
                    reason: FailureReason::Io,
                    message: format!("the recording cannot be written: {source}"),
                });
                None
            }
        };
        if let Some(failure) = &error {
            self.metrics.failed(failure.reason);
            tracing::error!(%file, error = failure.message, "a session was not recorded completely");
        }
        let error = error.map(|failure| failure.message);
        Outcome { file, sha256, bytes_in, bytes_out, exit_code, omitted, error }
    }

    fn clean(&self) {
        let Settings { dir, retention, .. } = &*self.settings;
        match files::retain(dir, *retention, SystemTime::now()) {
            Ok(deleted) => drop(self.metrics.deleted.inc_by(deleted as u64)),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "cannot delete old recordings")
            }
        }
    }
}

impl Recorded {
    /// Writes the waiting lines.
    fn write(&mut self, spare: &mut Vec<u8>) {
        let mut lines = self.shared.take_lines(spare);
        if lines.is_empty() {
            return;
        }
        if let Err(error) = self.file.write(&lines) {
            self.failed(&error);
        }
        if (BLOCK..=MAX_SPARE).contains(&lines.capacity()) {
            lines.clear();
            *spare = lines;
        }
    }

    fn failed(&mut self, error: &io::Error) {
        // Later lines cannot be written, so they are not encoded.
        self.shared.with_script(Script::stop);
        let message = format!("the recording cannot be written: {error}");
        if self.shared.fail(FailureReason::Io, message) {
            tracing::error!(file = self.file.name(), %error, "cannot write a session recording");
        }
    }

    fn flush(&mut self, spare: &mut Vec<u8>) {
        self.write(spare);
        if let Err(error) = self.file.flush() {
            self.failed(&error);
        }
    }
}
