//! Where events go: what the flags say, which is one log and one webhook with one policy, or the
//! list of `sinks` in the file of `--config`.

use std::fmt::Display;
use std::path::PathBuf;

use super::flags::{AuditLogFormat, ServeFlags};
use super::same_file::is_same;
use super::sink_entry::{Place, SinkEntry, SinkType};
use super::{Bodies, ConfigError, bodies, fail, s3_sink, sinks};
use crate::audit::record::{Format, MAX_SINKS};
use audit_log::stream::StreamConfig;
use audit_log::webhook::WebhookConfig;
use audit_log::{LogConfig, LogPath};
use audit_stream::s3::S3Settings;

/// One place where events go.
#[derive(Debug, Clone)]
pub struct SinkSettings {
    /// What metrics and health call it; `log` or `webhook` where it is of the flags.
    pub name: String,
    /// What says how much is recorded there.
    pub policy_file: PathBuf,
    /// Where that is.
    pub backend: BackendSettings,
    /// How bodies are recorded there.
    pub bodies: Bodies,
    /// The longest event, if longer ones are to lose bodies.
    pub max_event: Option<usize>,
    /// Where it is configured; None: by flags.
    place: Option<Place>,
}

/// A log or a webhook.
#[derive(Debug, Clone)]
pub enum BackendSettings {
    /// A file or standard output.
    Log {
        /// Where, and how it is written.
        config: LogConfig,
        /// How events are.
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
        /// How events get there.
        config: StreamConfig,
        /// Where that is.
        store: Box<S3Settings>,
    },
}

impl SinkSettings {
    /// An error of this sink, in the words of where it is configured.
    pub fn says(&self, error: impl Display) -> String {
        let error = error.to_string();
        match &self.place {
            Some(place) => place.says(&error),
            None => error,
        }
    }

    fn of_log(flags: &ServeFlags, config: LogConfig) -> Result<SinkSettings, ConfigError> {
        let format = match flags.audit_log_format {
            AuditLogFormat::Json => Format::Json,
            AuditLogFormat::Legacy => Format::Legacy,
        };
        let max_event = bodies::log_max_event(flags)?;
        SinkSettings::new("log", flags, BackendSettings::Log { config, format }, max_event)
    }

    fn of_webhook(
        flags: &ServeFlags,
        (file, config): (PathBuf, WebhookConfig),
    ) -> Result<SinkSettings, ConfigError> {
        let max_event = config.max_event_size;
        SinkSettings::new("webhook", flags, BackendSettings::Webhook { file, config }, max_event)
    }

    // kube-apiserver runs without a policy or without a log, and records nothing then. A proxy that
    // is there to record must not.
    fn new(
        name: &str,
        flags: &ServeFlags,
        backend: BackendSettings,
        max_event: Option<usize>,
    ) -> Result<SinkSettings, ConfigError> {
        let Some(policy_file) = flags.audit_policy_file.clone() else {
            return fail(
                "--audit-policy-file is missing: it selects what is recorded; \
                 start with config/policy-recommended.yaml",
            );
        };
        let (name, bodies) = (name.to_owned(), bodies::bodies(flags)?);
        Ok(SinkSettings { name, policy_file, backend, bodies, max_event, place: None })
    }
}

/// All sinks.
pub(super) fn sinks(flags: &ServeFlags) -> Result<Vec<SinkSettings>, ConfigError> {
    if !flags.sinks.is_empty() {
        return listed(&flags.sinks);
    }
    let mut all = Vec::new();
    if let Some(log) = sinks::log(flags)? {
        all.push(SinkSettings::of_log(flags, log)?);
    }
    if let Some(webhook) = sinks::webhook(flags)? {
        let mut webhook = SinkSettings::of_webhook(flags, webhook)?;
        if let Some(log) = all.first() {
            webhook.bodies = log.bodies.clone();
        }
        all.push(webhook);
    }
    if all.is_empty() {
        return fail(
            "--audit-log-path is missing: set it to a file, or to - for standard output, or set \
             --audit-webhook-config-file, or configure sinks in the file of --config",
        );
    }
    Ok(all)
}

