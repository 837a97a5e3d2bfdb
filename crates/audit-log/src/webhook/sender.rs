//! Sends requests to the webhook endpoint and retries failed ones.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::{PostRequest, PostResponse, WebhookClient};
use super::config::WebhookConfig;
use super::{list, response};
use crate::Mode;
use crate::delivery::{
    AWAITED, Attempt, Courier, Delivered, DeliveryMetrics, Failure, Health, Sent, UNAWAITED,
    Verdict, deliver,
};
use api_client::backoff::ExponentialBackoff;

/// Maximum number of attempts per list, like in kube-apiserver.
const ATTEMPTS: u32 = 5;
/// Time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The delay between two attempts grows by this factor, like in kube-apiserver.
const FACTOR: f64 = 1.5;
/// The delay between two attempts during shutdown.
const LAST_DELAY: Duration = Duration::from_millis(500);
/// During shutdown, the time limit of one attempt from the spool, and of all attempts together.
const LAST_ATTEMPTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// The reason for events that are lost at the end of a shutdown.
pub(super) const GAVE_UP: &str = "the shutdown ended before the webhook accepted them";
/// The maximum delay between two attempts, even if `Retry-After` is longer.
const LONGEST: Duration = Duration::from_secs(300);

/// Sends lists to one endpoint.
pub(super) struct Sender {
    client: Arc<dyn WebhookClient>,
    backoff: ExponentialBackoff,
    longest_delay: Duration,
    compress: bool,
    metrics: Arc<DeliveryMetrics>,
    health: Arc<Health>,
    ending: Ending,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("endpoint", &self.client.authority()).finish_non_exhaustive()
    }
}

/// The steps of a shutdown.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    /// Cancelled when the shutdown begins: no more events are accepted.
    pub(super) closing: CancellationToken,
    /// Cancelled when the shutdown times out: undelivered events are lost.
    pub(super) give_up: CancellationToken,
}

impl Ending {
    /// Waits before the next attempt; only briefly during shutdown.
    async fn wait(&self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.closing.cancelled() => tokio::time::sleep(delay.min(LAST_DELAY)).await,
        }
    }
}

impl Sender {
    pub(super) fn new(
        config: &WebhookConfig,
        client: Arc<dyn WebhookClient>,
        metrics: Arc<DeliveryMetrics>,
        ending: Ending,
    ) -> Sender {
        let WebhookConfig { initial_backoff, compress, .. } = *config;
        let longest_delay = LONGEST.max(initial_backoff);
        let backoff = ExponentialBackoff::new(initial_backoff, FACTOR, longest_delay);
        let hangs = match config.mode {
            Mode::Blocking | Mode::BlockingStrict => AWAITED,
            Mode::Batch { .. } => UNAWAITED,
        };
        let health = Arc::new(Health::new("the webhook", hangs, metrics.clone()));
        Sender { client, backoff, longest_delay, compress, metrics, health, ending }
    }

    /// Returns the health of the endpoint, as far as its responses show it.
    pub(super) fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Opens a connection unless one is open.
    ///
    /// # Errors
    /// Returns the reason if no connection can be opened.
    pub(super) async fn connect(&self) -> Result<(), String> {
        self.client.connect().await.map_err(|error| error.to_string())
    }

    /// Sends a list of `count` events, each part of it up to five times.
    ///
    /// # Errors
    /// Returns the number of events that were not delivered, and the reason.
    pub(super) async fn send(&self, list: &[u8], count: u64) -> Result<(), (u64, Failure)> {
        match deliver(&list::FORMAT, list, count, |list, count| self.send_part(list, count)).await {
            Delivered::All => Ok(()),
            Delivered::Refused { events, failure, .. } => Err((events, failure)),
            Delivered::Stopped => Err((count, Failure(GAVE_UP.into()))),
        }
    }

