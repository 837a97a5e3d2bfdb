//! Buckets that `log query`, `log report` and `log export` read and write.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use audit_query::objects::{Entry, Listing, Store, Stores};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::http::Connector;
use super::upload::{self, Content, Created};
use super::{SettingsError, settings};

/// Attempts after the first one that fails.
const RETRIES: usize = 3;

/// Opens buckets with the settings and credentials of the environment, which are those of the
/// providers' own tools: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`,
/// `AZURE_STORAGE_ACCOUNT_NAME`, ...
#[derive(Debug, Default)]
pub struct Buckets;

impl Stores for Buckets {
    fn open(&self, bucket: &str) -> io::Result<Arc<dyn Store>> {
        let failed = |error: SettingsError| {
            let reason = error.reason();
            io::Error::other(match reason {
                _ if error.setting() == "endpoint" => format!("AWS_ENDPOINT_URL: {reason}"),
                "Missing AccessKeyId" => "AWS_ACCESS_KEY_ID is not set".to_owned(),
                "Missing SecretAccessKey" => "AWS_SECRET_ACCESS_KEY is not set".to_owned(),
                "Account must be specified" => "AZURE_STORAGE_ACCOUNT_NAME is not set".to_owned(),
                _ => reason.to_owned(),
            })
        };
        let ca_file = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty());
        let ca_file = ca_file.filter(|_| bucket.starts_with("s3://")).map(PathBuf::from);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let _guard = runtime.enter();
        let connector = Connector::new(ca_file.as_deref())
            .map_err(|error| io::Error::other(format!("AWS_CA_BUNDLE: {error}")))?;
        let mut refused = None;
        let amazon = |name: &str| {
            let retry = RetryConfig { max_retries: RETRIES, ..settings::retries() };
            let builder = settings::amazon_from_env().with_bucket_name(name).with_retry(retry);
            refused = endpoint_without_tls(&builder);
            builder
        };
        let (store, _) = settings::open(bucket, connector, None, amazon).map_err(failed)?;
        drop(_guard);
        match refused {
            Some(endpoint) => Err(io::Error::other(format!(
                "the endpoint {endpoint} is without TLS; use https, or set AWS_ALLOW_HTTP=true for a \
                 server in the same trusted network"
            ))),
            None => Ok(Arc::new(Bucket { url: bucket.to_owned(), store, runtime })),
        }
    }
}

/// The endpoint, if it is another machine's and requests to it would not be encrypted.
fn endpoint_without_tls(builder: &AmazonS3Builder) -> Option<String> {
    let endpoint = settings::endpoint(builder).filter(|url| url.starts_with("http://"))?;
    let allowed =
        std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value == "true" || value == "1");
    let host = endpoint.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let is_loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    (!allowed && !is_loopback).then_some(endpoint)
}

/// A bucket. Its requests run on a thread of their own; callers wait.
struct Bucket {
    url: String,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Bucket {
    fn wait<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        self.runtime.block_on(request).map_err(|error| self.explain(&error))
    }

