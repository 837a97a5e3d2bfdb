//! An entry of `sinks` in the file of `--config`: a sink with a policy of its own.
//!
//! Its keys are the flags for one log or one webhook without what the type says already:
//! `batch-max-size` is `--audit-log-batch-max-size` in an entry of type `file`, and
//! `--audit-webhook-batch-max-size` in one of type `webhook`. So whatever can be said by flags can
//! be said here, and is checked in the same way.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches};
use serde_yaml::{Location, Spanned};

use super::file::{Entries, FileError, Value, check, command};
use super::flags::ServeFlags;
use super::s3_sink::S3Keys;

/// One sink, as it is written.
#[derive(Debug, Clone)]
pub struct SinkEntry {
    /// `name`
    pub name: String,
    /// `type`
    pub kind: SinkType,
    /// What else it says, as if by flags.
    pub flags: Box<ServeFlags>,
    /// The same of an entry of the type `s3`, whose keys are no flags.
    pub s3: Option<Box<S3Keys>>,
    /// Where it says so.
    pub place: Place,
}

/// `type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkType {
    /// A log file.
    File,
    /// Standard output.
    Stdout,
    /// A webhook endpoint.
    Webhook,
    /// Object storage.
    S3,
}

/// Keys of every type, which are flags with `audit-` before them.
const COMMON: [&str; 4] = ["policy-file", "redact", "max-body-bytes", "max-request-body-bytes"];

/// Keys that standard output has no use for.
const OF_FILES: [&str; 8] =
    ["path", "maxsize", "maxage", "maxbackup", "compress", "index", "sync", "sync-interval"];

impl SinkType {
    pub(super) const ALL: [(SinkType, &'static str); 4] = [
        (SinkType::File, "file"),
        (SinkType::Stdout, "stdout"),
        (SinkType::Webhook, "webhook"),
        (SinkType::S3, "s3"),
    ];

    fn as_str(self) -> &'static str {
        let named = SinkType::ALL.into_iter().find(|(kind, _)| *kind == self);
        named.map_or("", |(_, name)| name)
    }

    /// What the flags of this type begin with.
    fn prefix(self) -> &'static str {
        match self {
            SinkType::File | SinkType::Stdout => "audit-log-",
            SinkType::Webhook => "audit-webhook-",
            SinkType::S3 => "",
        }
    }

    pub(super) fn flag(self, key: &str) -> String {
        let prefix = if COMMON.contains(&key) { "audit-" } else { self.prefix() };
        format!("{prefix}{key}")
    }

    /// The flags that its keys are, beside those of every type.
    pub(super) fn command(self) -> clap::Command {
        match self {
            SinkType::S3 => S3Keys::augment_args(clap::Command::new("s3")).no_binary_name(true),
            SinkType::File | SinkType::Stdout | SinkType::Webhook => command(),
        }
    }

    /// All keys that it takes.
    pub(super) fn keys(self) -> Vec<String> {
        let command = self.command();
        let flags = command.get_arguments().filter_map(clap::Arg::get_long);
        let own = flags.filter_map(|flag| flag.strip_prefix(self.prefix()));
        let own = own.filter(|key| self != SinkType::Stdout || !OF_FILES.contains(key));
        let first = ["name", "type"].into_iter().chain(COMMON);
        first.chain(own).map(str::to_owned).collect()
    }
}

/// Whether a flag says what entries of `sinks` say, so that both cannot be.
pub(super) fn is_of_sinks(flag: &str) -> bool {
    ["audit-log-", "audit-webhook-"].iter().any(|prefix| flag.starts_with(prefix))
        || flag.strip_prefix("audit-").is_some_and(|key| COMMON.contains(&key))
}

/// Where an entry and its values are.
#[derive(Debug, Clone)]
pub struct Place {
    file: PathBuf,
    index: usize,
    at: (u64, u64),
    /// For each flag, its value.
    values: Vec<(String, (u64, u64))>,
}

impl Place {
    /// What is wrong with the entry, in its own words: `message` begins with the flag that it is
    /// about, if it is about one.
    pub fn says(&self, message: &str) -> String {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let flag = message.strip_prefix("--").map(|rest| rest.split(|c| !is_name(c)).next());
        let value = |flag| self.values.iter().find(|(known, _)| Some(known.as_str()) == flag);
        let (line, column) = flag.and_then(value).map_or(self.at, |(_, at)| *at);
        let (file, index, message) = (self.file.display(), self.index, as_keys(message));
        format!("{file}:{line}:{column}: sinks[{index}]: {message}")
    }
}

/// A text about flags as one about keys.
fn as_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("--") {
        out.push_str(&rest[..at]);
        let flag = &rest[at + 2..];
        let prefixes = ["audit-log-", "audit-webhook-", "audit-"];
        let key = prefixes.iter().find_map(|prefix| flag.strip_prefix(prefix)).unwrap_or(flag);
        let end = key.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(key.len());
        out.push_str(&key[..end]);
        rest = &key[end..];
        if let Some(value) = rest.strip_prefix('=') {
            out.push_str(": ");
            rest = value;
        }
    }
    out.push_str(rest);
    out
}

