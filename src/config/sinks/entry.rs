//! An entry of `sinks` in the file of `--config`: a backend with its own policy.
//!
//! The keys of an entry are the fields of the structs that hold the flags of a backend, such as
//! [`LogFlags`], so that keys and flags have the same values, defaults, and validation. A type of
//! backend without flags has a struct of its own; it needs a variant in [`SinkType`] and in
//! [`BackendKeys`].

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::{Location, Spanned};

use super::super::bodies::{BodySizeFlags, RedactionFlags};
use super::super::file::FileError;
use super::super::kafka::KafkaKeys;
use super::super::log::LogFlags;
use super::super::otlp::OtlpKeys;
use super::super::policy::PolicyFlags;
use super::super::s3::S3Keys;
#[cfg(test)]
use super::super::setting::Setting;
use super::super::stream::StreamKeys;
use super::super::tree::Value;
use super::super::webhook::WebhookFlags;
use super::keys::{KeyError, Keys};

/// One entry. Its values are parsed but not validated yet.
#[derive(Debug, Clone)]
pub(crate) struct SinkEntry {
    /// `name`
    pub name: String,
    /// The keys of the entry's type.
    pub backend: BackendKeys,
    /// `policy-file`
    pub policy: PolicyFlags,
    /// `redact`
    pub redaction: RedactionFlags,
    /// `max-body-bytes`, `max-request-body-bytes`
    pub body_sizes: BodySizeFlags,
    /// The location of the entry and its values.
    pub place: Place,
}

/// `type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkType {
    /// A log file.
    File,
    /// Standard output.
    Stdout,
    /// A webhook endpoint.
    Webhook,
    /// Object storage.
    S3,
    /// Kafka.
    Kafka,
    /// An OpenTelemetry collector.
    Otlp,
}

/// The keys of a type of backend.
#[derive(Debug, Clone)]
pub(crate) enum BackendKeys {
    /// `type: file`
    File(Box<LogFlags>),
    /// `type: stdout`
    Stdout(Box<LogFlags>),
    /// `type: webhook`
    Webhook(Box<WebhookFlags>),
    /// `type: s3`
    S3(Box<S3Keys>),
    /// `type: kafka`
    Kafka(Box<(StreamKeys, KafkaKeys)>),
    /// `type: otlp`
    Otlp(Box<(StreamKeys, OtlpKeys)>),
}

/// Keys that do not apply to standard output.
const FILE_ONLY: [&str; 8] =
    ["path", "maxsize", "maxage", "maxbackup", "compress", "index", "sync", "sync-interval"];

impl BackendKeys {
    fn read(kind: SinkType, keys: &mut Keys) -> Result<BackendKeys, KeyError> {
        Ok(match kind {
            SinkType::File => BackendKeys::File(Box::new(keys.read(&[])?)),
            SinkType::Stdout => {
                let log = LogFlags { path: Some("-".into()), ..keys.read(&FILE_ONLY)? };
                BackendKeys::Stdout(Box::new(log))
            }
            SinkType::Webhook => BackendKeys::Webhook(Box::new(keys.read(&[])?)),
            SinkType::S3 => BackendKeys::S3(Box::new(keys.read(&[])?)),
            SinkType::Kafka => {
                let own = keys.read(&[])?;
                BackendKeys::Kafka(Box::new((keys.read(&[])?, own)))
            }
            SinkType::Otlp => {
                let own = keys.read(&[])?;
                BackendKeys::Otlp(Box::new((keys.read(&[])?, own)))
            }
        })
    }
}

/// The keys of every type that identify it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    name: Option<String>,
    r#type: Option<String>,
}

/// Keys of every type that correspond to a flag with the prefix `audit-`.
const COMMON: [&str; 4] = ["policy-file", "redact", "max-body-bytes", "max-request-body-bytes"];

/// Returns whether entries of `sinks` have a key for this flag. Such a flag and `sinks` are
/// mutually exclusive.
pub(in crate::config) fn is_of_sinks(flag: &str) -> bool {
    ["audit-log-", "audit-webhook-"].iter().any(|prefix| flag.starts_with(prefix))
        || flag.strip_prefix("audit-").is_some_and(|key| COMMON.contains(&key))
}

impl SinkType {
    pub(in crate::config) const ALL: [(SinkType, &'static str); 6] = [
        (SinkType::File, "file"),
        (SinkType::Stdout, "stdout"),
        (SinkType::Webhook, "webhook"),
        (SinkType::S3, "s3"),
        (SinkType::Kafka, "kafka"),
        (SinkType::Otlp, "otlp"),
    ];

    /// Returns the keys of entries of this type, in the order of the documentation.
    #[cfg(test)]
    pub(in crate::config) fn keys(self) -> Vec<&'static str> {
        let mut keys = Keys::default();
        keys.read::<Head>(&[]).expect("no key is required");
        read(self, &mut keys).expect("no key is required");
        keys.known().to_vec()
    }

