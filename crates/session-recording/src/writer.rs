//! The threads that write recordings.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::cast::{self, CastEncoder, Summary};
use crate::files;
use crate::metrics::FailureReason;
use crate::session::Shared;
use crate::stream_state::StreamState;
use crate::{
    Activity, Content, Description, Direction, Mode, Outcome, RecordingMetrics, Settings, Stream,
};

mod file;

use file::RecordingFile;

/// How long a recording may lag behind its session on the disk.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How often old recordings are looked for.
const RETENTION_INTERVAL: Duration = Duration::from_secs(30);
/// Longest report of how a session ended.
const MAX_STATUS: usize = 64 << 10;
/// Most ports in the summary of a port-forward.
const MAX_PORTS: usize = 1000;

/// A message to a writer.
pub(crate) enum Message {
    Begin(u64, Box<Create>),
    Batch(u64, Batch),
    Finish(u64, Duration, Option<oneshot::Sender<Outcome>>),
    Discard(u64),
}

/// A recording to be created.
pub(crate) struct Create {
    pub(crate) activity: Activity,
    pub(crate) description: Description,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reply: oneshot::Sender<io::Result<String>>,
}

/// What happened at a time.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) at: Duration,
    pub(crate) entries: Vec<Entry>,
    /// The bytes of all entries, in order.
    pub(crate) bytes: Vec<u8>,
}

/// Something that happened; with the number of its bytes.
#[derive(Debug)]
pub(crate) enum Entry {
    Data(Stream, usize),
    Status(usize),
    Resize(u16, u16),
    Port(u16),
    Count(Direction, u64),
    Remark(String),
}

impl Batch {
    /// Returns about how much memory it takes.
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + self.entries.len() * 64 + 64
    }
}

/// A thread's recordings.
pub(crate) struct Writer {
    settings: Arc<Settings>,
    metrics: Arc<RecordingMetrics>,
    sessions: HashMap<u64, Recorded>,
}

struct Recorded {
    file: RecordingFile,
    encoder: CastEncoder,
    lines: Vec<u8>,
    shared: Arc<Shared>,
    activity: Activity,
    tty: bool,
    bytes_in: u64,
    bytes_out: u64,
    streams: [StreamState; 3],
    status: Vec<u8>,
    ports: Vec<u16>,
    /// The recording is as large as it may get.
    is_full: bool,
}

impl Writer {
    pub(crate) fn new(settings: Arc<Settings>, metrics: Arc<RecordingMetrics>) -> Writer {
        Writer { settings, metrics, sessions: HashMap::new() }
    }