/// The entries of the list that stands at `at`.
pub(super) fn parse(file: &Path, list: Value, at: Location) -> Result<Vec<SinkEntry>, FileError> {
    let wrong = |message: &str| Err(error(file, at, message.to_owned()));
    let Value::Many(entries) = list else {
        return wrong("sinks is a list; write `- name: …` for each sink");
    };
    if entries.is_empty() {
        return wrong("sinks is empty: nothing would be recorded; add one, or remove sinks");
    }
    let entries = entries.into_iter().enumerate();
    entries.map(|(index, entry)| one(file, index, entry)).collect()
}

fn one(file: &Path, index: usize, entry: Spanned<Value>) -> Result<SinkEntry, FileError> {
    let at = entry.referenced;
    let wrong = |at, message: String| error(file, at, format!("sinks[{index}]: {message}"));
    let Value::Map(Entries(members)) = entry.value else {
        let message = "an entry must be a map with name, type, policy-file and other keys";
        return Err(wrong(at, message.to_owned()));
    };
    let text = |wanted: &str, remedy: &str| match members.iter().find(|(k, _)| k.value == wanted) {
        Some((_, Spanned { value: Value::One(text), referenced, .. })) => {
            Ok((text.clone(), *referenced))
        }
        Some((_, value)) => {
            Err(wrong(value.referenced, format!("{wanted} must be a string: {remedy}")))
        }
        None => Err(wrong(at, format!("{wanted} is missing: {remedy}"))),
    };
    let (kind, kind_at) = text("type", "write file, stdout, webhook or s3")?;
    let known = SinkType::ALL.into_iter().find(|(_, name)| *name == kind);
    let (kind, _) = known.ok_or_else(|| {
        wrong(kind_at, format!("there is no type {kind:?}; write file, stdout, webhook or s3"))
    })?;
    let (name, name_at) = text("name", "it identifies the sink in metrics and health checks")?;
    if !is_label(&name) {
        let message = "is not a valid sink name; use up to 63 of a-z, 0-9 and -, such as siem";
        return Err(wrong(name_at, format!("{name:?} {message}")));
    }
    let mut place = Place { file: file.to_owned(), index, at: position(at), values: Vec::new() };
    let keys = kind.keys();
    let (mut arguments, mut own) = (Vec::new(), Vec::new());
    if kind == SinkType::Stdout {
        arguments.push(OsString::from("--audit-log-path=-"));
    }
    for (key, value) in &members {
        if !keys.contains(&key.value) {
            return Err(wrong(key.referenced, unknown(kind, &key.value, &keys)));
        }
        let flag = match key.value.as_str() {
            "name" | "type" => continue,
            key => kind.flag(key),
        };
        place.values.push((flag.clone(), position(value.referenced)));
        let texts = value.value.texts(value.referenced);
        let texts = texts.map_err(|at| {
            wrong(at, format!("{} must be a value or a list of values", key.value))
        })?;
        for (text, at) in texts {
            let argument = OsString::from(format!("--{flag}={text}"));
            if kind == SinkType::S3 && !COMMON.contains(&key.value.as_str()) {
                own.push(argument.clone());
                let parsed = kind.command().try_get_matches_from([argument]);
                parsed.map_err(|error| wrong(at, as_keys(&one_line(&error))))?;
                continue;
            }
            check(&flag, key.referenced, at, &argument)
                .map_err(|(at, message)| wrong(at, as_keys(&message)))?;
            arguments.push(argument);
        }
    }
    let place_of = place.clone();
    if !place.values.iter().any(|(flag, _)| flag == "audit-policy-file") {
        let message = "policy-file is missing: it selects what is recorded";
        return Err(wrong(at, message.to_owned()));
    }
    let matches = command().try_get_matches_from(arguments);
    let flags = matches.and_then(|matches| ServeFlags::from_arg_matches(&matches));
    let flags = flags.map_err(|error| wrong(at, as_keys(&error.to_string())))?;
    let s3 = (kind == SinkType::S3).then(|| {
        let matches = kind.command().try_get_matches_from(own);
        matches.and_then(|matches| S3Keys::from_arg_matches(&matches)).map(Box::new)
    });
    let s3 = s3.transpose().map_err(|error| wrong(at, as_keys(&one_line(&error))))?;
    Ok(SinkEntry { name, kind, flags: Box::new(flags), s3, place: place_of })
}

/// What clap says of a value, in one line.
fn one_line(error: &clap::Error) -> String {
    let message = error.to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let message = message.split("\n\nFor more information").next().unwrap_or(message);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unknown(kind: SinkType, key: &str, keys: &[String]) -> String {
    let of = kind.as_str();
    let argument = OsString::from(format!("--{}=", kind.flag(key)));
    let nearest = super::file::nearest(kind.command(), &argument).and_then(|flag| {
        let key = flag.strip_prefix(kind.prefix()).or_else(|| flag.strip_prefix("audit-"));
        key.map(str::to_owned).filter(|key| keys.contains(key))
    });
    match nearest {
        Some(nearest) => {
            format!("a sink of type {of} has no {key:?}; did you mean {nearest:?}?")
        }
        None => format!("a sink of type {of} has no {key:?}; it has {}", keys.join(", ")),
    }
}

/// As the labels of DNS names, which Kubernetes' own names are.
fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn position(at: Location) -> (u64, u64) {
    (at.line(), at.column())
}

fn error(file: &Path, at: Location, message: String) -> FileError {
    FileError::Entry { path: file.to_owned(), line: at.line(), column: at.column(), message }
}

#[cfg(test)]
#[path = "sink_entry_tests.rs"]
mod tests;
