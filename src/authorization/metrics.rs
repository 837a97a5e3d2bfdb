//! Metrics of authorization annotations.

use std::time::Duration;

use api_client::log_limit::LogLimit;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Why an event has no annotations. The label `reason` has one value per variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The review did not end in time.
    Timeout,
    /// Too many reviews were in flight.
    Throttled,
    /// The API server did not process the review.
    Error,
    /// The review denied a request that the API server did not deny.
    Contradiction,
}

impl Missing {
    const ALL: [(Missing, &'static str); 4] = [
        (Missing::Timeout, "timeout"),
        (Missing::Throttled, "throttled"),
        (Missing::Error, "error"),
        (Missing::Contradiction, "contradiction"),
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Metrics of authorization annotations.
#[derive(Debug)]
pub struct AuthorizationMetrics {
    missing: [Counter; Missing::ALL.len()],
    family: Family<ReasonLabel, Counter>,
}

impl Default for AuthorizationMetrics {
    fn default() -> AuthorizationMetrics {
        let family = Family::<ReasonLabel, Counter>::default();
        let missing =
            Missing::ALL.map(|(_, reason)| family.get_or_create_owned(&ReasonLabel { reason }));
        AuthorizationMetrics { missing, family }
    }
}

impl AuthorizationMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_authorization_annotations_missing",
            "Events without authorization annotations because the decision is unknown",
            self.family.clone(),
        );
    }

    pub(super) fn missing(&self, missing: Missing) {
        self.missing[missing as usize].inc();
    }
}

/// Logs why a review failed, at most once a minute.
pub(super) fn warn(error: &str) {
    static LIMIT: LogLimit = LogLimit::new(Duration::from_secs(60));
    if let Some(suppressed) = LIMIT.pass() {
        tracing::warn!(
            error,
            suppressed,
            remedy = "grant the proxy's user the verb create on subjectaccessreviews.authorization.k8s.io, for example with the ClusterRole system:auth-delegator",
            "events have no authorization annotations: a SubjectAccessReview failed"
        );
    }
}
