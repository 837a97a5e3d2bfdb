//! The log backend: flags, keys of `sinks` entries, and their validation.

use std::path::PathBuf;
use std::time::Duration;

use audit_log::seal::SealConfig;
use audit_log::{Compress, LogConfig, LogPath, Rotation, SyncMode};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::batch::{Batch, EventVersion, MaxEventSize, WriteMode};
use super::boolean_flag::{BooleanFlag, parse_bool};
use super::parse::{default_flags, duration, parse_duration};
use super::setting::{Setting, SettingError, Syntax};
use crate::audit::record::Format;

/// Flags of the log backend, and the keys of `sinks` entries of the types `file` and `stdout`.
#[derive(Debug, Clone, Args, Deserialize)]
#[command(next_help_heading = "Audit log")]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct LogFlags {
    /// File for audit events, or - for standard output
    #[arg(id = "audit-log-path", long, value_name = "FILE")]
    pub path: Option<PathBuf>,
    /// Format of the events
    #[arg(id = "audit-log-format", long, value_name = "FORMAT", default_value = "json")]
    pub format: Format,
    /// API version of the events
    #[arg(
        id = "audit-log-version",
        long,
        value_name = "VERSION",
        default_value = "audit.k8s.io/v1"
    )]
    pub version: EventVersion,
    /// Days to keep rotated files; 0 keeps them forever
    #[arg(id = "audit-log-maxage", long, value_name = "DAYS", default_value_t = 366)]
    #[arg(allow_negative_numbers = true)]
    pub maxage: i64,
    /// Number of rotated files to keep; 0 keeps all
    #[arg(id = "audit-log-maxbackup", long, value_name = "COUNT", default_value_t = 100)]
    #[arg(allow_negative_numbers = true)]
    pub maxbackup: i64,
    /// Size in MiB at which the file is rotated; 0 disables rotation
    #[arg(id = "audit-log-maxsize", long, value_name = "MIB", default_value_t = 100)]
    #[arg(allow_negative_numbers = true)]
    pub maxsize: i64,
    /// Compress rotated files: gzip (the same as true), or zstd in frames of 1 MiB, which log query
    /// can decompress one by one
    #[arg(id = "audit-log-compress", long, default_value = "false", optional_value())]
    #[arg(value_name = "false|true|gzip|zstd", value_parser = parse_compress)]
    #[serde(deserialize_with = "compress")]
    pub compress: Compress,
    /// Write an index file for each rotated file (audit-TIME.log.parquet, about 3 % of its size),
    /// with which log query and log report need not read the log
    #[arg(id = "audit-log-index", long, default_value = "true", boolean())]
    pub index: bool,
    /// Whether requests wait until their events are written
    #[arg(id = "audit-log-mode", long, value_name = "MODE", default_value = "blocking")]
    pub mode: WriteMode,
    /// When events are synced to disk
    #[arg(id = "audit-log-sync", long, value_name = "MODE", default_value = "off")]
    pub sync: AuditLogSync,
    /// Maximum time between a write and its sync, with --audit-log-sync=interval
    #[arg(id = "audit-log-sync-interval", long, value_name = "TIME", default_value = "1s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    #[serde(deserialize_with = "duration")]
    pub sync_interval: Duration,
    /// Seal the log: write a chain of signed digests to *.seal files next to it, with which
    /// `kube-audit-proxy log verify` detects later changes
    #[arg(id = "audit-log-seal", long, default_value = "false", boolean())]
    pub seal: bool,
    /// Ed25519 private key (PKCS#8 PEM) that signs the seal; `kube-audit-proxy log keygen` creates
    /// one. Users who can write to the log should not be able to read it
    #[arg(id = "audit-log-seal-key-file", long, value_name = "FILE")]
    pub seal_key_file: Option<PathBuf>,
    /// How often to log the head of the chain, for `log verify --head`
    #[arg(id = "audit-log-seal-head-interval", long, value_name = "TIME", default_value = "1m")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    #[serde(deserialize_with = "duration")]
    pub seal_head_interval: Duration,
    /// Signed checkpoint of the seal, with which a deleted or older seal is detected;
    /// audit.log.checkpoint next to the log by default. Users who can write to the log should not
    /// be able to write to it
    #[arg(id = "audit-log-seal-checkpoint-file", long, value_name = "FILE")]
    pub seal_checkpoint_file: Option<PathBuf>,
    /// Number of events that can wait to be written, in batch mode
    #[arg(
        id = "audit-log-batch-buffer-size",
        long,
        value_name = "COUNT",
        default_value_t = 10_000
    )]
    #[arg(allow_negative_numbers = true)]
    pub batch_buffer_size: i64,
    /// Maximum number of events in a batch, in batch mode
    #[arg(id = "audit-log-batch-max-size", long, value_name = "COUNT", default_value_t = 1)]
    #[arg(allow_negative_numbers = true)]
    pub batch_max_size: i64,
    /// Maximum time to wait for a batch to fill, in batch mode
    #[arg(id = "audit-log-batch-max-wait", long, value_name = "TIME", default_value = "0s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    #[serde(deserialize_with = "duration")]
    pub batch_max_wait: Duration,
    /// Limit the rate of batches to --audit-log-batch-throttle-qps
    #[arg(id = "audit-log-batch-throttle-enable", long, default_value = "false", boolean())]
    pub batch_throttle_enable: bool,
    /// Average number of batches per second
    #[arg(id = "audit-log-batch-throttle-qps", long, value_name = "QPS", default_value_t = 0.0)]
    #[arg(allow_negative_numbers = true)]
    pub batch_throttle_qps: f32,
    /// Number of batches that may exceed the average rate at once
    #[arg(id = "audit-log-batch-throttle-burst", long, value_name = "COUNT", default_value_t = 0)]
    #[arg(allow_negative_numbers = true)]
    pub batch_throttle_burst: i64,
    /// Remove bodies from events that are too large, the larger body first
    #[arg(id = "audit-log-truncate-enabled", long, default_value = "false", boolean())]
    pub truncate_enabled: bool,
    /// Maximum size of an event in bytes, with --audit-log-truncate-enabled
    #[arg(
        id = "audit-log-truncate-max-event-size",
        long,
        value_name = "BYTES",
        default_value_t = 102_400
    )]
    #[arg(allow_negative_numbers = true)]
    pub truncate_max_event_size: i64,
    /// Accepted for compatibility with kube-apiserver; has no effect, because events are written
    /// one by one
    #[arg(
        id = "audit-log-truncate-max-batch-size",
        long,
        value_name = "BYTES",
        default_value_t = 10_485_760
    )]
    #[arg(allow_negative_numbers = true)]
    pub truncate_max_batch_size: i64,
}

