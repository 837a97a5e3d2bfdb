//! The webhook backend: flags, keys of `sinks` entries, and their validation.

use std::path::PathBuf;
use std::time::Duration;

use audit_log::Mode;
use audit_log::webhook::{SpoolConfig, WebhookConfig};
use clap::Args;
use serde::Deserialize;

use super::batch::{Batch, EventVersion, MaxEventSize, WriteMode};
use super::boolean_flag::BooleanFlag;
use super::parse::{default_flags, duration, parse_duration};
use super::setting::{Setting, SettingError, Syntax};

/// Flags of the webhook backend, and the keys of `sinks` entries of the type `webhook`.
#[derive(Debug, Clone, Args, Deserialize)]
#[command(next_help_heading = "Audit webhook")]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct WebhookFlags {
    /// Kubeconfig of a webhook endpoint that receives audit events
    #[arg(id = "audit-webhook-config-file", long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Whether requests wait until the webhook endpoint has accepted their events
    #[arg(id = "audit-webhook-mode", long, value_name = "MODE", default_value = "batch")]
    pub mode: WriteMode,
    /// API version of the events
    #[arg(
        id = "audit-webhook-version",
        long,
        value_name = "VERSION",
        default_value = "audit.k8s.io/v1"
    )]
    pub version: EventVersion,
    /// Delay before the first retry; later delays are longer
    #[arg(id = "audit-webhook-initial-backoff", long, value_name = "TIME", default_value = "10s")]
    #[arg(alias = "audit-webhook-batch-initial-backoff")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    #[serde(deserialize_with = "duration")]
    pub initial_backoff: Duration,
    /// Number of events that can wait to be sent, in batch mode
    #[arg(
        id = "audit-webhook-batch-buffer-size",
        long,
        value_name = "COUNT",
        default_value_t = 10_000
    )]
    #[arg(allow_negative_numbers = true)]
    pub batch_buffer_size: i64,
    /// Maximum number of events in a batch, in batch mode
    #[arg(id = "audit-webhook-batch-max-size", long, value_name = "COUNT", default_value_t = 400)]
    #[arg(allow_negative_numbers = true)]
    pub batch_max_size: i64,
    /// Maximum time to wait for a batch to fill, in batch mode
    #[arg(id = "audit-webhook-batch-max-wait", long, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    #[serde(deserialize_with = "duration")]
    pub batch_max_wait: Duration,
    /// Limit the rate of batches to --audit-webhook-batch-throttle-qps
    #[arg(id = "audit-webhook-batch-throttle-enable", long, default_value = "true", boolean())]
    pub batch_throttle_enable: bool,
    /// Average number of batches per second
    #[arg(
        id = "audit-webhook-batch-throttle-qps",
        long,
        value_name = "QPS",
        default_value_t = 10.0
    )]
    #[arg(allow_negative_numbers = true)]
    pub batch_throttle_qps: f32,
    /// Number of batches that may exceed the average rate at once
    #[arg(
        id = "audit-webhook-batch-throttle-burst",
        long,
        value_name = "COUNT",
        default_value_t = 15
    )]
    #[arg(allow_negative_numbers = true)]
    pub batch_throttle_burst: i64,
    /// Remove bodies from events that are too large, the larger body first; events that are still
    /// too large are not sent
    #[arg(id = "audit-webhook-truncate-enabled", long, default_value = "false", boolean())]
    pub truncate_enabled: bool,
    /// Maximum size of a batch in bytes; has no effect, like in kube-apiserver
    #[arg(
        id = "audit-webhook-truncate-max-batch-size",
        long,
        value_name = "BYTES",
        default_value_t = 10_485_760
    )]
    #[arg(allow_negative_numbers = true)]
    pub truncate_max_batch_size: i64,
    /// Maximum size of an event in bytes, with --audit-webhook-truncate-enabled
    #[arg(
        id = "audit-webhook-truncate-max-event-size",
        long,
        value_name = "BYTES",
        default_value_t = 102_400
    )]
    #[arg(allow_negative_numbers = true)]
    pub truncate_max_event_size: i64,
    /// Compress batches with gzip
    #[arg(id = "audit-webhook-compress", long, default_value = "false", boolean())]
    pub compress: bool,
    /// Directory where batches wait on disk until the webhook endpoint has accepted them, in batch
    /// mode
    #[arg(id = "audit-webhook-spool-dir", long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Maximum size of the spool in MiB; events beyond it are lost and counted. Up to half of it
    /// can be *.rejected files
    #[arg(id = "audit-webhook-spool-max-size", long, value_name = "MIB", default_value_t = 1024)]
    #[arg(allow_negative_numbers = true)]
    pub spool_max_size: i64,
}

impl Default for WebhookFlags {
    fn default() -> WebhookFlags {
        default_flags()
    }
}

const fn setting(key: &'static str) -> Setting {
    Setting::webhook(key)
}

impl WebhookFlags {
    /// Validates the settings and returns them with the path of the kubeconfig; `None` without a
    /// kubeconfig. Like kube-apiserver, ignores the other settings then.
    pub(super) fn validate(
        &self,
        syntax: Syntax,
    ) -> Result<Option<(PathBuf, WebhookConfig)>, SettingError> {
        let Some(file) = self.config_file.clone() else { return Ok(None) };
        let limits = MaxEventSize {
            backend: "webhook",
            setting,
            enabled: self.truncate_enabled,
            max_event_size: self.truncate_max_event_size,
            max_batch_size: self.truncate_max_batch_size,
        };
        let max_event_size = limits.validate(syntax)?;
        let mode = self.batch().validate(syntax)?;
        let spool = self.spool(syntax, &mode)?;
        let config = WebhookConfig {
            mode,
            initial_backoff: self.initial_backoff,
            max_event_size,
            compress: self.compress,
            spool,
        };
        Ok(Some((file, config)))
    }

    fn spool(&self, syntax: Syntax, mode: &Mode) -> Result<Option<SpoolConfig>, SettingError> {
        let Some(dir) = self.spool_dir.clone() else { return Ok(None) };
        let name = |key| syntax.name(setting(key));
        if !matches!(mode, Mode::Batch { .. }) {
            let message = format!(
                "{} needs {}: in the others a request waits for the endpoint itself",
                name("spool-dir"),
                syntax.assign(setting("mode"), "batch")
            );
            return Err(setting("spool-dir").error(message));
        }
        let mib = self.spool_max_size;
        let max_size = u64::try_from(mib).ok().filter(|mib| *mib > 0).ok_or_else(|| {
            let name = name("spool-max-size");
            let message = format!("{name}: {mib} is not a size in MiB; give a positive number");
            setting("spool-max-size").error(message)
        })?;
        Ok(Some(SpoolConfig { dir, max_size: max_size.saturating_mul(1 << 20) }))
    }

    fn batch(&self) -> Batch {
        Batch {
            backend: "webhook",
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
}
