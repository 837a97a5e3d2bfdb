//! Authenticates tokens that only the API server can verify, with TokenReviews.
//!
//! Concurrent requests with the same token share one TokenReview. The number of TokenReviews in
//! flight is limited, and so is the number that wait, for each address: a flood of unknown tokens
//! uses bounded memory and a bounded share of the API server, and does not delay other addresses.

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
/// Show whether reviews may be created.
const EMPTY_REVIEW: &[u8] =
    br#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{}}"#;
const EMPTY_REVIEW_V1BETA1: &[u8] =
    br#"{"apiVersion":"authentication.k8s.io/v1beta1","kind":"TokenReview","spec":{}}"#;
/// Bytes of a token that is asked about; real ones are shorter. With the bound on questions that
/// wait, what a flood can make the proxy hold.
const LONGEST: usize = 16 << 10;
/// Number of attempts at one TokenReview if there is no response, or the server asks to retry.
const TRIES: u32 = 5;
/// Delay between the first and the second attempt; each further one is half as long again, with a
/// jitter of up to a fifth.
const BACKOFF: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_millis(500), 1.5, LONGEST_PAUSE);
/// The longest wait that a response can ask for; clients wait, too.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long the API server may take to answer one.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time that a TokenReview waits for its permit.
const TURN: Duration = Duration::from_secs(5);
/// The proxy's own user name if it authenticates as a front proxy, whose certificate alone is not a
/// user.
const OWN_NAME: HeaderValue = HeaderValue::from_static("kube-audit-proxy");

/// Asks the API server whose tokens are.
pub struct TokenReview {
    client: ApiClient,
    access: OwnAccess,
    api_version: &'static str,
    settings: TokenReviewSettings,
    cache: Arc<TokenCache>,
    pending: Mutex<HashMap<TokenId, Shared<BoxFuture<'static, Answer>>>>,
    queue: Arc<FairQueue>,
}