impl Default for LogFlags {
    fn default() -> LogFlags {
        default_flags()
    }
}

/// `--audit-log-sync`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuditLogSync {
    /// When the operating system decides, like in kube-apiserver
    Off,
    /// At most --audit-log-sync-interval after they are written
    Interval,
    /// Before an event counts as written; concurrent events share one sync
    Always,
}

fn parse_compress(text: &str) -> Result<Compress, String> {
    match text {
        "gzip" => Ok(Compress::Gzip),
        "zstd" => Ok(Compress::Zstd),
        _ => match parse_bool(text) {
            Ok(true) => Ok(Compress::Gzip),
            Ok(false) => Ok(Compress::No),
            Err(_) => Err("accepted are false, true, gzip, and zstd".to_owned()),
        },
    }
}

fn compress<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Compress, D::Error> {
    super::parse::from_text(deserializer, parse_compress)
}

const fn setting(key: &'static str) -> Setting {
    Setting::log(key)
}

impl LogFlags {
    /// Validates the settings; `None` without a path.
    pub(super) fn validate(&self, syntax: Syntax) -> Result<Option<LogConfig>, SettingError> {
        let name = |key| syntax.name(setting(key));
        let path = match &self.path {
            None => return Ok(None),
            Some(path) if path.as_os_str().is_empty() => {
                let message =
                    format!("{} is empty; give a file, or - for standard output", name("path"));
                return Err(setting("path").error(message));
            }
            Some(path) if path.as_os_str() == "-" => LogPath::Stdout,
            Some(path) => LogPath::File(path.clone()),
        };
        let rotation = Rotation {
            max_size_mib: not_negative(syntax, "maxsize", self.maxsize, "to never rotate")?,
            max_age_days: not_negative(syntax, "maxage", self.maxage, "for no limit")?,
            max_backups: not_negative(syntax, "maxbackup", self.maxbackup, "for no limit")?,
            compress: self.compress,
            index: self.index,
        };
        let sync = match self.sync {
            AuditLogSync::Off => SyncMode::Off,
            AuditLogSync::Always => SyncMode::Always,
            AuditLogSync::Interval if self.sync_interval.is_zero() => {
                let message = format!(
                    "{} must be above 0; to sync before each event counts as written, give {}",
                    name("sync-interval"),
                    syntax.assign(setting("sync"), "always")
                );
                return Err(setting("sync-interval").error(message));
            }
            AuditLogSync::Interval => SyncMode::Interval(self.sync_interval),
        };
        let seal = self.seal(syntax, &path)?;
        let mode = self.batch().validate(syntax)?;
        Ok(Some(LogConfig { path, mode, rotation, sync, seal }))
    }