    async fn send_part(&self, list: Vec<u8>, count: u64) -> Sent {
        if self.ending.give_up.is_cancelled() {
            return Sent::Refused(Failure(GAVE_UP.into()));
        }
        let body = self.body(&list);
        let attempts = async {
            let mut attempt = 0;
            loop {
                let (failure, retry_after, verdict) = match self.attempt(body.clone(), count).await
                {
                    Attempt::Taken => return Sent::Taken,
                    Attempt::Failed { failure, retry_after, verdict } => {
                        (failure, retry_after, verdict)
                    }
                };
                if verdict == Verdict::TooLarge {
                    return Sent::TooLarge(failure);
                }
                if attempt + 1 == ATTEMPTS {
                    if verdict == Verdict::Unavailable {
                        self.health.all_attempts_failed(&failure.0);
                    }
                    return Sent::Refused(failure);
                }
                self.ending.wait(self.delay(attempt, retry_after)).await;
                attempt += 1;
            }
        };
        tokio::select! {
            biased;
            sent = attempts => sent,
            () = self.ending.give_up.cancelled() => Sent::Refused(Failure(GAVE_UP.into())),
        }
    }

    /// Returns the request body for this list.
    pub(super) fn body(&self, list: &[u8]) -> Bytes {
        if !self.compress {
            return Bytes::copy_from_slice(list);
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(list.len() / 4), Compression::fast());
        let written = encoder.write_all(list).and_then(|()| encoder.finish());
        written.expect("a vector takes everything").into()
    }

    /// Makes one attempt to send a body returned by [`Self::body`].
    pub(super) async fn attempt(&self, body: Bytes, count: u64) -> Attempt {
        let attempt = async {
            let attempt = self.attempt_unwatched(body).await;
            self.update_health(&attempt, count);
            attempt
        };
        self.health.watched(attempt).await
    }

    fn update_health(&self, attempt: &Attempt, count: u64) {
        match attempt {
            Attempt::Taken => {
                self.metrics.delivered(count);
                self.health.responded();
            }
            Attempt::Failed { failure, verdict, .. } => {
                self.metrics.failures.inc();
                match verdict {
                    Verdict::Unavailable => self.health.attempt_failed(&failure.0),
                    // The endpoint works; it may accept another list.
                    Verdict::Invalid | Verdict::Final | Verdict::TooLarge => {
                        self.health.responded()
                    }
                }
            }
        }
    }

    async fn attempt_unwatched(&self, body: Bytes) -> Attempt {
        let failed = |reason: String| Attempt::Failed {
            failure: Failure(reason.into()),
            retry_after: None,
            verdict: Verdict::Unavailable,
        };
        let timeout_seconds = TIMEOUT.as_secs();
        let request = PostRequest { body, is_gzip: self.compress, timeout_seconds };
        let response = match timeout(TIMEOUT, self.client.post(request)).await {
            Err(_) => return failed(format!("no response in {TIMEOUT:?}")),
            Ok(Err(error)) => return failed(error.to_string()),
            Ok(Ok(response)) => response,
        };
        let PostResponse { status, headers } = response;
        match status.as_u16() {
            200..=206 => Attempt::Taken,
            code => Attempt::Failed {
                failure: Failure(response::describe(status, &headers).into()),
                retry_after: response::retry_after(status, &headers, SystemTime::now()),
                verdict: match code {
                    413 => Verdict::TooLarge,
                    400 | 422 => Verdict::Invalid,
                    _ => Verdict::Unavailable,
                },
            },
        }
    }

    /// Returns the delay after this attempt (0 is the first). `retry_after` is the delay requested
    /// by the endpoint.
    pub(super) fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        self.backoff.delay(attempt).max(retry_after.unwrap_or_default()).min(self.longest_delay)
    }
}

impl Courier for Sender {
    fn destination(&self) -> String {
        "the webhook endpoint".to_owned()
    }

    fn encode(&self, content: Vec<u8>) -> Bytes {
        self.body(&content)
    }

    fn attempt(&self, _: u64, encoded: Bytes, events: u64) -> BoxFuture<'_, Attempt> {
        Box::pin(self.attempt(encoded, events))
    }

    fn attempt_file(&self, _: u64, _: Arc<File>, _: u64, _: u64) -> BoxFuture<'_, Attempt> {
        unreachable!("lists are sent from memory")
    }

    fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        self.delay(attempt, retry_after)
    }

    fn last_attempts(&self) -> (Duration, Duration) {
        LAST_ATTEMPTS
    }
}

#[cfg(test)]
mod tests;
