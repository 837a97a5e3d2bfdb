//! Authenticates tokens that only the API server can verify, with TokenReviews.
//!
//! Concurrent requests with the same token share one TokenReview. The number of TokenReviews in
//! flight is limited, and so is the number that waits, for each source address. A flood of unknown
//! tokens therefore uses bounded memory and a bounded share of the API server's capacity, and does
//! not delay other addresses.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use api_client::access::{Access, Denial, OwnAccess, Probe};
use api_client::backoff::ExponentialBackoff;
use api_client::{ApiClient, ApiRequest, ConfigError, RequestError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::fair_queue::{FairQueue, Rejected, Source, Waiting};
use super::jwt::Jwt;
use super::token_cache::{Generation, TokenCache, TokenId, TokenUser};
use super::token_webhook::{TokenWebhook, WebhookVersion};
use super::verified::numeric_date;
use super::{User, UserInfo};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Empty reviews, to probe whether the proxy may create reviews.
const EMPTY_REVIEW: &[u8] =
    br#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{}}"#;
const EMPTY_REVIEW_V1BETA1: &[u8] =
    br#"{"apiVersion":"authentication.k8s.io/v1beta1","kind":"TokenReview","spec":{}}"#;
/// Maximum length of a token in bytes; real ones are shorter. Together with the limit on waiting
/// TokenReviews, it bounds the memory that a flood of tokens takes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Maximum number of attempts if there is no response, or the server requests a retry.
const MAX_ATTEMPTS: u32 = 5;
/// The delay between the first two attempts. Each further delay is 50 % longer, with a jitter of up
/// to 20 %.
const BACKOFF: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_millis(500), 1.5, MAX_RETRY_DELAY);
/// Maximum delay that a response can request, because clients wait meanwhile.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);
/// Time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time that a TokenReview waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The user name of the proxy if it authenticates as a front proxy, whose certificate alone does
/// not identify a user.
const OWN_NAME: HeaderValue = HeaderValue::from_static("kube-audit-proxy");

/// Sends TokenReviews.
pub struct TokenReview {
    client: ApiClient,
    access: OwnAccess,
    api_version: &'static str,
    settings: TokenReviewSettings,
    cache: Arc<TokenCache>,
    pending: Mutex<HashMap<TokenId, Shared<BoxFuture<'static, ReviewResult>>>>,
    queue: Arc<FairQueue>,
}

/// The settings of TokenReviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenReviewSettings {
    /// A token must be for one of these audiences; if empty, the API server decides.
    pub audiences: Vec<String>,
    /// How long a valid token is cached, at most until it expires.
    pub authenticated_ttl: Duration,
    /// How long an invalid token is cached.
    pub unauthenticated_ttl: Duration,
    /// Whether to name the proxy in `X-Remote-User`, because its certificate is a front proxy's.
    pub as_front_proxy: bool,
    /// The webhook that receives the TokenReviews instead of the API server.
    pub webhook: Option<TokenWebhook>,
}

/// The API server could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// The user of a token; `None` if it is invalid.
type ReviewResult = Result<Option<Arc<User>>, Unavailable>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewBody<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    audiences: &'a [String],
}