fn listed(entries: &[SinkEntry]) -> Result<Vec<SinkSettings>, ConfigError> {
    let mut all: Vec<SinkSettings> = Vec::new();
    for entry in entries {
        let wrong = |message: &str| ConfigError(entry.place.says(message));
        let mut sink = one(entry).map_err(|ConfigError(message)| wrong(&message))?;
        if all.len() == MAX_SINKS {
            return Err(wrong(&format!("at most {MAX_SINKS} sinks are supported; remove some")));
        }
        if let Some(same) = all.iter().find(|known| known.name == sink.name) {
            let name = &same.name;
            let message = format!("--name: there is a sink {name:?} already; choose another name");
            return Err(wrong(&message));
        }
        if let Some(message) = all.iter().find_map(|known| clash(known, &sink)) {
            return Err(wrong(&message));
        }
        let rules = &entry.flags.audit_redact;
        let same = entries.iter().zip(&all).find(|(e, _)| e.flags.audit_redact == *rules);
        if let Some((_, same)) = same {
            // What is redacted alike is shared.
            sink.bodies.redaction = same.bodies.redaction.clone();
        }
        all.push(sink);
    }
    Ok(all)
}

fn one(entry: &SinkEntry) -> Result<SinkSettings, ConfigError> {
    let flags = &*entry.flags;
    let settings = match entry.kind {
        SinkType::File | SinkType::Stdout => match sinks::log(flags)? {
            None => return fail("--audit-log-path is missing; give the name of the log file"),
            Some(LogConfig { path: LogPath::Stdout, .. }) if entry.kind == SinkType::File => {
                return fail("--audit-log-path: for standard output, write type: stdout");
            }
            Some(log) => SinkSettings::of_log(flags, log)?,
        },
        SinkType::Webhook => match sinks::webhook(flags)? {
            None => {
                return fail(
                    "--audit-webhook-config-file is missing; give a kubeconfig whose cluster is \
                     the endpoint",
                );
            }
            Some(webhook) => SinkSettings::of_webhook(flags, webhook)?,
        },
        SinkType::S3 => {
            let Some(keys) = &entry.s3 else { return fail("--url is missing") };
            let (config, store) = s3_sink::settings(keys)?;
            let backend = BackendSettings::S3 { config, store: Box::new(store) };
            SinkSettings::new("s3", flags, backend, None)?
        }
    };
    let (name, place) = (entry.name.clone(), Some(entry.place.clone()));
    Ok(SinkSettings { name, place, ..settings })
}

fn is_same_log(one: &LogPath, other: &LogPath) -> bool {
    let (LogPath::File(one), LogPath::File(other)) = (one, other) else { return false };
    // Several may write to a device, such as /dev/stderr.
    let is_device = std::fs::metadata(one).is_ok_and(|metadata| !metadata.is_file());
    !is_device && is_same(one, other)
}

/// What two sinks cannot both have.
fn clash(one: &SinkSettings, other: &SinkSettings) -> Option<String> {
    let name = &one.name;
    match (&one.backend, &other.backend) {
        (BackendSettings::Log { config: one, .. }, BackendSettings::Log { config: other, .. })
            if one.path == other.path || is_same_log(&one.path, &other.path) =>
        {
            Some(format!(
                "--audit-log-path: {} is that of sink {name:?} already; a log has one writer, so \
                 give it another",
                other.path
            ))
        }
        (BackendSettings::Log { config: one, .. }, BackendSettings::Log { config: other, .. }) => {
            let checkpoint = |log: &LogConfig| log.seal.as_ref()?.checkpoint_file.clone();
            let same = checkpoint(one).zip(checkpoint(other));
            let (_, same) = same.filter(|(one, other)| is_same(one, other))?;
            Some(format!(
                "--audit-log-seal-checkpoint-file: {} is that of sink {name:?} already; give it another",
                same.display()
            ))
        }
        (
            BackendSettings::Webhook { config: one, .. },
            BackendSettings::Webhook { config: other, .. },
        ) => {
            let dir = |webhook: &WebhookConfig| webhook.spool.as_ref().map(|s| s.dir.clone());
            let same = dir(one).filter(|same| dir(other).as_ref() == Some(same))?;
            Some(format!(
                "--audit-webhook-spool-dir: {} is that of sink {name:?} already; give it another",
                same.display()
            ))
        }
        (BackendSettings::S3 { config: one, .. }, BackendSettings::S3 { config: other, .. })
            if one.spool.dir == other.spool.dir =>
        {
            Some(format!(
                "--spool-dir: {} is that of sink {name:?} already; give it another",
                other.spool.dir.display()
            ))
        }
        _ => None,
    }
}
