//! Reading the audit log while it grows.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::wait_for;

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// As it stands in the file, without the line break.
    pub line: String,
    /// What it says.
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

    /// Returns a member of the event by JSON pointer; empty where it is missing or no string.
    pub fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub fn stage(&self) -> &str {
        self.text("/stage")
    }

    /// `Metadata`, `Request` or `RequestResponse`.
    pub fn level(&self) -> &str {
        self.text("/level")
    }

    /// Returns the audit ID.
    pub fn audit_id(&self) -> &str {
        self.text("/auditID")
    }

    /// `responseStatus.code`, 0 where there is none.
    pub fn code(&self) -> u64 {
        self.value.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Returns whether the request's record ends with this event.
    pub fn is_end(&self) -> bool {
        matches!(self.stage(), "ResponseComplete" | "Panic")
    }
}

/// A log file; reads on where it stopped, and only whole lines.
pub struct AuditLog {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
    events: Vec<Event>,
}

impl AuditLog {
    /// Of a file that need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, partial: Vec::new(), events: Vec::new() }
    }

    /// Every event so far.
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

    /// Waits until a request has `count` events, and gives them.
    pub async fn wait(&mut self, audit_id: &str, count: usize) -> Vec<Event> {
        wait_for(&format!("{count} events of {audit_id}"), || {
            Some(self.of(audit_id)).filter(|events| events.len() >= count)
        })
        .await
    }

    /// Waits until a request's record has ended, and gives its events.
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

/// Every line of a finished log.
pub fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
