//! Sends segments to the destination and tracks its health.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use api_client::backoff::ExponentialBackoff;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::delivery::{Attempt, Courier, DeliveryMetrics, Failure, Health, Verdict};
use crate::{Batch, BatchFile, DeliveryError, Destination};

/// The longest delay between attempts.
const LONGEST: Duration = Duration::from_secs(30);
const BACKOFF: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_millis(500), 2.0, LONGEST);
/// The longest delay that a destination may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// During shutdown, the time limit of one attempt, and of all attempts together. Long enough for a
/// large segment; `--shutdown-timeout` is usually shorter.
const LAST_ATTEMPTS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(120));

pub(super) struct StreamCourier {
    destination: Arc<dyn Destination>,
    health: Arc<Health>,
    metrics: Arc<DeliveryMetrics>,
}

impl StreamCourier {
    pub(super) fn new(
        destination: Arc<dyn Destination>,
        health: Arc<Health>,
        metrics: Arc<DeliveryMetrics>,
    ) -> StreamCourier {
        StreamCourier { destination, health, metrics }
    }

    async fn watched(
        &self,
        sending: BoxFuture<'_, Result<(), DeliveryError>>,
        events: u64,
    ) -> Attempt {
        let sent = self.health.watched(sending).await;
        let Err(error) = sent else {
            self.metrics.delivered(events);
            self.health.responded();
            return Attempt::Taken;
        };
        self.metrics.failures.inc();
        let failure = Failure(error.to_string().into());
        let (verdict, retry_after) = match error {
            DeliveryError::Unavailable { retry_after, .. } => {
                self.health.attempt_failed(&failure.0);
                (Verdict::Unavailable, retry_after)
            }
            // The destination works; it may accept another segment.
            DeliveryError::TooLarge(_) => (Verdict::TooLarge, None),
            DeliveryError::Rejected(_) => {
                self.health.attempt_failed(&failure.0);
                (Verdict::Invalid, None)
            }
            DeliveryError::Final(_) => {
                self.health.attempt_failed(&failure.0);
                (Verdict::Final, None)
            }
        };
        Attempt::Failed { failure, retry_after, verdict }
    }
}

impl Courier for StreamCourier {
    fn destination(&self) -> String {
        self.destination.address()
    }

    fn encode(&self, content: Vec<u8>) -> Bytes {
        content.into()
    }

    fn attempt(&self, number: u64, lines: Bytes, events: u64) -> BoxFuture<'_, Attempt> {
        let batch = Batch { number, lines, events };
        Box::pin(async move { self.watched(self.destination.deliver(batch), events).await })
    }

    fn sends_files(&self) -> bool {
        self.destination.takes_files()
    }

    fn attempt_file(
        &self,
        number: u64,
        file: Arc<File>,
        bytes: u64,
        events: u64,
    ) -> BoxFuture<'_, Attempt> {
        let file = BatchFile { number, file, bytes, events };
        Box::pin(async move { self.watched(self.destination.deliver_file(file), events).await })
    }

    fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        BACKOFF.delay(attempt).max(retry_after.unwrap_or_default()).min(LONGEST_ASKED)
    }

    fn last_attempts(&self) -> (Duration, Duration) {
        LAST_ATTEMPTS
    }
}
