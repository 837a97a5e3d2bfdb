//! The annotations `authorization.k8s.io/decision` and `authorization.k8s.io/reason`.
//!
//! Only the API server knows why it allowed a request. A SubjectAccessReview with the same user and
//! attributes has the same authorizers evaluate them, and returns the reason that kube-apiserver
//! writes into its own events. It runs while the request is forwarded. When the response has come,
//! the event waits for the review until the configured time has passed since the request was
//! forwarded; then the annotations are left out. If the API server denied the request, its
//! response has the reason.

mod cache;
mod decision;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use k8s_audit::authorizer::{Attributes, RequestAttributes};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

pub(crate) use self::metrics::AuthorizationMetrics;

use self::cache::{Cache, Lookup};
use self::decision::Decision;
pub(crate) use self::metrics::Missing;
use crate::impersonation::{self, key_of_request, review_access};
use crate::upstream::Upstream;
use k8s_audit::UserInfo;
use k8s_audit::request::RequestInfo;
use k8s_audit::status::Status;

/// `authorization.k8s.io/decision`
const DECISION: &str = "authorization.k8s.io/decision";
/// `authorization.k8s.io/reason`
const REASON: &str = "authorization.k8s.io/reason";
/// Maximum number of SubjectAccessReviews in flight.
const IN_FLIGHT: usize = 64;

/// The settings of the annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorizationSettings {
    /// How long the review may delay a request and its event.
    pub timeout: Duration,
    /// How long an allowed review is reused.
    pub cache_ttl: Duration,
    /// Whether the proxy's certificate is a front proxy's, which names no user.
    pub as_front_proxy: bool,
}

/// Determines why requests are allowed.
pub struct AuthorizationReviews {
    shared: Arc<Shared>,
    /// The runtime on which reviews run, so that they finish even if their request ends.
    runtime: Handle,
}

struct Shared {
    upstream: Upstream,
    settings: AuthorizationSettings,
    cache: Cache,
    permits: Semaphore,
    metrics: Arc<AuthorizationMetrics>,
}

/// The decision, or why there is none.
type Outcome = Result<Arc<Decision>, Missing>;

/// The review of one request.
pub struct Review {
    attributes: RequestAttributes,
    user: UserInfo,
    pending: Option<watch::Receiver<Option<Outcome>>>,
    outcome: Outcome,
    until: Instant,
    metrics: Arc<AuthorizationMetrics>,
}

impl AuthorizationReviews {
    /// Must be called within a tokio runtime, on which the reviews run.
    pub fn new(
        upstream: Upstream,
        settings: AuthorizationSettings,
        metrics: Arc<AuthorizationMetrics>,
    ) -> AuthorizationReviews {
        let (cache, permits) = (Cache::new(settings.cache_ttl), Semaphore::new(IN_FLIGHT));
        let shared = Arc::new(Shared { upstream, settings, cache, permits, metrics });
        AuthorizationReviews { shared, runtime: Handle::current() }
    }

    /// Starts the review of a request by `user`, the effective user.
    pub fn start(&self, user: &UserInfo, info: &RequestInfo, query: Option<&str>) -> Box<Review> {
        let shared = &self.shared;
        let attributes = RequestAttributes::new(info, query);
        let until = Instant::now() + shared.settings.timeout;
        let (pending, outcome) = match shared.cache.look_up(key_of_request(user, &attributes)) {
            Lookup::Known(decision) => (None, Ok(decision)),
            Lookup::Pending(receiver) => (Some(receiver), Err(Missing::Timeout)),
            Lookup::Full => (None, Err(Missing::Throttled)),
            Lookup::New(entry) => {
                let receiver = entry.receiver();
                let (shared, user, attributes) =
                    (Arc::clone(shared), user.clone(), attributes.clone());
                self.runtime.spawn(async move {
                    let outcome = shared.review(&user, &attributes).await;
                    shared.cache.finish(entry, outcome, attributes.is_understood());
                });
                (Some(receiver), Err(Missing::Timeout))
            }
        };
        let metrics = Arc::clone(&shared.metrics);
        Box::new(Review { attributes, user: user.clone(), pending, outcome, until, metrics })
    }
}

impl Shared {
    async fn review(&self, user: &UserInfo, attributes: &RequestAttributes) -> Outcome {
        let _permit = self.permits.try_acquire().map_err(|_| Missing::Throttled)?;
        let (verb, object) = (attributes.verb(), attributes.object());
        let asked = Attributes { user, verb, object };
        let reviewing = review_access(&self.upstream, self.settings.as_front_proxy, &asked);
        let decision = match reviewing.await {
            Ok(response) => Decision::parse(&response),
            Err(error) => Err(error.to_string()),
        };
        match decision {
            Ok(decision) => Ok(Arc::new(decision)),
            Err(error) => {
                metrics::warn(&error);
                Err(Missing::Error)
            }
        }
    }
}

impl Review {
    /// Waits for the review, until its time has passed.
    pub async fn wait(&mut self) {
        let Some(mut pending) = self.pending.take() else { return };
        let finished = tokio::time::timeout_at(self.until, pending.wait_for(Option::is_some));
        self.outcome = match finished.await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Missing::Error)),
            Ok(Err(_)) => Err(Missing::Error),
            Err(_) => Err(Missing::Timeout),
        };
    }

    /// Returns the annotations of a request whose response has this `status`. `caller` is the
    /// authenticated user.
    pub fn annotations(
        &self,
        status: &Status,
        caller: Option<&UserInfo>,
    ) -> Vec<(&'static str, String)> {
        if is_before_authorization(status)
            || caller.is_some_and(|caller| impersonation::was_refused(status, caller))
        {
            return Vec::new();
        }
        if let Some(reason) = self.forbidden_reason(status) {
            return vec![(DECISION, "forbid".to_owned()), (REASON, reason.to_owned())];
        }
        match &self.outcome {
            Ok(decision) if decision.allowed => {
                vec![(DECISION, "allow".to_owned()), (REASON, decision.reason.clone())]
            }
            Ok(decision) if status.code == 500 && !decision.evaluation_error.is_empty() => {
                vec![(REASON, "internal error".to_owned())]
            }
            Ok(_) => self.missing(Missing::Contradiction),
            Err(missing) => self.missing(*missing),
        }
    }

    fn missing(&self, missing: Missing) -> Vec<(&'static str, String)> {
        self.metrics.missing(missing);
        Vec::new()
    }

    /// The authorizer's reason, if `status` is the 403 that its denial causes.
    fn forbidden_reason<'a>(&self, status: &'a Status) -> Option<&'a str> {
        if status.code != 403 {
            return None;
        }
        let denied = self.attributes.forbidden(&self.user).message;
        let rest = status.message.strip_prefix(&*denied)?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix(": ") }
    }
}

/// Whether the API server responded before it authorized the request: it was not authenticated, or
/// there were too many, which is not a Status then.
fn is_before_authorization(status: &Status) -> bool {
    status.code == 401 || status.code == 429 && status.message.is_empty()
}

#[cfg(test)]
mod tests;