/// The settings of TokenReviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenReviewSettings {
    /// Audiences that a token must be for one of; none for whatever the API server takes.
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
type Answer = Result<Option<Arc<User>>, Unavailable>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
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
    /// Sends TokenReviews to the API server, or to the webhook of `settings`, and keeps the results
    /// in `cache`. `client` and `access` are those of the API server. Must be called within a tokio
    /// runtime.
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

    /// Returns the webhook endpoint, and the kubeconfig that describes it; `None` where the API
    /// server is asked.
    pub fn webhook(&self) -> Option<(&ApiClient, &std::path::Path)> {
        let webhook = self.settings.webhook.as_ref()?;
        Some((&self.client, &webhook.file))
    }

    /// Returns the user of `token`, which was received from `source`; `None` if it is invalid.
    ///
    /// # Errors
    /// Returns an error if the API server cannot be reached, or too many TokenReviews are waiting.
    pub async fn user(self: &Arc<Self>, id: TokenId, token: &[u8], source: Source) -> Answer {
        let Ok(token) = std::str::from_utf8(token) else { return Ok(None) };
        if token.len() > LONGEST {
            tracing::debug!(bytes = token.len(), "token too long for a TokenReview");
            return Ok(None);
        }
        if self.cache.is_nobodys(&id) {
            return Ok(None);
        }
        // Tokens that were valid before do not wait behind a flood from the same address.
        let source = if self.cache.was_users(&id) { Source::KnownToken } else { source };
        let answer = {
            let mut pending = self.pending.lock().expect("nothing panics while holding the lock");
            match pending.get(&id) {
                Some(answer) => answer.clone(),
                None => {
                    // Another request may have filled the cache since the lookup.
                    if let Some(TokenUser { user, .. }) = self.cache.user(&id) {
                        return Ok(Some(user));
                    }
                    let permit =
                        self.queue.enqueue(source).map_err(|reason| self.refuse(reason))?;
                    let token = Zeroizing::new(token.to_owned());
                    let answer = self.clone().start_review(id, token, source, permit);
                    pending.insert(id, answer.clone());
                    answer
                }
            }
        };
        let _blocked = Counted::new(&self.cache.metrics().blocked);
        answer.await
    }

    /// Sends a TokenReview. It is completed even if all requests that wait for it are dropped.
    fn start_review(
        self: Arc<Self>,
        id: TokenId,
        token: Zeroizing<String>,
        source: Source,
        permit: Waiting,
    ) -> Shared<BoxFuture<'static, Answer>> {
        let task = tokio::spawn(async move {
            let asked = PendingReview { review: &self, id };
            let metrics = self.cache.metrics();
            let in_flight = Counted::new(&metrics.in_flight);
            let answer = self.ask(&id, &token, permit).await;
            match &answer {
                Ok(Some(_)) => {}
                Ok(None) => self.queue.count_failure(source),
                Err(Unavailable) => {}
            }
            let counter = if answer.is_ok() { &metrics.fetched } else { &metrics.fetch_errors };
            counter.inc();
            drop((asked, in_flight));
            answer
        });
        async move { task.await.unwrap_or(Err(Unavailable)) }.boxed().shared()
    }

    /// Asks as often as kube-apiserver would. The turn is kept meanwhile: who is asked to come
    /// later does not come with more.
    async fn ask(&self, id: &TokenId, token: &str, permit: Waiting) -> Answer {
        let _turn = permit.get(TURN).await.map_err(|reason| self.refuse(reason))?;
        let since = self.cache.generation();
        let question = self.body(token);
        let mut tried = 0;
        loop {
            tried += 1;
            let started = Instant::now();
            let answered = self.client.request(&self.request(&self.path(), question.clone())).await;
            let code = answered.as_ref().ok().map(|answer| answer.status().as_u16());
            self.cache.metrics().reviewed(code, started.elapsed());
            if let Some(pause) = again(&answered, tried)
                && tried < TRIES
            {
                tracing::debug!(tried, "retrying the TokenReview");
                tokio::time::sleep(pause).await;
                continue;
            }
            let answer = answered.map_err(|error| {
                tracing::warn!(%error, tried, "TokenReview failed");
                Unavailable
            })?;
            return match answer.status() {
                StatusCode::OK | StatusCode::CREATED => {
                    self.access.granted(Access::TokenReview);
                    self.read(since, id, token, answer.body())
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

    /// Why TokenReviews are denied, if they are.
    pub fn denial(&self) -> Option<Denial> {
        self.access.denial(Access::TokenReview)
    }

    fn own_headers(&self) -> HeaderMap {
        own_name(self.settings.as_front_proxy && self.settings.webhook.is_none())
    }

    /// Returns the body of the TokenReview, in memory that is overwritten after it was sent.
    fn body(&self, token: &str) -> Bytes {
        let question = Question {
            api_version: self.api_version,
            kind: "TokenReview",
            spec: Spec { token, audiences: &self.settings.audiences },
        };
        // With room for all of it, so that it does not move and leave a part behind.
        let audiences: usize = self.settings.audiences.iter().map(String::len).sum();
        let room = 256 + 6 * (token.len() + audiences) + 4 * self.settings.audiences.len();
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *text, &question).expect("strings");
        Bytes::from_owner(text)
    }

    /// Returns the target of requests.
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

    fn refuse(&self, reason: Rejected) -> Unavailable {
        tracing::debug!(%reason, "no TokenReview for a token");
        self.cache.metrics().reviews_throttled.inc();
        Unavailable
    }

    fn read(&self, since: Generation, id: &TokenId, token: &str, body: &Bytes) -> Answer {
        let status = match serde_json::from_slice::<Reviewed>(body) {
            Ok(reviewed) => reviewed.status,
            Err(error) => {
                // The text may quote the response, and that may repeat the token.
                tracing::warn!(category = ?error.classify(), "cannot decode the TokenReview response");
                return Err(Unavailable);
            }
        };
        match user_of(status, &self.settings.audiences) {
            Ok(user) => {
                let user = Arc::new(User::from(user));
                let time = self.settings.authenticated_ttl.min(time_left(token));
                self.cache.remember_user(since, *id, user.clone().into(), time);
                Ok(Some(user))
            }
            Err(reason) => {
                tracing::debug!(reason, "the API server does not take a token");
                self.cache.remember_nobodys(since, *id, self.settings.unauthenticated_ttl);
                Ok(None)
            }
        }
    }
}

/// Returns the headers that say who the proxy is in requests of its own, where its certificate does
/// not.
pub(super) fn own_name(as_front_proxy: bool) -> HeaderMap {
    let name = HeaderName::from_static("x-remote-user");
    HeaderMap::from_iter(as_front_proxy.then_some((name, OWN_NAME)))
}

/// How long to wait before the question is asked again, after so many tries; `None` if there is a
/// response that stands, or it would be of no use (kube's `DefaultShouldRetry`).
fn again(answered: &Result<Response<Bytes>, RequestError>, tried: u32) -> Option<Duration> {
    let asked = match answered {
        Err(error) => error.is_reset().then_some(Duration::ZERO)?,
        Ok(answer) => {
            let wanted = (answer.status() == StatusCode::TOO_MANY_REQUESTS
                || answer.status().is_server_error())
            .then(|| answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok())
            .flatten();
            match (answer.status().as_u16(), wanted) {
                (_, Some(seconds)) => Duration::from_secs(seconds),
                (500 | 504 | 429, None) => Duration::ZERO,
                _ => return None,
            }
        }
    };
    Some(BACKOFF.delay(tried.saturating_sub(1)).max(asked).min(LONGEST_PAUSE))
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

/// Ends a TokenReview when dropped, including by a panic.
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

/// Returns the user that a response names; otherwise why not.
fn user_of(status: ReviewedStatus, audiences: &[String]) -> Result<UserInfo, String> {
    let ReviewedStatus { authenticated, user, audiences: answered, error } = status;
    if !authenticated {
        return Err(error);
    }
    if !is_for_us(audiences, &answered.unwrap_or_default(), audiences) {
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

/// Returns whether a response to a question about `asked` audiences lets the token be used. Who
/// does not know of audiences answers none, and means the `implicit` ones.
fn is_for_us(asked: &[String], answered: &[String], implicit: &[String]) -> bool {
    let answered = if answered.is_empty() { implicit } else { answered };
    asked.is_empty() || answered.iter().any(|audience| asked.contains(audience))
}

/// Returns for how long an accepted token is still valid, if it has an expiry.
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
