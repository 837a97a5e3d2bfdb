//! One request to the receiver, and those after it if it fails.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;

use super::config::{WebhookConfig, WebhookError};
use super::health::Health;
use crate::body::RequestBody;
use crate::metrics::SinkMetrics;
use crate::sink::SinkState;
use crate::upstream::{Upstream, UpstreamConfig};

/// kube-apiserver's number.
const ATTEMPTS: u32 = 5;
/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait between two attempts, whatever the receiver asks for.
const LONGEST: Duration = Duration::from_secs(300);

/// Sends lists to one receiver.
pub(super) struct Sender {
    receiver: Upstream,
    initial_backoff: Duration,
    compress: bool,
    metrics: Arc<SinkMetrics>,
    health: Arc<Health>,
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
pub(super) enum Attempt {
    /// The receiver has it.
    Taken,
    /// It does not.
    Failed {
        /// Why.
        failure: Failure,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// It said that it will never take this body.
        poison: bool,
    },
}

impl Sender {
    pub(super) fn new(
        config: &WebhookConfig,
        metrics: Arc<SinkMetrics>,
    ) -> Result<Sender, WebhookError> {
        // Its connections are not those to the API server.
        let receiver = Upstream::of_webhook(UpstreamConfig::of_receiver(&config.file)?)?;
        let WebhookConfig { initial_backoff, compress, .. } = *config;
        let health = Arc::new(Health::new(metrics.clone()));
        Ok(Sender { receiver, initial_backoff, compress, metrics, health })
    }

    /// The webhook endpoint.
    pub(super) fn receiver(&self) -> &Upstream {
        &self.receiver
    }

    /// What its answers tell.
    pub(super) fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    pub(super) fn is_well(&self) -> bool {
        self.health.state() == SinkState::Ok
    }

    /// Sends a list of `count` events, five times if need be.
    pub(super) async fn send(&self, list: &[u8], count: u64) -> Result<(), Failure> {
        let body = self.body(list);
        let mut attempt = 0;
        loop {
            match self.attempt(body.clone(), count).await {
                Attempt::Taken => return Ok(()),
                Attempt::Failed { failure, poison, .. } if attempt + 1 == ATTEMPTS => {
                    if !poison {
                        self.health.fails(&failure.0);
                    }
                    return Err(failure);
                }
                Attempt::Failed { retry_after, .. } => {
                    tokio::time::sleep(self.pause(attempt, retry_after)).await;
                }
            }
            attempt += 1;
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
        let failed = |reason: String| Attempt::Failed {
            failure: Failure(reason.into()),
            retry_after: None,
            poison: false,
        };
        let answered = tokio::time::timeout(TIMEOUT, async {
            let answer = self.receiver.send(self.request(body)).await?;
            let (head, body) = answer.into_parts();
            // Read to its end, so that the connection can be used again; it means nothing.
            let _ = body.collect().await;
            Ok::<_, crate::upstream::SendError>(head)
        });
        let attempt = match answered.await {
            Err(_) => failed(format!("no answer in {TIMEOUT:?}")),
            // Words for requests to the API server.
            Ok(Err(error)) => failed(error.to_string().replace("the API server", "the receiver")),
            Ok(Ok(head)) if (200..=206).contains(&head.status.as_u16()) => Attempt::Taken,
            Ok(Ok(head)) => Attempt::Failed {
                failure: Failure(format!("it answered {}", head.status).into()),
                retry_after: retry_after(head.status, &head.headers),
                poison: matches!(head.status.as_u16(), 400 | 413 | 422),
            },
        };
        match &attempt {
            Attempt::Taken => {
                self.metrics.webhook_events.add(count);
                self.health.is_well();
            }
            Attempt::Failed { poison, .. } => {
                self.metrics.webhook_failures.increment();
                // Of another list it may think better.
                if *poison { self.health.is_well() } else { self.health.doubt() }
            }
        }
        attempt
    }

    /// How long to wait after so many attempts before this one: half as long again each time, and up
    /// to a fifth more, lest all proxies come at once.
    pub(super) fn pause(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let grown = self.initial_backoff.as_secs_f64() * 1.5_f64.powi(attempt.min(64) as i32);
        let mut random = [0];
        // Without chance it is just a little less.
        let _ = SystemRandom::new().fill(&mut random);
        let wanted = grown * (1.0 + f64::from(random[0]) / 255.0 * 0.2);
        let pause = Duration::try_from_secs_f64(wanted).unwrap_or(LONGEST);
        pause.max(retry_after.unwrap_or_default()).min(LONGEST.max(self.initial_backoff))
    }

    fn request(&self, body: Bytes) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::from(body));
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
        if let Some(credentials) = self.receiver.bearer() {
            headers.insert(AUTHORIZATION, credentials);
        }
        request
    }
}

fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
