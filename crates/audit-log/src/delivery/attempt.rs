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
        /// Why.
        failure: Failure,
        /// The time after which it may be sent again, if the destination states one.
        retry_after: Option<Duration>,
        /// Whether it may be accepted then.
        verdict: Verdict,
    },
}

/// What a failed attempt means for the batch that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: there was no response, or the destination has a problem of its own.
    Unavailable,
    /// The destination will never accept it. Some endpoints respond so for a while, such as a proxy
    /// without its server, so it is sent a few times.
    Invalid,
    /// The same, and it must not be sent again.
    Final,
    /// The destination accepts shorter ones.
    TooLarge,
}

/// Sends batches of the spool to one destination.
pub(crate) trait Courier: Send + Sync + 'static {
    /// The destination, for messages: `the webhook endpoint`.
    fn destination(&self) -> String;

    /// Returns the content of a batch as it is sent.
    fn encode(&self, content: Vec<u8>) -> Bytes;

    /// Makes one attempt to send what [`Self::encode`] returned.
    fn attempt(&self, number: u64, encoded: Bytes, events: u64) -> BoxFuture<'_, Attempt>;

    /// Returns whether batches are sent by [`Self::attempt_file`] only, and never split.
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

    /// Returns the delay after this attempt, of which 0 is the first.
    fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Duration;

    /// Returns how long one attempt may take after the shutdown has begun, and all together.
    fn last_attempts(&self) -> (Duration, Duration);
}

/// How events are stored in a batch.
#[derive(Debug)]
pub(crate) struct Format {
    /// The extension of batch files.
    pub(crate) extension: &'static str,
    /// Returns the events of a batch, or `None` if the content is not one.
    pub(crate) items: fn(&[u8]) -> Option<Vec<&[u8]>>,
    /// Returns the batch of these events.
    pub(crate) join: fn(&[&[u8]]) -> Vec<u8>,
    /// Returns whether content without a checksum is a batch.
    pub(crate) is_valid: fn(&[u8]) -> bool,
}