#[derive(Deserialize)]
struct Reviewed {
    #[serde(default)]
    status: ReviewedStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReviewedStatus {
    authenticated: bool,
    user: ReviewedUser,
    audiences: Option<Vec<String>>,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReviewedUser {
    username: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

impl TokenReview {
    /// Sends TokenReviews to the API server, or to the webhook of `settings`, and caches the
    /// results in `cache`. `client` and `access` are those of the API server. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the webhook's kubeconfig cannot be used.
    pub fn new(
        client: &ApiClient,
        access: &OwnAccess,
        settings: TokenReviewSettings,
        cache: Arc<TokenCache>,
    ) -> Result<TokenReview, ConfigError> {
        let (client, access, version) = match &settings.webhook {
            Some(webhook) => {
                let client = webhook.connect()?;
                (client.clone(), OwnAccess::new(client), webhook.version)
            }
            None => (client.clone(), access.clone(), WebhookVersion::V1),
        };
        let api_version = version.api_version();
        let (pending, queue) = (Mutex::default(), Arc::default());
        Ok(TokenReview { client, access, api_version, settings, cache, pending, queue })
    }

    /// Returns the webhook endpoint and its kubeconfig file; `None` if TokenReviews go to the API
    /// server.
    pub fn webhook(&self) -> Option<(&ApiClient, &std::path::Path)> {
        let webhook = self.settings.webhook.as_ref()?;
        Some((&self.client, &webhook.file))
    }

    /// Returns the user of `token`, which was received from `source`; `None` if it is invalid.
    ///
    /// # Errors
    /// Returns an error if the API server cannot be reached, or too many TokenReviews are waiting.
    pub async fn user(self: &Arc<Self>, id: TokenId, token: &[u8], source: Source) -> ReviewResult {
        let Ok(token) = std::str::from_utf8(token) else { return Ok(None) };
        if token.len() > MAX_TOKEN_BYTES {
            tracing::debug!(bytes = token.len(), "token too long for a TokenReview");
            return Ok(None);
        }
        if self.cache.is_invalid(&id) {
            return Ok(None);
        }
        // Tokens that were valid before do not wait behind a flood from the same address.
        let source = if self.cache.was_valid(&id) { Source::KnownToken } else { source };
        let result = {
            let mut pending = self.pending.lock().expect("nothing panics while holding the lock");
            match pending.get(&id) {
                Some(result) => result.clone(),
                None => {
                    // Another request may have filled the cache since the lookup.
                    if let Some(TokenUser { user, .. }) = self.cache.user(&id) {
                        return Ok(Some(user));
                    }
                    let permit =
                        self.queue.enqueue(source).map_err(|reason| self.reject(reason))?;
                    let token = Zeroizing::new(token.to_owned());
                    let result = self.clone().start_review(id, token, source, permit);
                    pending.insert(id, result.clone());
                    result
                }
            }
        };
        let _blocked = Counted::new(&self.cache.metrics().blocked);
        result.await
    }

    /// Sends a TokenReview. It is completed even if all requests that wait for it are dropped.
    fn start_review(
        self: Arc<Self>,
        id: TokenId,
        token: Zeroizing<String>,
        source: Source,
        permit: Waiting,
    ) -> Shared<BoxFuture<'static, ReviewResult>> {
        let task = tokio::spawn(async move {
            let pending = PendingReview { review: &self, id };
            let metrics = self.cache.metrics();
            let in_flight = Counted::new(&metrics.in_flight);
            let result = self.send_with_retries(&id, &token, permit).await;
            match &result {
                Ok(Some(_)) => {}
                Ok(None) => self.queue.count_failure(source),
                Err(Unavailable) => {}
            }
            let counter = if result.is_ok() { &metrics.fetched } else { &metrics.fetch_errors };
            counter.inc();
            drop((pending, in_flight));
            result
        });
        async move { task.await.unwrap_or(Err(Unavailable)) }.boxed().shared()
    }

    /// Sends a TokenReview, with the retries of kube-apiserver's client. The permit is held
    /// meanwhile, so that a source that was asked to retry later does not send more.
    async fn send_with_retries(&self, id: &TokenId, token: &str, permit: Waiting) -> ReviewResult {
        let _permit = permit.get(PERMIT_TIMEOUT).await.map_err(|reason| self.reject(reason))?;
        let since = self.cache.generation();
        let body = self.body(token);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let started = Instant::now();
            let response = self.client.request(&self.request(&self.path(), body.clone())).await;
            let code = response.as_ref().ok().map(|response| response.status().as_u16());
            self.cache.metrics().reviewed(code, started.elapsed());
            if let Some(pause) = retry_delay(&response, attempts)
                && attempts < MAX_ATTEMPTS
            {
                tracing::debug!(attempts, "retrying the TokenReview");
                tokio::time::sleep(pause).await;
                continue;
            }
            let response = response.map_err(|error| {
                tracing::warn!(%error, attempts, "TokenReview failed");
                Unavailable
            })?;
            return match response.status() {
                StatusCode::OK | StatusCode::CREATED => {
                    self.access.granted(Access::TokenReview);
                    self.read(since, id, token, response.body())
                }
                code => {
                    match Denial::of(code) {
                        Some(denial) => self.denied(denial),
                        None => tracing::warn!(
                            code = code.as_u16(),
                            "the server did not process the TokenReview"
                        ),
                    }
                    Err(Unavailable)
                }
            };
        }
    }

    fn denied(&self, denial: Denial) {
        let (headers, empty) = (self.own_headers(), self.settings.webhook.as_ref());
        let empty = match empty.map(|webhook| webhook.version) {
            Some(WebhookVersion::V1Beta1) => EMPTY_REVIEW_V1BETA1,
            Some(WebhookVersion::V1) | None => EMPTY_REVIEW,
        };
        let probe = Probe::post(&self.path(), headers, empty);
        self.cache.metrics().review_access_denied.inc();
        self.access.denied(Access::TokenReview, denial, probe);
    }

    /// Returns why TokenReviews are denied to the proxy, if they are.
    pub fn denial(&self) -> Option<Denial> {
        self.access.denial(Access::TokenReview)
    }

    fn own_headers(&self) -> HeaderMap {
        identity_headers(self.settings.as_front_proxy && self.settings.webhook.is_none())
    }

    /// Returns the body of the TokenReview, in memory that is overwritten after it was sent.
    fn body(&self, token: &str) -> Bytes {
        let body = ReviewBody {
            api_version: self.api_version,
            kind: "TokenReview",
            spec: Spec { token, audiences: &self.settings.audiences },
        };
        // With the full capacity, so that no reallocation leaves a copy behind.
        let audiences: usize = self.settings.audiences.iter().map(String::len).sum();
        let room = 256 + 6 * (token.len() + audiences) + 4 * self.settings.audiences.len();
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *text, &body).expect("strings");
        Bytes::from_owner(text)
    }

