//! The keys of an entry of `sinks` with the type `s3`.

use std::path::PathBuf;
use std::time::Duration;

use audit_log::stream::StreamConfig;
use audit_stream::s3::{self, Encryption, LockMode, ObjectLock, S3Settings};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::batch::WriteMode;
use super::boolean_flag::BooleanFlag;
use super::parse::{default_flags, duration, parse_duration};
use super::setting::SettingError;
use super::stream::{StreamKeys, error, node_name};

/// The keys of an entry of the type `s3`. They are declared like flags for their defaults and for
/// the reference, but `serve` has no such flags.
#[derive(Debug, Clone, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct S3Keys {
    /// Where events are stored: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub url: String,
    /// Directory in which events wait until they are stored; each backend needs its own
    #[arg(long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Maximum size of the spool in MiB; events beyond it are lost and counted, the newest first
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub spool_max_size: i64,
    /// A segment is uploaded when it has this many MiB of JSON, at most 1024
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub segment_max_size: i64,
    /// Or when its first event has waited this long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub segment_max_age: Duration,
    /// Format of the objects
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: S3Format,
    /// First part of the keys: `cluster=NAME`
    #[arg(long, value_name = "NAME", default_value = "kubernetes")]
    pub cluster: String,
    /// Name of this proxy in the keys [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// URL of an S3-compatible server [default: that of the provider]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Region of the bucket [default: `AWS_REGION` of the environment]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Allow an `endpoint` without TLS
    #[arg(long, default_value = "false", boolean())]
    pub allow_http: bool,
    /// CA certificates (PEM) that the server's certificate must chain to [default: those of the
    /// system]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Server-side encryption of the objects (S3 only) [default: that of the bucket]
    #[arg(long, value_enum, value_name = "METHOD")]
    pub server_side_encryption: Option<S3Encryption>,
    /// KMS key for `server-side-encryption: aws:kms` [default: the account's key for S3]
    #[arg(long, value_name = "ID")]
    pub sse_kms_key_id: Option<String>,
    /// Lock objects against deletion with S3 Object Lock; needs `object-lock-retain` [default: that
    /// of the bucket]
    #[arg(long, value_enum, value_name = "MODE")]
    pub object_lock_mode: Option<S3LockMode>,
    /// How long an object is locked from when it is created, such as 365d or 12h
    #[arg(long, value_name = "DURATION")]
    pub object_lock_retain: Option<String>,
    /// Storage class of the objects [default: that of the provider]
    #[arg(long, value_name = "CLASS")]
    pub storage_class: Option<String>,
    /// Whether requests wait until their events are in the spool
    #[arg(long, value_enum, value_name = "MODE", default_value = "batch")]
    pub mode: WriteMode,
    /// Number of events that may wait to be written to the spool
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub batch_buffer_size: i64,
}

/// `format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum S3Format {
    /// Parquet files with a column for each filter of `log query`, and `event`, the whole event
    #[default]
    Parquet,
    /// JSON lines, compressed with zstd
    Ndjson,
}

/// `server-side-encryption`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
pub(crate) enum S3Encryption {
    /// Keys that S3 manages (SSE-S3)
    #[value(name = "AES256")]
    #[serde(rename = "AES256")]
    Aes256,
    /// A key in AWS KMS (SSE-KMS)
    #[value(name = "aws:kms")]
    #[serde(rename = "aws:kms")]
    Kms,
}

/// `object-lock-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum S3LockMode {
    /// Users with `s3:BypassGovernanceRetention` can shorten the retention
    Governance,
    /// No user can shorten the retention
    Compliance,
}

impl Default for S3Keys {
    fn default() -> S3Keys {
        default_flags()
    }
}

/// Parses `365d`, or a duration in Go's notation.
fn parse_days(text: &str) -> Option<Duration> {
    const DAY: u64 = 24 * 60 * 60;
    const LONGEST: Duration = Duration::from_secs(36_500 * DAY);
    let duration = match text.strip_suffix('d') {
        Some(days) if days.bytes().all(|byte| byte.is_ascii_digit()) => {
            Duration::from_secs(days.parse::<u64>().ok()?.checked_mul(DAY)?)
        }
        _ => parse_duration(text).ok()?,
    };
    (!duration.is_zero() && duration <= LONGEST).then_some(duration)
}

impl S3Keys {
    /// Returns the settings of the backend and of the bucket.
    pub(super) fn validate(&self) -> Result<(StreamConfig, S3Settings), SettingError> {
        if self.url.is_empty() {
            return Err(error("url", " is missing; write s3://bucket/prefix"));
        }
        Ok((self.stream()?, self.store()?))
    }

    fn stream(&self) -> Result<StreamConfig, SettingError> {
        let keys = StreamKeys {
            spool_dir: self.spool_dir.clone(),
            spool_max_size: self.spool_max_size,
            segment_max_size: self.segment_max_size,
            segment_max_age: self.segment_max_age,
            mode: self.mode,
            batch_buffer_size: self.batch_buffer_size,
        };
        keys.validate()
    }

    fn store(&self) -> Result<S3Settings, SettingError> {
        let encryption = match (self.server_side_encryption, self.sse_kms_key_id.clone()) {
            (Some(S3Encryption::Kms), id) => Encryption::Kms(id),
            (_, Some(_)) => {
                let rest = " needs server-side-encryption: aws:kms";
                return Err(error("sse-kms-key-id", rest));
            }
            (Some(S3Encryption::Aes256), None) => Encryption::Aes256,
            (None, None) => Encryption::Bucket,
        };
        Ok(S3Settings {
            url: self.url.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            allow_http: self.allow_http,
            ca_file: self.ca_file.clone(),
            format: match self.format {
                S3Format::Parquet => s3::Format::Parquet,
                S3Format::Ndjson => s3::Format::Ndjson,
            },
            cluster: self.cluster.clone(),
            node: node_name(self.node.as_deref()),
            encryption,
            storage_class: self.storage_class.clone(),
            lock: self.lock()?,
        })
    }

    fn lock(&self) -> Result<Option<ObjectLock>, SettingError> {
        let (mode, retain) = match (self.object_lock_mode, &self.object_lock_retain) {
            (None, None) => return Ok(None),
            (Some(mode), Some(retain)) => (mode, retain),
            (Some(_), None) => {
                let rest = " needs object-lock-retain, such as 365d";
                return Err(error("object-lock-mode", rest));
            }
            (None, Some(_)) => {
                let rest = " needs object-lock-mode: governance or compliance";
                return Err(error("object-lock-retain", rest));
            }
        };
        let retain = parse_days(retain).ok_or_else(|| {
            let rest = format!(": {retain:?} is not a duration; write 365d or 12h, at most 36500d");
            error("object-lock-retain", &rest)
        })?;
        let mode = match mode {
            S3LockMode::Governance => LockMode::Governance,
            S3LockMode::Compliance => LockMode::Compliance,
        };
        Ok(Some(ObjectLock { mode, retain }))
    }
}