    fn seal(&self, syntax: Syntax, path: &LogPath) -> Result<Option<SealConfig>, SettingError> {
        let error = |key, rest: &str| {
            Err(setting(key).error(format!("{}{rest}", syntax.name(setting(key)))))
        };
        let without =
            |key| error(key, &format!(" has no effect without {}", syntax.name(setting("seal"))));
        match (self.seal, self.seal_key_file.clone()) {
            (false, None) if self.seal_checkpoint_file.is_some() => without("seal-checkpoint-file"),
            (false, None) => Ok(None),
            (false, Some(_)) => without("seal-key-file"),
            (true, None) => error(
                "seal",
                &format!(
                    " needs {}; `kube-audit-proxy log keygen FILE` makes one",
                    syntax.name(setting("seal-key-file"))
                ),
            ),
            (true, Some(_)) if *path == LogPath::Stdout => {
                error("seal", " needs a file; standard output cannot be sealed")
            }
            (true, Some(key_file)) => Ok(Some(SealConfig {
                key_file,
                checkpoint_file: self.seal_checkpoint_file.clone(),
                head_interval: self.seal_head_interval,
            })),
        }
    }

    fn batch(&self) -> Batch {
        Batch {
            backend: "log",
            setting,
            mode: self.mode,
            buffer_size: self.batch_buffer_size,
            max_size: self.batch_max_size,
            max_wait: self.batch_max_wait,
            throttle_enable: self.batch_throttle_enable,
            throttle_qps: self.batch_throttle_qps,
            throttle_burst: self.batch_throttle_burst,
        }
    }

    /// Returns the maximum size of an event, if truncation is enabled.
    pub(super) fn max_event_size(&self, syntax: Syntax) -> Result<Option<usize>, SettingError> {
        let limits = MaxEventSize {
            backend: "log",
            setting,
            enabled: self.truncate_enabled,
            max_event_size: self.truncate_max_event_size,
            max_batch_size: self.truncate_max_batch_size,
        };
        limits.validate(syntax)
    }
}

/// Uses kube-apiserver's message for a negative number, and adds the meaning of 0.
fn not_negative<T: TryFrom<i64>>(
    syntax: Syntax,
    key: &'static str,
    value: i64,
    zero: &str,
) -> Result<T, SettingError> {
    T::try_from(value).map_err(|_| {
        let name = syntax.name(setting(key));
        setting(key).error(format!("{name} {value} can't be a negative number; give 0 {zero}"))
    })
}
