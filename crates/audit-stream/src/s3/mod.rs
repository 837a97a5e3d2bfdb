//! Object storage: Amazon S3 and compatible servers, Google Cloud Storage, Azure Blob Storage.
//!
//! Each segment of the spool becomes one object per hour of its events:
//! `PREFIX/cluster=NAME/date=2026-11-23/hour=04/NODE-NUMBER.parquet`. The hour is that in which the
//! request arrived, so that all events of a request are in one partition. `NODE` is the name of the
//! proxy and `NUMBER` that of the segment in its spool.
//!
//! # No object is overwritten
//! Objects are created on the condition that there is none of that name. If there is one with the
//! same content, an earlier attempt has succeeded. If it has another content, the object gets the
//! SHA-256 of its content in its name. Objects of more than [`PART`] bytes are uploaded in parts,
//! for which stores have no such condition: the name is checked first.
//!
//! # Object Lock
//! The headers `x-amz-object-lock-*` are added to the requests that create objects ([`lock`]).
//!
//! # Memory
//! A segment is read from its file. In memory is one compressed object at a time, and the rows of
//! one row group of Parquet (about 24 MiB).

mod bucket;
mod encode;
mod http;
mod lock;
mod settings;
mod upload;

use std::fmt;
use std::sync::Arc;

use audit_log::{Batch, BatchFile, DeliveryError, Destination};
use audit_query::export::Hour;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use object_store::path::Path;
use object_store::{Attribute, Attributes, Error, ObjectStore, ObjectStoreExt};
use tokio::sync::Mutex;

pub use self::bucket::Buckets;
pub use self::lock::{LockMode, ObjectLock};
pub use self::settings::{Encryption, Format, S3Settings, SettingsError};
pub use self::upload::PART;

use self::encode::Segment;
use self::upload::{Content, Created};

/// A bucket that events are written to.
pub struct S3Destination {
    store: Arc<dyn ObjectStore>,
    settings: S3Settings,
    prefix: Path,
    /// What was done of the segment that is being sent.
    progress: Mutex<Progress>,
}

/// How far a segment is.
#[derive(Default)]
struct Progress {
    number: u64,
    segment: Option<Arc<Segment>>,
    /// Hours that are stored.
    stored: usize,
    /// The object of the next hour.
    object: Option<Bytes>,
}

impl fmt::Debug for S3Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Destination").field("url", &self.settings.url).finish_non_exhaustive()
    }
}

impl S3Destination {
    /// Creates the client. Nothing is sent yet. Credentials come from the environment, from web
    /// identity, or from the metadata of the instance.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn new(settings: S3Settings) -> Result<S3Destination, SettingsError> {
        let (store, prefix) = settings.open()?;
        Ok(S3Destination::with_store(store, prefix, settings))
    }

    fn with_store(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        settings: S3Settings,
    ) -> S3Destination {
        S3Destination { store, settings, prefix, progress: Mutex::default() }
    }

    /// Sends all hours of a segment. An attempt after a failed one goes on where that failed.
    async fn send(&self, batch: BatchFile) -> Result<(), DeliveryError> {
        let mut progress = self.progress.lock().await;
        if progress.number != batch.number || progress.segment.is_none() {
            let read = batch.clone();
            let segment = blocking(move || Segment::read(read.file, read.bytes)).await?;
            let segment = Some(Arc::new(segment));
            *progress = Progress { number: batch.number, segment, ..Progress::default() };
        }
        let Some(segment) = progress.segment.clone() else { return Ok(()) };
        while let Some(hour) = segment.hour(progress.stored) {
            let object = match &progress.object {
                Some(object) => object.clone(),
                None => {
                    let (segment, format) = (segment.clone(), self.settings.format);
                    let at = progress.stored;
                    blocking(move || segment.encode(at, format)).await?
                }
            };
            progress.object = Some(object.clone());
            self.store(hour, batch.number, object).await?;
            progress.object = None;
            progress.stored += 1;
        }
        *progress = Progress::default();
        Ok(())
    }

    fn key(&self, hour: Hour, name: &str) -> Result<Path, DeliveryError> {
        let S3Settings { cluster, format, .. } = &self.settings;
        let extension = format.extension();
        let key = format!("cluster={cluster}/{}/{name}.{extension}", hour.key());
        let key = match self.prefix.as_ref() {
            "" => key,
            prefix => format!("{prefix}/{key}"),
        };
        Path::parse(key).map_err(|error| DeliveryError::Rejected(error.to_string()))
    }

    /// Stores one object, unless it is there.
    async fn store(&self, hour: Hour, number: u64, object: Bytes) -> Result<(), DeliveryError> {
        let name = format!("{}-{number:020}", self.settings.node);
        let key = self.key(hour, &name)?;
        if self.create(&key, object.clone()).await? {
            return Ok(());
        }
        let hash = digest(&SHA256, &object);
        let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let other = self.key(hour, &format!("{name}-{hash}"))?;
        if self.create(&other, object).await? {
            return Ok(());
        }
        let message = format!("{key} and {other} are there already with another content");
        Err(DeliveryError::Rejected(message))
    }

    /// Creates an object. Returns `false` if there is one with another content.
    async fn create(&self, key: &Path, object: Bytes) -> Result<bool, DeliveryError> {
        let content = Content::Memory(object);
        let created = upload::create(&*self.store, key, &content, self.attributes()).await;
        created.map(|created| created != Created::Other).map_err(unavailable)
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, self.settings.format.content_type().into());
        if let Some(class) = &self.settings.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }
}

/// Every error of a store may be gone after someone has set it right, such as a permission.
fn unavailable(error: Error) -> DeliveryError {
    DeliveryError::Unavailable { reason: reason(&error), retry_after: None }
}

/// The text of a store's error with its causes.
fn reason(error: &Error) -> String {
    match error {
        Error::Generic { source, .. } => chain(&**source),
        error => chain(error),
    }
}

/// An error with its causes, as far as they do not repeat each other.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, DeliveryError> {
    let done = tokio::task::spawn_blocking(act).await;
    let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map_err(|error| DeliveryError::Unavailable {
        reason: format!("cannot read the spool or encode its events: {error}"),
        retry_after: None,
    })
}

impl Destination for S3Destination {
    fn address(&self) -> String {
        self.settings.url.clone()
    }

    fn deliver(&self, _: Batch) -> BoxFuture<'_, Result<(), DeliveryError>> {
        Box::pin(async { Err(DeliveryError::Rejected("takes files only".to_owned())) })
    }

    fn takes_files(&self) -> bool {
        true
    }

    fn deliver_file(&self, batch: BatchFile) -> BoxFuture<'_, Result<(), DeliveryError>> {
        Box::pin(self.send(batch))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), DeliveryError>> {
        Box::pin(async {
            // Whether it is there does not matter.
            match self.store.head(&self.prefix.clone().join("_check")).await {
                Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(unavailable(error)),
            }
        })
    }
}

#[cfg(test)]
mod tests;
