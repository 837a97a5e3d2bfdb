//! One request to the receiver, and those after it if it fails.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_client::ApiClient;
use api_client::backoff::ExponentialBackoff;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::config::{WebhookConfig, WebhookError};
use super::health::{self, Health};
use super::response;
use super::split::{Delivered, Sent, deliver};
use crate::sink::Mode;
use crate::upstream::webhook_config;
use crate::webhook::WebhookMetrics;

/// kube-apiserver's number.
const ATTEMPTS: u32 = 5;
/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a response that are read and discarded, and how long that may take.
const DISCARD: usize = 64 << 10;
const DISCARD_TIME: Duration = Duration::from_millis(250);
/// The wait between two attempts while the process shuts down.
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Why events are lost at the end of a shutdown.
pub(super) const GAVE_UP: &str = "the shutdown ended before the webhook accepted them";
/// The longest wait between two attempts, whatever the receiver asks for.
const LONGEST: Duration = Duration::from_secs(300);

/// Sends lists to one receiver.
pub(super) struct Sender {
    receiver: ApiClient,
    initial_backoff: Duration,
    compress: bool,
    metrics: Arc<WebhookMetrics>,
    health: Arc<Health>,
    ending: Ending,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("receiver", &self.receiver.authority())
            .finish_non_exhaustive()
    }
}

/// Why the receiver has not taken a list.
#[derive(Debug, Clone)]
pub(super) struct Failure(pub(super) Arc<str>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The endpoint has it.
    Taken,
    /// It does not.
    Failed {
        /// Why.
        failure: Failure,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// What it says about the list.
        verdict: Verdict,
    },
}

/// What a failed attempt says about the list that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the endpoint could not be asked, or it has a problem of its own.
    Unavailable,
    /// The endpoint will never accept it.
    Invalid,
    /// The endpoint accepts shorter ones.
    TooLarge,
}

/// The steps of the shutdown that senders know of.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    /// No more events come.
    pub(super) closing: CancellationToken,
    /// The time is up: what is not delivered now is lost.
    pub(super) give_up: CancellationToken,
}

impl Ending {
    /// Waits before another attempt; only briefly if the process shuts down.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.closing.cancelled() => {
                tokio::time::sleep(pause.min(LAST_PAUSE)).await;
            }
        }
    }
}

impl Sender {
    pub(super) fn new(
        config: &WebhookConfig,
        metrics: Arc<WebhookMetrics>,
        ending: Ending,
    ) -> Result<Sender, WebhookError> {
        // Its connections are not those to the API server.
        let receiver = webhook_config(&config.file)?;
        let receiver = ApiClient::new(receiver, "the audit webhook")?;
        let WebhookConfig { initial_backoff, compress, .. } = *config;
        let hangs = match config.mode {
            Mode::Blocking | Mode::BlockingStrict => health::AWAITED,
            Mode::Batch { .. } => health::UNAWAITED,
        };
        let health = Arc::new(Health::new(hangs, metrics.clone()));
        Ok(Sender { receiver, initial_backoff, compress, metrics, health, ending })
    }

    /// The webhook endpoint.
    pub(super) fn receiver(&self) -> &ApiClient {
        &self.receiver
    }

    /// What its answers tell.
    pub(super) fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Opens a connection if there is none.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&self) -> Result<(), String> {
        self.receiver.check().await.map_err(|error| error.to_string())
    }

    /// Sends a list of `count` events; each part of it up to five times.
    ///
    /// # Errors
    /// The number of events that were not delivered, and why.
    pub(super) async fn send(&self, list: &[u8], count: u64) -> Result<(), (u64, Failure)> {
        match deliver(list, count, |list, count| self.send_part(list, count)).await {
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
                        self.health.fails(&failure.0);
                    }
                    return Sent::Refused(failure);
                }
                self.ending.pause(self.pause(attempt, retry_after)).await;
                attempt += 1;
            }
        };
        tokio::select! {
            biased;
            sent = attempts => sent,
            () = self.ending.give_up.cancelled() => Sent::Refused(Failure(GAVE_UP.into())),
        }
    }

    /// The list as it is sent.
    pub(super) fn body(&self, list: &[u8]) -> Bytes {
        if !self.compress {
            return Bytes::copy_from_slice(list);
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(list.len() / 4), Compression::fast());
        let written = encoder.write_all(list).and_then(|()| encoder.finish());
        written.expect("a vector takes everything").into()
    }

    /// One attempt to send a body of [`Self::body`].
    pub(super) async fn attempt(&self, body: Bytes, count: u64) -> Attempt {
        let attempt = async {
            let attempt = self.attempt_unwatched(body).await;
            self.judge(&attempt, count);
            attempt
        };
        self.health.watched(attempt).await
    }

    fn judge(&self, attempt: &Attempt, count: u64) {
        match attempt {
            Attempt::Taken => {
                self.metrics.events.inc_by(count);
                self.health.is_well();
            }
            Attempt::Failed { failure, verdict, .. } => {
                self.metrics.failures.inc();
                match verdict {
                    Verdict::Unavailable => self.health.doubt(&failure.0),
                    // It may accept another list.
                    Verdict::Invalid | Verdict::TooLarge => self.health.is_well(),
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
        let response = match timeout(TIMEOUT, self.receiver.send(self.request(body))).await {
            Err(_) => return failed(format!("no response in {TIMEOUT:?}")),
            Ok(Err(error)) => return failed(error.to_string()),
            Ok(Ok(response)) => response,
        };
        let (head, body) = response.into_parts();
        discard(body).await;
        match head.status.as_u16() {
            200..=206 => Attempt::Taken,
            status => Attempt::Failed {
                failure: Failure(response::describe(head.status, &head.headers).into()),
                retry_after: response::retry_after(head.status, &head.headers, SystemTime::now()),
                verdict: match status {
                    413 => Verdict::TooLarge,
                    400 | 422 => Verdict::Invalid,
                    _ => Verdict::Unavailable,
                },
            },
        }
    }

    /// How long to wait after so many attempts before this one: half as long again each time, and up
    /// to a fifth more, lest all proxies come at once.
    pub(super) fn pause(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let longest = LONGEST.max(self.initial_backoff);
        let backoff = ExponentialBackoff::new(self.initial_backoff, 1.5, longest);
        backoff.delay(attempt).max(retry_after.unwrap_or_default()).min(longest)
    }

    fn request(&self, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        let target = format!("{}?timeout={}s", self.receiver.path(), TIMEOUT.as_secs());
        let target: Uri = target.parse().expect("the path of a URL is one, with a query too");
        *request.uri_mut() = target;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        let agent = concat!("kube-audit-proxy/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if self.compress {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }
}

/// Reads the rest of a response, which has no meaning, so that the connection can be used again: not
/// much, and not for long. Otherwise the connection is closed.
async fn discard(mut body: impl Body<Data = Bytes> + Unpin) {
    let mut left = DISCARD;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    let _ = timeout(DISCARD_TIME, reading).await;
}
