//! The settings of the audit backends: either one log and one webhook with one policy, configured
//! by flags, or the entries of `sinks` in the file of `--config`.

pub(super) mod entry;
pub(super) mod keys;

use std::fmt::Display;
use std::path::{Path, PathBuf};

pub(super) use self::entry::SinkEntry;
use self::entry::{BackendKeys, Place};
use super::bodies::Bodies;
use super::flags::ServeFlags;
use super::log::LogFlags;
use super::same_file::is_same;
pub(super) use super::setting::Setting;
use super::setting::{SettingError, Syntax};
use super::{ConfigError, fail};
use crate::audit::record::{Format, MAX_SINKS};
use audit_log::stream::StreamConfig;
use audit_log::webhook::WebhookConfig;
use audit_log::{LogConfig, LogPath};
use audit_stream::kafka::KafkaSettings;
use audit_stream::otlp::OtlpSettings;
use audit_stream::s3::S3Settings;

/// The settings of one audit backend.
#[derive(Debug, Clone)]
pub(crate) struct SinkSettings {
    /// The name in metrics and health checks; `log` or `webhook` for a backend configured by flags.
    pub name: String,
    /// The file with the audit policy of the backend.
    pub policy_file: PathBuf,
    /// The type of backend and its own settings.
    pub backend: BackendSettings,
    /// How request and response bodies are recorded.
    pub bodies: Bodies,
    /// Maximum size of an event in bytes, if bodies are removed from larger events.
    pub max_event: Option<usize>,
    /// The location of the entry in the configuration file; `None` if configured by flags.
    place: Option<Place>,
}

/// The destination of a backend, and how events are written to it.
#[derive(Debug, Clone)]
pub(crate) enum BackendSettings {
    /// A file or standard output.
    Log {
        /// The destination, and how it is written.
        config: LogConfig,
        /// The format of events.
        format: Format,
    },
    /// A webhook endpoint.
    Webhook {
        /// `--audit-webhook-config-file`: a kubeconfig whose cluster is the endpoint.
        file: PathBuf,
        /// How events are sent.
        config: WebhookConfig,
    },
    /// Object storage.
    S3 {
        /// How events are buffered and sent.
        config: StreamConfig,
        /// The bucket.
        store: Box<S3Settings>,
    },
    /// A topic of a Kafka cluster.
    Kafka {
        /// How events are buffered and sent.
        config: StreamConfig,
        /// The cluster and the topic.
        topic: Box<KafkaSettings>,
    },
    /// An OpenTelemetry collector.
    Otlp {
        /// How events are buffered and sent.
        config: StreamConfig,
        /// The collector.
        collector: Box<OtlpSettings>,
    },
}

impl SinkSettings {
    /// Returns an error about a setting of this backend, with its location if it is in a file.
    pub(crate) fn error(&self, setting: Setting, error: impl Display) -> String {
        match &self.place {
            Some(place) => place.error(setting.key(), error),
            None => error.to_string(),
        }
    }

    /// Like [`SinkSettings::error`], with the name of the setting before the error.
    pub(crate) fn error_of(&self, setting: Setting, error: impl Display) -> String {
        let syntax = if self.place.is_some() { Syntax::Keys } else { Syntax::Flags };
        self.error(setting, format!("{}: {error}", syntax.name(setting)))
    }
}

/// The policy of a backend, and how it records bodies.
struct Recorded {
    policy_file: PathBuf,
    bodies: Bodies,
}

impl Recorded {
    fn with_log(
        self,
        name: &str,
        (flags, config): (&LogFlags, LogConfig),
        syntax: Syntax,
    ) -> Result<SinkSettings, SettingError> {
        let max_event = flags.max_event_size(syntax)?;
        let backend = BackendSettings::Log { config, format: flags.format };
        Ok(self.with_backend(name, backend, max_event))
    }

    fn with_webhook(self, name: &str, (file, config): (PathBuf, WebhookConfig)) -> SinkSettings {
        let max_event = config.max_event_size;
        self.with_backend(name, BackendSettings::Webhook { file, config }, max_event)
    }

    fn with_backend(
        self,
        name: &str,
        backend: BackendSettings,
        max_event: Option<usize>,
    ) -> SinkSettings {
        let Recorded { policy_file, bodies } = self;
        SinkSettings { name: name.to_owned(), policy_file, backend, bodies, max_event, place: None }
    }
}

/// Returns the settings of all backends.
pub(super) fn sinks(flags: &ServeFlags) -> Result<Vec<SinkSettings>, ConfigError> {
    match flags.sinks.as_slice() {
        [] => of_flags(flags),
        entries => of_entries(entries),
    }
}

fn of_flags(flags: &ServeFlags) -> Result<Vec<SinkSettings>, ConfigError> {
    let syntax = Syntax::Flags;
    let (log, webhook) = (flags.log.validate(syntax)?, flags.webhook.validate(syntax)?);
    if log.is_none() && webhook.is_none() {
        return fail(
            "--audit-log-path is missing: set it to a file, or to - for standard output, or set \
             --audit-webhook-config-file, or configure sinks in the file of --config",
        );
    }
    let policy_file = flags.policy.validate(syntax)?;
    let bodies = Bodies::new(&flags.body_sizes, &flags.redaction, syntax)?;
    let recorded = || Recorded { policy_file: policy_file.clone(), bodies: bodies.clone() };
    let mut all = Vec::new();
    if let Some(log) = log {
        all.push(recorded().with_log("log", (&flags.log, log), syntax)?);
    }
    if let Some(webhook) = webhook {
        all.push(recorded().with_webhook("webhook", webhook));
    }
    Ok(all)
}

