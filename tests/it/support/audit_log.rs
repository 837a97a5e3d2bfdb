//! Reads the audit log while it is written.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::wait_for;

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// The line in the file, without the line break.
    pub line: String,
    /// The parsed event.
    pub value: Value,
}

impl Event {
    fn parse(line: &str) -> Self {
        let value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("not a line of JSON ({error}): {line}"));
        Self { line: line.to_owned(), value }
    }

    /// Returns a member of the event by JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    /// Returns a string member of the event by JSON pointer; empty if it is missing.
    pub fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// Returns `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub fn stage(&self) -> &str {
        self.text("/stage")
    }

    /// Returns `Metadata`, `Request` or `RequestResponse`.
    pub fn level(&self) -> &str {
        self.text("/level")
    }

    /// Returns the audit ID.
    pub fn audit_id(&self) -> &str {
        self.text("/auditID")
    }

    /// Returns `responseStatus.code`; 0 if it is missing.
    pub fn code(&self) -> u64 {
        self.value.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Returns whether this is the last event of its request.
    pub fn is_end(&self) -> bool {
        matches!(self.stage(), "ResponseComplete" | "Panic")
    }
}

/// Reads a log file incrementally, only complete lines.
pub struct AuditLog {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
    events: Vec<Event>,
}

impl AuditLog {
    /// Creates a reader for a file that need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, partial: Vec::new(), events: Vec::new() }
    }

    /// Returns all events so far.
    pub fn events(&mut self) -> &[Event] {
        for line in self.new_lines() {
            self.events.push(Event::parse(&line));
        }
        &self.events
    }

    /// Returns the events of one request so far.
    pub fn of(&mut self, audit_id: &str) -> Vec<Event> {
        self.events().iter().filter(|event| event.audit_id() == audit_id).cloned().collect()
    }

    /// Waits until a request has `count` events, and returns them.
    pub async fn wait(&mut self, audit_id: &str, count: usize) -> Vec<Event> {
        wait_for(&format!("{count} events of {audit_id}"), || {
            Some(self.of(audit_id)).filter(|events| events.len() >= count)
        })
        .await
    }

    /// Waits for the last event of a request, and returns its events.
    pub async fn wait_end(&mut self, audit_id: &str) -> Vec<Event> {
        wait_for(&format!("the end of the record of {audit_id}"), || {
            Some(self.of(audit_id)).filter(|events| events.iter().any(Event::is_end))
        })
        .await
    }

    fn new_lines(&mut self) -> Vec<String> {
        let Ok(mut file) = std::fs::File::open(&self.path) else { return Vec::new() };
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        self.offset += file.read_to_end(&mut self.partial).unwrap() as u64;
        let Some(end) = self.partial.iter().rposition(|&byte| byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let text = String::from_utf8(whole).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Returns all lines of a completed log.
pub fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
