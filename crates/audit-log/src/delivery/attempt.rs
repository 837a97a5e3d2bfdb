//! One attempt to send a batch, and its outcome.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// Why the destination has not accepted a batch.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) Arc<str>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The outcome of one attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The destination accepted the batch.
    Taken,
    /// The destination did not accept it.
    Failed {
        /// The reason.
        failure: Failure,
        /// The time after which the batch may be sent again, if the destination states one.
        retry_after: Option<Duration>,
        /// What the failure means for the batch.
        verdict: Verdict,
    },
}

/// What a failed attempt means for the batch that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: there was no response, or the destination itself has a problem.
    Unavailable,
    /// The destination will never accept it. Some endpoints respond so for a while, such as a proxy
    /// without its server, so it is sent a few times.
    Invalid,
    /// The same, and it must not be sent again.
    Final,
    /// The batch is too large for the destination.
    TooLarge,
}

/// Sends batches of the spool to one destination.
pub(crate) trait Courier: Send + Sync + 'static {
    /// Returns the name of the destination, for messages: `the webhook endpoint`.
    fn destination(&self) -> String;

    /// Returns the content of a batch as it is sent.
    fn encode(&self, content: Vec<u8>) -> Bytes;

    /// Makes one attempt to send what [`Self::encode`] returned.
    fn attempt(&self, number: u64, encoded: Bytes, events: u64) -> BoxFuture<'_, Attempt>;

    /// Returns whether batches are only sent with [`Self::attempt_file`], and never split.
    fn sends_files(&self) -> bool {
        false
    }

    /// Makes one attempt to send a file of `bytes` bytes.
    fn attempt_file(
        &self,
        number: u64,
        file: Arc<File>,
        bytes: u64,
        events: u64,
    ) -> BoxFuture<'_, Attempt>;

    /// Returns the delay after this attempt (0 is the first).
    fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Duration;

    /// Returns the time limits during shutdown: of one attempt, and of all attempts together.
    fn last_attempts(&self) -> (Duration, Duration);
}

/// How the events of a batch are stored.
#[derive(Debug)]
pub(crate) struct Format {
    /// The extension of batch files.
    pub(crate) extension: &'static str,
    /// Returns the events of a batch, or `None` if the content is not one.
    pub(crate) items: fn(&[u8]) -> Option<Vec<&[u8]>>,
    /// Joins events into a batch.
    pub(crate) join: fn(&[&[u8]]) -> Vec<u8>,
    /// Returns whether content without a checksum is a valid batch.
    pub(crate) is_valid: fn(&[u8]) -> bool,
}
