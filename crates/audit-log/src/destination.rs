//! The interface of the systems to which the spool sends its batches.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// A system that accepts batches of events. It receives one batch at a time, the oldest first,
/// until it has accepted it, so each event arrives at least once.
pub trait Destination: Send + Sync + fmt::Debug {
    /// Returns the address for messages, without secrets, such as `s3://bucket/prefix`.
    fn address(&self) -> String;

    /// Sends a batch. Returns when the destination has stored it durably.
    ///
    /// The future may be dropped at shutdown. The batch is then sent again after the next start,
    /// with the same [`number`](Batch::number).
    ///
    /// # Errors
    /// Returns an error if the destination has not accepted the batch.
    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<(), DeliveryError>>;

    /// Returns whether batches are sent from their files with [`Self::deliver_file`]. For
    /// destinations whose batches are too large for memory.
    fn takes_files(&self) -> bool {
        false
    }

    /// Like [`Self::deliver`], for a destination that takes files. [`DeliveryError::TooLarge`] is
    /// treated like [`DeliveryError::Rejected`], because files are not split.
    ///
    /// # Errors
    /// Returns an error if the destination has not accepted the batch.
    fn deliver_file(&self, _: BatchFile) -> BoxFuture<'_, Result<(), DeliveryError>> {
        Box::pin(async { Err(DeliveryError::Rejected("only takes batches in memory".to_owned())) })
    }

    /// Checks whether the destination can be reached, for `/readyz`.
    ///
    /// # Errors
    /// Returns an error if it cannot be reached.
    fn check(&self) -> BoxFuture<'_, Result<(), DeliveryError>>;
}

/// A batch of events from the spool.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The number in the spool. Later batches have higher numbers, also after a restart.
    pub number: u64,
    /// The events in the order in which they were recorded, each a line of JSON that ends with a
    /// newline.
    pub lines: Bytes,
    /// The number of events.
    pub events: u64,
}

/// A batch of events as a file.
#[derive(Debug, Clone)]
pub struct BatchFile {
    /// The number in the spool, like [`Batch::number`].
    pub number: u64,
    /// The file with the events, like [`Batch::lines`]. Its handle is shared, so it must be read at
    /// explicit offsets.
    pub file: Arc<File>,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The number of events.
    pub events: u64,
}

/// Why a destination has not accepted a batch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeliveryError {
    /// The destination cannot be reached or has a problem itself. The batch is sent again until it
    /// is accepted.
    #[error("{reason}")]
    Unavailable {
        /// The reason.
        reason: String,
        /// The minimum delay before the next attempt, if the destination states one.
        retry_after: Option<Duration>,
    },
    /// The batch is too large for the destination. It is sent in halves.
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