fn of_entries(entries: &[SinkEntry]) -> Result<Vec<SinkSettings>, ConfigError> {
    let mut all: Vec<SinkSettings> = Vec::new();
    for entry in entries {
        let wrong = |key: &str, message: &str| ConfigError(entry.place.error(key, message));
        let mut sink =
            of_entry(entry).map_err(|error| wrong(error.setting.key(), &error.message))?;
        if all.len() == MAX_SINKS {
            let message = format!("at most {MAX_SINKS} sinks are supported; remove some");
            return Err(wrong("", &message));
        }
        if let Some(same) = all.iter().find(|known| known.name == sink.name) {
            let name = &same.name;
            let message = format!("name: there is a sink {name:?} already; choose another name");
            return Err(wrong("name", &message));
        }
        if let Some((key, message)) = all.iter().find_map(|known| conflict(known, &sink)) {
            return Err(wrong(key, &format!("{key}: {message}")));
        }
        let same = entries.iter().zip(&all).find(|(e, _)| e.redaction == entry.redaction);
        if let Some((_, same)) = same {
            // Backends with the same redaction share the redacted bodies.
            sink.bodies.redaction = same.bodies.redaction.clone();
        }
        all.push(sink);
    }
    Ok(all)
}

fn of_entry(entry: &SinkEntry) -> Result<SinkSettings, SettingError> {
    let syntax = Syntax::Keys;
    let recorded = Recorded {
        policy_file: entry.policy.validate(syntax)?,
        bodies: Bodies::new(&entry.body_sizes, &entry.redaction, syntax)?,
    };
    let settings = match &entry.backend {
        BackendKeys::File(flags) => match flags.validate(syntax)? {
            None => {
                let message = "path is missing; give the name of the log file";
                return Err(Setting::log("path").error(message));
            }
            Some(LogConfig { path: LogPath::Stdout, .. }) => {
                let message = "path: for standard output, write type: stdout";
                return Err(Setting::log("path").error(message));
            }
            Some(log) => recorded.with_log(&entry.name, (flags, log), syntax)?,
        },
        BackendKeys::Stdout(flags) => {
            let config = flags
                .validate(syntax)?
                .ok_or_else(|| Setting::log("path").error("path is missing"))?;
            recorded.with_log(&entry.name, (flags, config), syntax)?
        }
        BackendKeys::Webhook(flags) => match flags.validate(syntax)? {
            None => {
                let message =
                    "config-file is missing; give a kubeconfig whose cluster is the endpoint";
                return Err(Setting::webhook("config-file").error(message));
            }
            Some(webhook) => recorded.with_webhook(&entry.name, webhook),
        },
        BackendKeys::S3(keys) => {
            let (config, store) = keys.validate()?;
            let backend = BackendSettings::S3 { config, store: Box::new(store) };
            recorded.with_backend(&entry.name, backend, None)
        }
        BackendKeys::Kafka(keys) => {
            let (stream, topic) = &**keys;
            let topic = Box::new(topic.validate()?);
            let backend = BackendSettings::Kafka { config: stream.validate()?, topic };
            recorded.with_backend(&entry.name, backend, None)
        }
        BackendKeys::Otlp(keys) => {
            let (stream, collector) = &**keys;
            let collector = Box::new(collector.validate()?);
            let backend = BackendSettings::Otlp { config: stream.validate()?, collector };
            recorded.with_backend(&entry.name, backend, None)
        }
    };
    Ok(SinkSettings { place: Some(entry.place.clone()), ..settings })
}

fn is_same_log(one: &LogPath, other: &LogPath) -> bool {
    let (LogPath::File(one), LogPath::File(other)) = (one, other) else { return false };
    // Several backends may write to the same device, such as /dev/stderr.
    let is_device = std::fs::metadata(one).is_ok_and(|metadata| !metadata.is_file());
    !is_device && is_same(one, other)
}

/// If both backends need the same path exclusively, returns the key of `other` and the error.
fn conflict(one: &SinkSettings, other: &SinkSettings) -> Option<(&'static str, String)> {
    let name = &one.name;
    match (&one.backend, &other.backend) {
        (BackendSettings::Log { config: one, .. }, BackendSettings::Log { config: other, .. })
            if one.path == other.path || is_same_log(&one.path, &other.path) =>
        {
            let message = format!(
                "{} is that of sink {name:?} already; a log has one writer, so give it another",
                other.path
            );
            Some(("path", message))
        }
        (BackendSettings::Log { config: one, .. }, BackendSettings::Log { config: other, .. }) => {
            let checkpoint = |log: &LogConfig| log.seal.as_ref()?.checkpoint_file.clone();
            let same = checkpoint(one).zip(checkpoint(other));
            let (_, same) = same.filter(|(one, other)| is_same(one, other))?;
            let message =
                format!("{} is that of sink {name:?} already; give it another", same.display());
            Some(("seal-checkpoint-file", message))
        }
        (one, other) => {
            let same = spool_dir(one).zip(spool_dir(other));
            let (_, same) = same.filter(|(one, other)| is_same(one, other))?;
            let message =
                format!("{} is that of sink {name:?} already; give it another", same.display());
            Some(("spool-dir", message))
        }
    }
}

/// Returns the `spool-dir` of a backend, if it has one.
fn spool_dir(backend: &BackendSettings) -> Option<&Path> {
    match backend {
        BackendSettings::Log { .. } => None,
        BackendSettings::Webhook { config, .. } => Some(&config.spool.as_ref()?.dir),
        BackendSettings::S3 { config, .. }
        | BackendSettings::Kafka { config, .. }
        | BackendSettings::Otlp { config, .. } => Some(&config.spool.dir),
    }
}