    /// Returns the flag that corresponds to a key, if there is one.
    #[cfg(test)]
    pub(in crate::config) fn flag(self, key: &'static str) -> Option<String> {
        let setting = match (key, self) {
            ("name" | "type", _) => return None,
            (key, _) if COMMON.contains(&key) => Setting::common(key),
            (key, SinkType::File | SinkType::Stdout) => Setting::log(key),
            (key, SinkType::Webhook) => Setting::webhook(key),
            (_, SinkType::S3 | SinkType::Kafka | SinkType::Otlp) => return None,
        };
        Some(setting.flag())
    }
}

/// The location of an entry and its values.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    file: PathBuf,
    index: usize,
    at: Location,
    /// The locations of values.
    values: Vec<(String, Location)>,
}

impl Place {
    /// Returns an error about the entry, with the location of the value that `key` has.
    pub(super) fn error(&self, key: &str, message: impl Display) -> String {
        let value = self.values.iter().find(|(known, _)| known == key);
        let at = value.map_or(self.at, |(_, at)| *at);
        format!(
            "{}:{}:{}: sinks[{}]: {message}",
            self.file.display(),
            at.line(),
            at.column(),
            self.index
        )
    }
}

/// Parses the list `sinks` that begins at `at`.
pub(in crate::config) fn parse(
    file: &Path,
    list: Value,
    at: Location,
) -> Result<Vec<SinkEntry>, FileError> {
    let wrong = |message: &str| Err(FileError::entry(file, at, message.to_owned()));
    let Value::Many(entries) = list else {
        return wrong("sinks is a list; write `- name: …` for each sink");
    };
    if entries.is_empty() {
        return wrong("sinks is empty: nothing would be recorded; add one, or remove sinks");
    }
    let entries = entries.into_iter().enumerate();
    entries.map(|(index, entry)| parse_entry(file, index, entry)).collect()
}

fn parse_entry(file: &Path, index: usize, entry: Spanned<Value>) -> Result<SinkEntry, FileError> {
    let at = entry.referenced;
    let wrong = |error: KeyError| {
        let message = format!("sinks[{index}]: {}", error.message);
        FileError::entry(file, error.at.unwrap_or(at), message)
    };
    let Value::Map(members) = entry.value else {
        let message = "an entry must be a map with name, type, policy-file and other keys";
        return Err(wrong(KeyError::new(None, message)));
    };
    let values = members.0.iter().map(|(key, value)| (key.value.clone(), value.referenced));
    // An error about the name is reported at the location of the entry.
    let values = values.filter(|(key, _)| key != "name").collect();
    let place = Place { file: file.to_owned(), index, at, values };
    let mut keys = Keys::new(members);
    let (name, kind) = head(&mut keys).map_err(wrong)?;
    let (kind, type_name) = kind;
    let (policy, redaction, body_sizes, backend) = read(kind, &mut keys).map_err(wrong)?;
    keys.check_unknown(&format!("a sink of type {type_name}")).map_err(wrong)?;
    Ok(SinkEntry { name, backend, policy, redaction, body_sizes, place })
}

/// Reads `name` and `type`.
fn head(keys: &mut Keys) -> Result<(String, (SinkType, &'static str)), KeyError> {
    let Head { name, r#type } = keys.read(&[])?;
    let types = "write file, stdout, webhook, s3, kafka or otlp";
    let Some(kind) = r#type else {
        return Err(KeyError::new(None, format!("type is missing: {types}")));
    };
    let Some(known) = SinkType::ALL.into_iter().find(|(_, known)| *known == kind) else {
        let message = format!("there is no type {kind:?}; {types}");
        return Err(KeyError::new(keys.location("type"), message));
    };
    let Some(name) = name else {
        let message = "name is missing: it identifies the sink in metrics and health checks";
        return Err(KeyError::new(None, message));
    };
    if !is_label(&name) {
        let message = format!(
            "{name:?} is not a valid sink name; use up to 63 of a-z, 0-9 and -, such as siem"
        );
        return Err(KeyError::new(keys.location("name"), message));
    }
    Ok((name, known))
}

/// Reads the keys of a type.
fn read(
    kind: SinkType,
    keys: &mut Keys,
) -> Result<(PolicyFlags, RedactionFlags, BodySizeFlags, BackendKeys), KeyError> {
    let (policy, redaction, sizes) = (keys.read(&[])?, keys.read(&[])?, keys.read(&[])?);
    Ok((policy, redaction, sizes, BackendKeys::read(kind, keys)?))
}

/// Returns whether `name` is a DNS label, like most names in Kubernetes.
fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests;

#[cfg(test)]
#[path = "entry_stream_tests.rs"]
mod stream_tests;
