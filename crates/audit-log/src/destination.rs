//! Where the spool sends its batches.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// A system that accepts batches of events. It gets one batch at a time, the oldest first, until it
/// has accepted it, so each event arrives at least once.
pub trait Destination: Send + Sync + fmt::Debug {
    /// Where the events go, for messages: without anything secret, such as
    /// `s3://bucket/prefix`.
    fn address(&self) -> String;

    /// Sends a batch. Returns when the destination has stored it durably.
    ///
    /// The future may be dropped at a shutdown; the same batch, with the same
    /// [`number`](Batch::number), is sent again after the next start.
    ///
    /// # Errors
    /// The destination has not accepted it.
    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<(), DeliveryError>>;

    /// Returns whether batches are sent from their files by [`Self::deliver_file`], for
    /// destinations whose batches are too large to be in memory.
    fn takes_files(&self) -> bool {
        false
    }

    /// Like [`Self::deliver`], for a destination that takes files. [`DeliveryError::TooLarge`] is
    /// like [`DeliveryError::Rejected`] here: files are not sent in halves.
    ///
    /// # Errors
    /// The destination has not accepted it.
    fn deliver_file(&self, _: BatchFile) -> BoxFuture<'_, Result<(), DeliveryError>> {
        Box::pin(async { Err(DeliveryError::Rejected("only takes batches in memory".to_owned())) })
    }

    /// Returns whether the destination can be reached, for `/readyz`.
    ///
    /// # Errors
    /// It cannot be reached.
    fn check(&self) -> BoxFuture<'_, Result<(), DeliveryError>>;
}

/// A batch of events from the spool.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its number in the spool. Later batches have higher numbers, also after a restart.
    pub number: u64,
    /// The events in the order in which they were recorded, each a line of JSON that ends with a
    /// newline.
    pub lines: Bytes,
    /// The number of events.
    pub events: u64,
}

/// A batch of events in its file.
#[derive(Debug, Clone)]
pub struct BatchFile {
    /// Its number in the spool, like [`Batch::number`].
    pub number: u64,
    /// The file with the events, like [`Batch::lines`]. It is shared, so read it at offsets.
    pub file: Arc<File>,
    /// Its length in bytes.
    pub bytes: u64,
    /// The number of events.
    pub events: u64,
}

/// A destination has not accepted a batch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeliveryError {
    /// The destination cannot be reached or has a problem of its own. The batch is sent again until
    /// it is accepted.
    #[error("{reason}")]
    Unavailable {
        /// What is wrong.
        reason: String,
        /// When to send it again at the earliest, if the destination says so.
        retry_after: Option<Duration>,
    },
    /// The destination accepts shorter batches only. The batch is sent in halves.
    #[error("{0}")]
    TooLarge(String),
    /// The destination rejects these events. After several attempts the batch is set aside as
    /// `*.rejected` and counted as lost.
    #[error("{0}")]
    Rejected(String),
    /// The destination rejects these events, and its protocol forbids to send them again. The batch
    /// is set aside at once.
    #[error("{0}")]
    Final(String),
}