    /// Returns the path of the requests.
    fn path(&self) -> Arc<str> {
        match self.settings.webhook {
            Some(_) => self.client.path(),
            None => PATH.into(),
        }
    }

    fn request<'a>(&self, path: &'a str, body: Bytes) -> ApiRequest<'a> {
        let mut request = ApiRequest::post(path, body);
        request.headers.extend(self.own_headers());
        request.timeout = TIMEOUT;
        request
    }

    fn reject(&self, reason: Rejected) -> Unavailable {
        tracing::debug!(%reason, "no TokenReview sent for a token");
        self.cache.metrics().reviews_throttled.inc();
        Unavailable
    }

    fn read(&self, since: Generation, id: &TokenId, token: &str, body: &Bytes) -> ReviewResult {
        let status = match serde_json::from_slice::<Reviewed>(body) {
            Ok(reviewed) => reviewed.status,
            Err(error) => {
                // The error text may quote the response, which may contain the token.
                tracing::warn!(category = ?error.classify(), "cannot decode the TokenReview response");
                return Err(Unavailable);
            }
        };
        match user_of(status, &self.settings.audiences) {
            Ok(user) => {
                let user = Arc::new(User::from(user));
                let time = self.settings.authenticated_ttl.min(time_left(token));
                self.cache.insert_user(since, *id, user.clone().into(), time);
                Ok(Some(user))
            }
            Err(reason) => {
                tracing::debug!(reason, "the API server rejected a token");
                self.cache.insert_invalid(since, *id, self.settings.unauthenticated_ttl);
                Ok(None)
            }
        }
    }
}

/// Returns the headers that name the proxy in its own requests, if its certificate does not.
pub(super) fn identity_headers(as_front_proxy: bool) -> HeaderMap {
    let name = HeaderName::from_static("x-remote-user");
    HeaderMap::from_iter(as_front_proxy.then_some((name, OWN_NAME)))
}

/// Returns the delay before the next attempt; `None` if the response is final, or another attempt
/// would not help (client-go's `DefaultShouldRetry`).
fn retry_delay(
    response: &Result<Response<Bytes>, RequestError>,
    attempts: u32,
) -> Option<Duration> {
    let requested = match response {
        Err(error) => error.is_reset().then_some(Duration::ZERO)?,
        Ok(response) => {
            let retry_after = (response.status() == StatusCode::TOO_MANY_REQUESTS
                || response.status().is_server_error())
            .then(|| response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok())
            .flatten();
            match (response.status().as_u16(), retry_after) {
                (_, Some(seconds)) => Duration::from_secs(seconds),
                (500 | 504 | 429, None) => Duration::ZERO,
                _ => return None,
            }
        }
    };
    Some(BACKOFF.delay(attempts.saturating_sub(1)).max(requested).min(MAX_RETRY_DELAY))
}

/// Increments a gauge until dropped.
struct Counted<'a>(&'a Gauge);

impl Counted<'_> {
    fn new(gauge: &Gauge) -> Counted<'_> {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Removes a pending TokenReview when dropped, even by a panic.
struct PendingReview<'a> {
    review: &'a TokenReview,
    id: TokenId,
}

impl Drop for PendingReview<'_> {
    fn drop(&mut self) {
        let mut pending =
            self.review.pending.lock().expect("nothing panics while holding the lock");
        pending.remove(&self.id);
    }
}

/// Returns the user in a response, or why there is none.
fn user_of(status: ReviewedStatus, audiences: &[String]) -> Result<UserInfo, String> {
    let ReviewedStatus { authenticated, user, audiences: returned, error } = status;
    if !authenticated {
        return Err(error);
    }
    if !has_common_audience(audiences, &returned.unwrap_or_default(), audiences) {
        return Err("it is for other audiences".to_owned());
    }
    if user.username.is_empty() {
        return Err("its user has no name".to_owned());
    }
    let user = UserInfo {
        username: user.username,
        uid: user.uid,
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    };
    Ok(user.into_authenticated())
}

/// Returns whether the token is for one of the `requested` audiences. A server that does not
/// support audiences returns none; then the `implicit` ones count.
fn has_common_audience(requested: &[String], returned: &[String], implicit: &[String]) -> bool {
    let returned = if returned.is_empty() { implicit } else { returned };
    requested.is_empty() || returned.iter().any(|audience| requested.contains(audience))
}

/// Returns how long an accepted token is still valid, if it has an expiry.
fn time_left(token: &str) -> Duration {
    #[derive(Deserialize)]
    struct Expiry {
        exp: f64,
    }
    Jwt::parse(token.as_bytes())
        .and_then(|jwt| serde_json::from_slice::<Expiry>(&jwt.claims).ok())
        .and_then(|claims| numeric_date(claims.exp))
        .map_or(Duration::MAX, |end| end.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