    /// Works until all senders are gone. `cleans`: whether it deletes old recordings, too.
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
                self.sessions.values_mut().for_each(Recorded::flush);
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
                let Create { activity, description, shared, reply } = *create;
                let created = self.create(id, activity, &description, shared);
                // Who asked may have given up; then the recording is discarded.
                let _ = reply.send(created);
            }
            Message::Batch(id, batch) => {
                if let Some(recorded) = self.sessions.get_mut(&id) {
                    let cost = batch.cost();
                    recorded.write(batch, &self.settings);
                    recorded.shared.taken(cost);
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
        activity: Activity,
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
        let recorded = Recorded {
            file,
            encoder: CastEncoder::default(),
            lines: Vec::new(),
            shared,
            activity,
            tty: description.tty,
            bytes_in: 0,
            bytes_out: 0,
            streams: [StreamState::new(), StreamState::new(), StreamState::new()],
            status: Vec::new(),
            ports: Vec::new(),
            is_full: false,
        };
        self.sessions.insert(id, recorded);
        Ok(name)
    }

    fn finish(&self, mut recorded: Recorded, at: Duration) -> Outcome {
        self.metrics.active.dec();
        let summary = recorded.finish(at);
        let mut error = recorded.shared.failure().cloned();
        let (exit_code, bytes_in, bytes_out) =
            (summary.exit_code, summary.bytes_in, summary.bytes_out);
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
        Outcome { file, sha256, bytes_in, bytes_out, exit_code, error }
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
    fn write(&mut self, batch: Batch, settings: &Settings) {
        let Batch { at, entries, bytes } = batch;
        let mut rest = &bytes[..];
        for entry in entries {
            match entry {
                Entry::Data(stream, length) => {
                    let (data, after) = rest.split_at(length);
                    rest = after;
                    self.data(at, stream, data, settings);
                }
                Entry::Status(length) => {
                    let (status, after) = rest.split_at(length);
                    rest = after;
                    let take = length.min(MAX_STATUS - self.status.len());
                    self.status.extend_from_slice(&status[..take]);
                }
                Entry::Resize(columns, rows) => {
                    self.add(|_, lines| cast::line(at, "r", &format!("{columns}x{rows}"), lines));
                }
                Entry::Port(port) => {
                    if !self.ports.contains(&port) && self.ports.len() < MAX_PORTS {
                        self.ports.push(port);
                        self.add(|_, lines| cast::line(at, "m", &format!("port {port}"), lines));
                    }
                }
                Entry::Count(direction, count) => match direction {
                    Direction::FromClient => self.bytes_in += count,
                    Direction::FromServer => self.bytes_out += count,
                },
                Entry::Remark(text) => self.add(|_, lines| cast::line(at, "m", &text, lines)),
            }
        }
        self.put(settings);
    }

    fn data(&mut self, at: Duration, stream: Stream, bytes: &[u8], settings: &Settings) {
        let state = &mut self.streams[stream as usize];
        let may_be_binary = !self.tty;
        let turned = state.count(bytes, may_be_binary);
        match stream {
            Stream::Stdin => self.bytes_in += bytes.len() as u64,
            Stream::Stdout | Stream::Stderr => self.bytes_out += bytes.len() as u64,
        }
        if stream == Stream::Stdin && !settings.input {
            return;
        }
        let is_binary = state.is_binary;
        if is_binary && settings.content == Content::Auto {
            if turned {
                let text = format!(
                    "{} is not text: its size and SHA-256 are recorded, its content is not",
                    cast::stream_name(stream)
                );
                self.add(|encoder, lines| {
                    encoder.finish(at, lines);
                    cast::line(at, "m", &text, lines);
                });
            }
            return;
        }
        if self.is_full {
            return;
        }
        state.recorded(bytes.len());
        self.add(|encoder, lines| match is_binary {
            true => cast::binary(at, stream, bytes, lines),
            false => encoder.data(at, stream, bytes, lines),
        });
    }

    /// Adds lines, unless the recording is full.
    fn add(&mut self, lines: impl FnOnce(&mut CastEncoder, &mut Vec<u8>)) {
        if !self.is_full {
            lines(&mut self.encoder, &mut self.lines);
        }
    }

    /// Gives the lines to the file.
    fn put(&mut self, settings: &Settings) {
        if self.lines.is_empty() {
            return;
        }
        let written = self.file.write(&self.lines);
        self.lines.clear();
        if let Err(error) = written {
            self.failed(&error);
        }
        if settings.max_size.is_some_and(|max| self.file.size() > max) && !self.is_full {
            let at = self.file.elapsed();
            let message = "the recording has reached its maximum size".to_owned();
            self.add(|encoder, lines| {
                encoder.finish(at, lines);
                cast::line(at, "m", &message, lines);
            });
            self.put_rest();
            self.is_full = true;
            self.shared.fail(FailureReason::Size, message);
            if settings.mode == Mode::BestEffort {
                tracing::warn!(
                    file = self.file.name(),
                    "a session recording has reached its maximum size"
                );
            }
        }
    }

    fn put_rest(&mut self) {
        let written = self.file.write(&self.lines);
        self.lines.clear();
        if let Err(error) = written {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let message = format!("the recording cannot be written: {error}");
        if self.shared.fail(FailureReason::Io, message) {
            tracing::error!(file = self.file.name(), %error, "cannot write a session recording");
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.file.flush() {
            self.failed(&error);
        }
    }

    /// Writes the summary.
    fn finish(&mut self, at: Duration) -> Summary {
        let (exit_code, message) = ended(&self.status);
        let is_command = self.activity != Activity::PortForward;
        let hashes = !self.tty;
        let [stdin, stdout, stderr] = &mut self.streams;
        // The hash of a few typed bytes would betray them.
        let stdin_hashes = hashes && stdin.is_binary;
        let end = Timestamp::now();
        let summary = Summary {
            end: end.to_string(),
            duration: at.as_secs_f64(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            exit_code: exit_code.filter(|_| is_command),
            message,
            stdin: stdin.summary(stdin_hashes),
            stdout: stdout.summary(true),
            stderr: stderr.summary(true),
            ports: std::mem::take(&mut self.ports),
            incomplete: self.shared.failure().map(|f| f.message.clone()).unwrap_or_default(),
            salvaged: false,
        };
        self.encoder.finish(at, &mut self.lines);
        if let Some(code) = summary.exit_code {
            cast::line(at, "x", &code.to_string(), &mut self.lines);
        }
        cast::summary(at, &summary, &mut self.lines);
        self.put_rest();
        summary
    }
}

/// Returns the exit code and the message in what the API server reported at the end.
fn ended(status: &[u8]) -> (Option<i32>, String) {
    if status.is_empty() {
        return (None, String::new());
    }
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(status) else {
        // Before `v4.channel.k8s.io` it is a text.
        return (None, String::from_utf8_lossy(status).into_owned());
    };
    if json["status"] == "Success" {
        return (Some(0), String::new());
    }
    let causes = json["details"]["causes"].as_array();
    let mut causes = causes.into_iter().flatten();
    let code = causes.find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
    (code, json["message"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::ended;

    #[test]
    fn the_exit_code_is_in_the_status() {
        let failure = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(ended(failure).0, Some(42));
        assert_eq!(ended(br#"{"metadata":{},"status":"Success"}"#), (Some(0), String::new()));
        assert_eq!(ended(b"no such container"), (None, "no such container".to_owned()));
        assert_eq!(ended(b""), (None, String::new()));
    }
}
