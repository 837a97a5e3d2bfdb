//! The settings of a bucket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::http::Connector;
use super::lock::{Locking, ObjectLock};

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
    /// `object-lock-mode` and `object-lock-retain`
    pub lock: Option<ObjectLock>,
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
    pub(super) fn new(field: &'static str, reason: impl std::fmt::Display) -> SettingsError {
        SettingsError { field, reason: reason.to_string() }
    }

    /// Returns what is wrong.
    pub(super) fn reason(&self) -> &str {
        &self.reason
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
pub(super) fn retries() -> RetryConfig {
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
        if let Some(endpoint) = &self.endpoint
            && endpoint.starts_with("http://")
            && !self.allow_http
        {
            let reason = "is without TLS; use https, or set allow-http: true for a server in the \
                          same trusted network";
            return Err(SettingsError::new("endpoint", reason));
        }
        if self.lock.is_some() && !self.url.starts_with("s3://") {
            let reason = "is for s3:// only; set a retention or immutability policy on the bucket";
            return Err(SettingsError::new("object-lock-mode", reason));
        }
        let connector = Connector::new(self.ca_file.as_deref())
            .map_err(|error| SettingsError::new("ca-file", error))?;
        open(&self.url, connector, self.lock, |bucket| self.amazon(bucket))
    }

    fn amazon(&self, bucket: &str) -> AmazonS3Builder {
        let mut builder = amazon_from_env()
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

/// Returns the store of a URL, and the prefix of all keys.
pub(super) fn open(
    url: &str,
    connector: Connector,
    lock: Option<ObjectLock>,
    amazon: impl FnOnce(&str) -> AmazonS3Builder,
) -> Result<(Arc<dyn ObjectStore>, Path), SettingsError> {
    let wrong = || {
        SettingsError::new(
            "url",
            format!(
                "{:?} is not the URL of a bucket; write s3://bucket/prefix, gs://bucket/prefix or \
                 az://container/prefix",
                without_secrets(url)
            ),
        )
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || rest.contains(['@', '?', '#']) {
        return Err(wrong());
    }
    let failed = |error: object_store::Error| SettingsError::new("url", super::reason(&error));
    let prefix = Path::parse(prefix.trim_end_matches('/'))
        .map_err(|error| SettingsError::new("url", error))?;
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => {
            let builder = amazon(bucket);
            check_endpoint(&builder)?;
            Arc::new(build_amazon(builder, connector, lock).map_err(failed)?)
        }
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retries())
                .with_http_connector(connector)
                .build()
                .map_err(failed)?,
        ),
        "az" => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_retry(retries())
                .with_http_connector(connector)
                .build()
                .map_err(failed)?,
        ),
        _ => return Err(wrong()),
    };
    Ok((store, prefix))
}

/// Reads the environment. Variables that are empty are like those that are not set.
pub(super) fn amazon_from_env() -> AmazonS3Builder {
    std::env::vars_os().fold(AmazonS3Builder::new(), |builder, (name, value)| {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return builder };
        match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            Ok(key) if name.starts_with("AWS_") && !value.is_empty() => {
                builder.with_config(key, value)
            }
            _ => builder,
        }
    })
}

/// Returns the endpoint, unless it is that of Amazon.
pub(super) fn endpoint(builder: &AmazonS3Builder) -> Option<String> {
    let value = |key| builder.get_config_value(&key);
    value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint))
}

fn check_endpoint(builder: &AmazonS3Builder) -> Result<(), SettingsError> {
    let Some(endpoint) = endpoint(builder) else { return Ok(()) };
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let is_url = rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty() && format!("http://{host}/").parse::<::http::Uri>().is_ok()
    });
    match is_url && !endpoint.contains(['@', '?', '#', ' ']) {
        true => Ok(()),
        false => {
            let endpoint = without_secrets(&endpoint);
            let reason =
                format!("{endpoint:?} is not the URL of a server; write https://host:port");
            Err(SettingsError::new("endpoint", reason))
        }
    }
}

fn build_amazon(
    builder: AmazonS3Builder,
    connector: Connector,
    lock: Option<ObjectLock>,
) -> object_store::Result<AmazonS3> {
    let Some(lock) = lock else { return builder.with_http_connector(connector).build() };
    let region = builder
        .get_config_value(&AmazonS3ConfigKey::Region)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::DefaultRegion))
        .unwrap_or_else(|| "us-east-1".to_owned());
    let locking = Locking::new(connector, lock, region);
    // S3 accepts no locked object without a checksum.
    let builder = builder.with_checksum_algorithm(Checksum::SHA256);
    let store = builder.with_http_connector(locking.clone()).build()?;
    locking.sign_with(store.credentials().clone());
    Ok(store)
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
