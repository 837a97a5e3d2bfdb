//! The keys of `sinks` entries that send events to another system from a spool.

use std::path::PathBuf;
use std::time::Duration;

use audit_log::SpoolConfig;
use audit_log::stream::{StreamConfig, StreamMode};
use clap::Args;
use serde::Deserialize;

use super::batch::WriteMode;
use super::parse::{default_flags, duration, parse_duration};
use super::setting::{Setting, SettingError};

/// The keys of the types `kafka` and `otlp` that describe their spool. The type `s3` has the same
/// ones with larger defaults.
#[derive(Debug, Clone, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct StreamKeys {
    /// Directory in which events wait until they are accepted; each backend needs its own
    #[arg(long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Maximum size of the spool in MiB; events beyond it are lost and counted, the newest first
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub spool_max_size: i64,
    /// A segment is sent when it has this many MiB of JSON, at most 1024
    #[arg(long, value_name = "MIB", default_value_t = 1)]
    pub segment_max_size: i64,
    /// Or when its first event has waited this long
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub segment_max_age: Duration,
    /// Whether requests wait until their events are in the spool
    #[arg(long, value_enum, value_name = "MODE", default_value = "batch")]
    pub mode: WriteMode,
    /// Number of events that may wait to be written to the spool
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub batch_buffer_size: i64,
}

impl Default for StreamKeys {
    fn default() -> StreamKeys {
        default_flags()
    }
}

/// Returns an error whose message begins with the key.
pub(super) fn error(key: &'static str, rest: &str) -> SettingError {
    Setting::key_only(key).error(format!("{key}{rest}"))
}

/// Returns a size in bytes, which must be between 1 MiB and `max` MiB.
pub(super) fn size(key: &'static str, mib: i64, max: u64) -> Result<u64, SettingError> {
    let valid = u64::try_from(mib).ok().filter(|mib| (1..=max).contains(mib));
    let size = valid.map(|mib| mib << 20);
    size.ok_or_else(|| error(key, &format!(": {mib} is not a size in MiB; give 1 to {max}")))
}

/// Returns the name of this proxy: that of the settings, or the host name.
pub(super) fn node_name(node: Option<&str>) -> String {
    match node {
        Some(node) => node.to_owned(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// Divides texts like `NAME=VALUE`.
pub(super) fn pairs(
    key: &'static str,
    texts: &[String],
) -> Result<Vec<(String, String)>, SettingError> {
    let divide = |text: &String| {
        let pair = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        // The text may contain a secret.
        let pair = pair.filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            error(key, ": write NAME=VALUE, or a list of them; a value cannot contain a comma")
        })?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    };
    let pairs = texts.iter().map(divide).collect::<Result<Vec<_>, SettingError>>()?;
    let repeated =
        pairs.iter().enumerate().find(|(i, (name, _))| pairs[..*i].iter().any(|(n, _)| n == name));
    match repeated {
        Some((_, (name, _))) => Err(error(key, &format!(": {name} is there twice; write it once"))),
        None => Ok(pairs),
    }
}

impl StreamKeys {
    /// Returns the settings of the spool.
    pub(super) fn validate(&self) -> Result<StreamConfig, SettingError> {
        let Some(dir) = self.spool_dir.clone() else {
            return Err(error("spool-dir", " is missing: events wait there until they are stored"));
        };
        let max_size = size("spool-max-size", self.spool_max_size, 1 << 40)?;
        let segment_max_size = size("segment-max-size", self.segment_max_size, 1024)?;
        if segment_max_size > max_size / 2 {
            let rest = " is more than half of spool-max-size; make it smaller";
            return Err(error("segment-max-size", rest));
        }
        if self.segment_max_age.is_zero() {
            return Err(error("segment-max-age", " must be above 0, such as 5m"));
        }
        let buffer_size = usize::try_from(self.batch_buffer_size).ok().filter(|size| *size > 0);
        let buffer_size =
            buffer_size.ok_or_else(|| error("batch-buffer-size", " must be above 0"))?;
        let mode = match self.mode {
            WriteMode::Batch => StreamMode::Batch,
            WriteMode::Blocking => StreamMode::Blocking,
            WriteMode::BlockingStrict => StreamMode::BlockingStrict,
        };
        Ok(StreamConfig {
            mode,
            buffer_size,
            segment_max_size,
            segment_max_age: self.segment_max_age,
            spool: SpoolConfig { dir, max_size },
        })
    }
}
