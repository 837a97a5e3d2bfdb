//! Converts the events of a session to lines of its recording, sizes, and hashes.

use std::time::Duration;

use jiff::Timestamp;

use crate::cast::{self, CastEncoder, Summary};
use crate::stream_state::StreamState;
use crate::{Activity, Content, Direction, SessionEvent, Settings, Stream};

/// Maximum size of the Status at the end of a session.
const MAX_STATUS: usize = 64 << 10;
/// Maximum number of ports in the summary of a port-forward.
const MAX_PORTS: usize = 1000;

/// The lines of a recording that wait for the writer, and the data for the summary.
pub(crate) struct Script {
    /// Complete lines.
    pub(crate) lines: Vec<u8>,
    encoder: CastEncoder,
    /// Total size of all lines, including those already taken.
    taken: u64,
    max_size: u64,
    records_input: bool,
    records_binary: bool,
    is_command: bool,
    /// Whether no more content is recorded.
    is_closed: bool,
    bytes_in: u64,
    bytes_out: u64,
    streams: [StreamState; 3],
    status: Vec<u8>,
    ports: Vec<u16>,
}

impl Script {
    pub(crate) fn new(settings: &Settings, activity: Activity, tty: bool) -> Script {
        let records_binary = settings.content == Content::All;
        let stream = || StreamState::new(!tty, !records_binary);
        Script {
            lines: Vec::new(),
            encoder: CastEncoder::default(),
            taken: 0,
            max_size: settings.max_size.unwrap_or(u64::MAX),
            records_input: settings.input,
            records_binary,
            is_command: activity != Activity::PortForward,
            is_closed: false,
            bytes_in: 0,
            bytes_out: 0,
            streams: [stream(), stream(), stream()],
            status: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Takes all lines, and leaves `empty` in their place.
    pub(crate) fn take(&mut self, empty: Vec<u8>) -> Vec<u8> {
        let lines = std::mem::replace(&mut self.lines, empty);
        self.taken += lines.len() as u64;
        lines
    }

    /// Adds an event. [`Script::end_line`] follows the last one.
    pub(crate) fn add(&mut self, at: Duration, direction: Direction, event: SessionEvent<'_>) {
        match event {
            SessionEvent::Data(stream, bytes) => self.data(at, stream, bytes),
            SessionEvent::Status(bytes) => {
                let take = bytes.len().min(MAX_STATUS - self.status.len());
                self.status.extend_from_slice(&bytes[..take]);
            }
            SessionEvent::Resize(columns, rows) => {
                self.line(at, "r", &format!("{columns}x{rows}"));
            }
            SessionEvent::Port(port) => {
                if !self.ports.contains(&port) && self.ports.len() < MAX_PORTS {
                    self.ports.push(port);
                    self.line(at, "m", &format!("port {port}"));
                }
            }
            SessionEvent::Forwarded(bytes) => self.count(direction, bytes),
        }
    }

    /// Ends the line of the last event. Returns `true` if the recording is now too large.
    pub(crate) fn end_line(&mut self) -> bool {
        self.encoder.end_line(&mut self.lines);
        !self.is_closed && self.taken + self.lines.len() as u64 > self.max_size
    }

    /// Counts bytes that cannot be decoded.
    pub(crate) fn count(&mut self, direction: Direction, bytes: u64) {
        match direction {
            Direction::FromClient => self.bytes_in += bytes,
            Direction::FromServer => self.bytes_out += bytes,
        }
    }

    /// Adds a marker.
    pub(crate) fn add_marker(&mut self, at: Duration, text: &str) {
        self.line(at, "m", text);
    }

    /// Ends the recording of content; only hashes of output are computed.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        let [stdin, stdout, stderr] = &mut self.streams;
        // A hash of a few typed bytes would reveal them.
        if self.records_input {
            stdin.omit_rest();
        }
        stdout.omit_rest();
        stderr.omit_rest();
    }

    /// Adds a marker and ends the recording of content.
    pub(crate) fn end_content(&mut self, at: Duration, why: &str) {
        self.encoder.finish(at, &mut self.lines);
        self.add_marker(at, why);
        self.close();
    }

    /// Ends all recording.
    pub(crate) fn stop(&mut self) {
        self.is_closed = true;
        self.lines.clear();
    }

    fn data(&mut self, at: Duration, stream: Stream, bytes: &[u8]) {
        let state = &mut self.streams[stream as usize];
        let turned = state.count(bytes);
        match stream {
            Stream::Stdin => self.bytes_in += bytes.len() as u64,
            Stream::Stdout | Stream::Stderr => self.bytes_out += bytes.len() as u64,
        }
        if self.is_closed || (stream == Stream::Stdin && !self.records_input) {
            return;
        }
        let is_binary = state.is_binary();
        if is_binary && !self.records_binary {
            if turned {
                let text = format!(
                    "{} is not text: its size and SHA-256 are recorded, its content is not",
                    cast::stream_name(stream)
                );
                self.encoder.finish(at, &mut self.lines);
                self.line(at, "m", &text);
            }
            return;
        }
        state.recorded(bytes.len());
        match is_binary {
            true => self.encoder.binary(at, stream, bytes, &mut self.lines),
            false => self.encoder.data(at, stream, bytes, &mut self.lines),
        }
    }

    fn line(&mut self, at: Duration, code: &str, data: &str) {
        if !self.is_closed {
            self.encoder.line(at, code, data, &mut self.lines);
        }
    }

    /// Adds the last lines. `incomplete` is why the recording is incomplete, or empty.
    pub(crate) fn finish(&mut self, at: Duration, incomplete: String) -> Summary {
        let (exit_code, message) = ended(&self.status);
        let [stdin, stdout, stderr] = &mut self.streams;
        let summary = Summary {
            end: Timestamp::now().to_string(),
            duration: at.as_secs_f64(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            exit_code: exit_code.filter(|_| self.is_command),
            message,
            stdin: stdin.summary(),
            stdout: stdout.summary(),
            stderr: stderr.summary(),
            ports: std::mem::take(&mut self.ports),
            incomplete,
            salvaged: false,
        };
        self.encoder.finish(at, &mut self.lines);
        if let Some(code) = summary.exit_code {
            self.encoder.line(at, "x", &code.to_string(), &mut self.lines);
        }
        cast::summary(at, &summary, &mut self.lines);
        summary
    }
}

/// Returns the exit code and the message in the Status at the end of a session.
fn ended(status: &[u8]) -> (Option<i32>, String) {
    if status.is_empty() {
        return (None, String::new());
    }
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(status) else {
        // Before `v4.channel.k8s.io` it is plain text.
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
