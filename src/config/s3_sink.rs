//! The keys of an entry of `sinks` with the type `s3`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::flags::{AuditLogMode, parse_duration};
use super::{ConfigError, fail};
use audit_log::SpoolConfig;
use audit_log::stream::{StreamConfig, StreamMode};
use audit_stream::s3::{self, Encryption, S3Settings};

/// An entry of the type `s3`. The keys are written like flags, so that one parser serves all.
#[derive(Debug, Clone, clap::Args)]
pub struct S3Keys {
    /// Where events are stored: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub url: String,
    /// Directory in which events wait until they are stored; each backend needs its own
    #[arg(long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Maximum size of the spool in MiB; events beyond it are lost and counted, the newest first
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub spool_max_size: u64,
    /// A segment is uploaded when it has this many MiB of JSON, at most 1024
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub segment_max_size: u64,
    /// Or when its first event has waited this long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
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
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false)]
    #[arg(default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
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
    /// Storage class of the objects [default: that of the provider]
    #[arg(long, value_name = "CLASS")]
    pub storage_class: Option<String>,
    /// Whether requests wait until their events are in the spool
    #[arg(long, value_enum, value_name = "MODE", default_value_t = AuditLogMode::Batch)]
    pub mode: AuditLogMode,
    /// Number of events that may wait to be written to the spool
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub batch_buffer_size: usize,
}

/// `format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum S3Format {
    /// Parquet files with a column for each filter of `log query`, and `event`, the whole event
    #[default]
    Parquet,
    /// JSON lines, compressed with zstd
    Ndjson,
}

/// `server-side-encryption`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum S3Encryption {
    /// Keys that S3 manages (SSE-S3)
    #[value(name = "AES256")]
    Aes256,
    /// A key in AWS KMS (SSE-KMS)
    #[value(name = "aws:kms")]
    Kms,
}

/// A size in bytes, if it is between 1 MiB and `max` MiB.
fn size(key: &str, mib: u64, max: u64) -> Result<u64, ConfigError> {
    match (1..=max).contains(&mib) {
        true => Ok(mib << 20),
        false => fail(&format!("--{key}: {mib} is not a size in MiB; give 1 to {max}")),
    }
}

/// Returns the settings of an entry.
pub(super) fn settings(keys: &S3Keys) -> Result<(StreamConfig, S3Settings), ConfigError> {
    if keys.url.is_empty() {
        return fail("--url is missing; write s3://bucket/prefix");
    }
    let Some(dir) = keys.spool_dir.clone() else {
        return fail("--spool-dir is missing: events wait there until they are stored");
    };
    let spool =
        SpoolConfig { dir, max_size: size("spool-max-size", keys.spool_max_size, 1 << 40)? };
    let segment_max_size = size("segment-max-size", keys.segment_max_size, 1024)?;
    if segment_max_size > spool.max_size / 2 {
        return fail("--segment-max-size is more than half of spool-max-size; make it smaller");
    }
    if keys.segment_max_age.is_zero() {
        return fail("--segment-max-age must be above 0, such as 5m");
    }
    if keys.batch_buffer_size == 0 {
        return fail("--batch-buffer-size must be above 0");
    }
    let mode = match keys.mode {
        AuditLogMode::Batch => StreamMode::Batch,
        AuditLogMode::Blocking => StreamMode::Blocking,
        AuditLogMode::BlockingStrict => StreamMode::BlockingStrict,
    };
    let encryption = match (keys.server_side_encryption, keys.sse_kms_key_id.clone()) {
        (Some(S3Encryption::Kms), id) => Encryption::Kms(id),
        (_, Some(_)) => {
            return fail("--sse-kms-key-id needs server-side-encryption: aws:kms");
        }
        (Some(S3Encryption::Aes256), None) => Encryption::Aes256,
        (None, None) => Encryption::Bucket,
    };
    let node = match &keys.node {
        Some(node) => node.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let store = S3Settings {
        url: keys.url.clone(),
        endpoint: keys.endpoint.clone(),
        region: keys.region.clone(),
        allow_http: keys.allow_http,
        ca_file: keys.ca_file.clone(),
        format: match keys.format {
            S3Format::Parquet => s3::Format::Parquet,
            S3Format::Ndjson => s3::Format::Ndjson,
        },
        cluster: keys.cluster.clone(),
        node,
        encryption,
        storage_class: keys.storage_class.clone(),
    };
    let stream = StreamConfig {
        mode,
        buffer_size: keys.batch_buffer_size,
        segment_max_size,
        segment_max_age: keys.segment_max_age,
        spool,
    };
    Ok((stream, store))
}
