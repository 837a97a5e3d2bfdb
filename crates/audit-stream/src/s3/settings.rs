//! The settings of a bucket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::http::Connector;

/// Where and how events are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// `url`: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`
    pub url: String,
    /// `endpoint`: the URL of an S3-compatible server; the default is the provider's.
    pub endpoint: Option<String>,
    /// `region`; the default is that of the environment.
    pub region: Option<String>,
    /// `allow-http`: whether `endpoint` may be without TLS.
    pub allow_http: bool,
    /// `ca-file`: CAs to trust instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// `format`
    pub format: Format,
    /// `cluster`: the first part of keys.
    pub cluster: String,
    /// `node`: the name of this proxy in keys.
    pub node: String,
    /// `server-side-encryption` and `sse-kms-key-id`
    pub encryption: Encryption,
    /// `storage-class`
    pub storage_class: Option<String>,
}

/// What objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Parquet files.
    #[default]
    Parquet,
    /// JSON lines, compressed with zstd.
    Ndjson,
}

/// How the store encrypts objects (S3 only).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// As the bucket says.
    #[default]
    Bucket,
    /// `AES256`
    Aes256,
    /// `aws:kms`, with this key or the default one.
    Kms(Option<String>),
}

/// A setting cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SettingsError {
    field: &'static str,
    reason: String,
}

impl SettingsError {
    fn new(field: &'static str, reason: impl std::fmt::Display) -> SettingsError {
        SettingsError { field, reason: reason.to_string() }
    }

    /// Returns the key to change.
    pub fn setting(&self) -> &'static str {
        self.field
    }
}

impl Format {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Ndjson => "json.zst",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Parquet => "application/vnd.apache.parquet",
            Format::Ndjson => "application/zstd",
        }
    }
}

/// The spool repeats attempts with longer pauses.
fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 1,
        retry_timeout: Duration::from_secs(30),
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
    }
}

impl S3Settings {
    /// Returns the store and the prefix of all keys.
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, Path), SettingsError> {
        for (field, value) in [("cluster", &self.cluster), ("node", &self.node)] {
            check_name(field, value)?;
        }
        let wrong = || {
            SettingsError::new(
                "url",
                format!(
                    "{:?} is not the URL of a bucket; write s3://bucket/prefix, gs://bucket/prefix \
                     or az://container/prefix",
                    without_secrets(&self.url)
                ),
            )
        };
        let (scheme, rest) = self.url.split_once("://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || rest.contains(['@', '?', '#']) {
            return Err(wrong());
        }
        let prefix = Path::parse(prefix.trim_end_matches('/'))
            .map_err(|error| SettingsError::new("url", error))?;
        if let Some(endpoint) = &self.endpoint
            && endpoint.starts_with("http://")
            && !self.allow_http
        {
            let reason = "is without TLS; use https, or set allow-http: true for a server in the \
                          same trusted network";
            return Err(SettingsError::new("endpoint", reason));
        }
        let connector = Connector::new(self.ca_file.as_deref())
            .map_err(|error| SettingsError::new("ca-file", error))?;
        let store: Arc<dyn ObjectStore> = match scheme {
            "s3" => Arc::new(
                self.amazon(bucket)
                    .with_http_connector(connector)
                    .build()
                    .map_err(|error| SettingsError::new("url", super::chain(&error)))?,
            ),
            "gs" => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retries())
                    .with_http_connector(connector)
                    .build()
                    .map_err(|error| SettingsError::new("url", super::chain(&error)))?,
            ),
            "az" => Arc::new(
                MicrosoftAzureBuilder::from_env()
                    .with_container_name(bucket)
                    .with_retry(retries())
                    .with_http_connector(connector)
                    .build()
                    .map_err(|error| SettingsError::new("url", super::chain(&error)))?,
            ),
            _ => return Err(wrong()),
        };
        Ok((store, prefix))
    }

    fn amazon(&self, bucket: &str) -> AmazonS3Builder {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retries())
            .with_allow_http(self.allow_http);
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        match &self.encryption {
            Encryption::Bucket => builder,
            Encryption::Aes256 => {
                let key = "aws_server_side_encryption".parse::<AmazonS3ConfigKey>();
                match key {
                    Ok(key) => builder.with_config(key, "AES256"),
                    Err(_) => builder,
                }
            }
            Encryption::Kms(Some(id)) => builder.with_sse_kms_encryption(id),
            Encryption::Kms(None) => {
                let key = "aws_server_side_encryption".parse::<AmazonS3ConfigKey>();
                match key {
                    Ok(key) => builder.with_config(key, "aws:kms"),
                    Err(_) => builder,
                }
            }
        }
    }
}

/// Names are parts of keys, which are the same in all stores and file systems.
fn check_name(field: &'static str, value: &str) -> Result<(), SettingsError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !value.is_empty() && value.chars().all(is_plain) && !value.starts_with('.') {
        true => Ok(()),
        false => Err(SettingsError::new(
            field,
            format!("{value:?} is not a name; use letters, digits, '-', '_' and '.'"),
        )),
    }
}

/// A URL without what may be a secret.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}