    /// Adds the remedy to an error of a store.
    fn explain(&self, error: &Error) -> io::Error {
        let reason = super::reason(error);
        let has = |text: &str| reason.contains(text);
        let kind = match error {
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                io::ErrorKind::PermissionDenied
            }
            Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
            _ => io::ErrorKind::Other,
        };
        let is_s3 = self.url.starts_with("s3://");
        let text = if has("NoSuchBucket") || has("ContainerNotFound") {
            format!(
                "there is no such bucket; check its name and the endpoint ({})",
                self.endpoint()
            )
        } else if is_s3 && !has_credentials() && (has("169.254.169.254") || has("latest/api/token"))
        {
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (profiles: \
             eval \"$(aws configure export-credentials --format env)\"), or run on an instance or \
             with a web identity that has a role; AWS_SKIP_SIGNATURE=true reads public buckets"
                .to_owned()
        } else if self.url.starts_with("gs://") && has("computeMetadata") {
            "there are no credentials: set GOOGLE_APPLICATION_CREDENTIALS to the file of a service \
             account, or run on an instance that has one"
                .to_owned()
        } else if self.url.starts_with("az://") && has("169.254.169.254") {
            "there are no credentials: set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or \
             run on an instance with a managed identity"
                .to_owned()
        } else if has("InvalidAccessKeyId") || has("SignatureDoesNotMatch") {
            format!(
                "the store does not accept the credentials; check AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY: {reason}"
            )
        } else if has("AuthorizationHeaderMalformed") || has("PermanentRedirect") {
            format!("the bucket is in another region; set AWS_REGION: {reason}")
        } else if kind == io::ErrorKind::PermissionDenied {
            format!(
                "the credentials do not allow it; reading needs s3:ListBucket and s3:GetObject, \
                 writing s3:PutObject (or the same of the provider): {reason}"
            )
        } else if has("connect") || has("timed out") || has("dns") {
            format!(
                "cannot reach {}; check the endpoint and the network: {reason}",
                self.endpoint()
            )
        } else {
            reason
        };
        io::Error::new(kind, text)
    }

    /// The server's address, for messages.
    fn endpoint(&self) -> String {
        match self.url.split_once("://") {
            Some(("s3", _)) => settings::endpoint(&settings::amazon_from_env())
                .unwrap_or_else(|| "Amazon S3; AWS_ENDPOINT_URL is not set".to_owned()),
            Some(("gs", _)) => "Google Cloud Storage".to_owned(),
            _ => "Azure Blob Storage".to_owned(),
        }
    }
}

fn has_credentials() -> bool {
    ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn path(key: &str) -> object_store::Result<Path> {
    Ok(Path::parse(key)?)
}

fn entry(meta: ObjectMeta) -> Entry {
    Entry {
        key: meta.location.to_string(),
        size: meta.size,
        modified: meta.last_modified.timestamp_micros(),
    }
}

impl Store for Bucket {
    fn list(&self, folder: &str, recursive: bool) -> io::Result<Listing> {
        self.wait(async {
            let prefix = (!folder.is_empty()).then(|| path(folder)).transpose()?;
            if recursive {
                let objects = self.store.list(prefix.as_ref()).map_ok(entry).try_collect().await?;
                return Ok(Listing { folders: Vec::new(), objects });
            }
            let listed = self.store.list_with_delimiter(prefix.as_ref()).await?;
            Ok(Listing {
                folders: listed.common_prefixes.iter().map(Path::to_string).collect(),
                objects: listed.objects.into_iter().map(entry).collect(),
            })
        })
    }

    fn get(&self, key: &str) -> io::Result<Option<Entry>> {
        self.wait(async {
            match self.store.head(&path(key)?).await {
                Ok(meta) => Ok(Some(entry(meta))),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn read(&self, key: &str, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.wait(async { self.store.get_range(&path(key)?, range).await })
    }

    fn create(&self, key: &str, file: &std::path::Path) -> io::Result<bool> {
        let file = File::open(file)?;
        let size = file.metadata()?.len();
        let content = Content::File(Arc::new(file), size);
        let created = self.wait(async {
            upload::create(&*self.store, &path(key)?, &content, attributes(key)).await
        })?;
        match created {
            Created::New => Ok(true),
            Created::Same => Ok(false),
            Created::Other => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!(
                    "{key} is there already; objects are never replaced, choose another prefix"
                ),
            )),
        }
    }
}

fn attributes(key: &str) -> Attributes {
    let types = [
        (".parquet", "application/vnd.apache.parquet"),
        (".csv", "text/csv"),
        (".ndjson", "application/x-ndjson"),
    ];
    let mut attributes = Attributes::new();
    if let Some((_, of_key)) = types.iter().find(|(extension, _)| key.ends_with(extension)) {
        attributes.insert(Attribute::ContentType, (*of_key).into());
    }
    attributes
}
