//! Metrics of authentication, with the names that Kubernetes uses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the latency buckets in seconds, like in Kubernetes.
const BUCKETS: [f64; 8] = [0.25, 0.5, 0.7, 1.0, 1.5, 3.0, 5.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

/// The metrics of authentication. The label `status` has two values per family, `code` at most one
/// per HTTP status code.
#[derive(Debug)]
pub struct AuthenticationMetrics {
    cache_requests: Family<StatusLabel, Counter>,
    fetches: Family<StatusLabel, Counter>,
    active_fetches: Family<StatusLabel, Gauge>,
    reviews: Family<CodeLabel, Counter>,
    review_seconds: Family<CodeLabel, Histogram>,
    config_reloads: Family<StatusLabel, Counter>,
    config_reload_times: Family<StatusLabel, Gauge>,
    /// Tokens found in the cache.
    pub cache_hits: Counter,
    /// Tokens not found in the cache.
    pub cache_misses: Counter,
    /// TokenReviews that received a response; retries are not counted separately.
    pub fetched: Counter,
    /// TokenReviews that received no response.
    pub fetch_errors: Counter,
    /// Requests waiting for a TokenReview.
    pub blocked: Gauge,
    /// TokenReviews in flight or queued.
    pub in_flight: Gauge,
    /// TokenReviews that were not sent because of the limits per source and in total.
    pub reviews_throttled: Counter,
    /// Responses that denied the proxy the creation of TokenReviews.
    pub review_access_denied: Counter,
    /// User names and groups that were rejected because they begin with `system:`.
    pub reserved_names: Counter,
}

impl Default for AuthenticationMetrics {
    fn default() -> AuthenticationMetrics {
        AuthenticationMetrics::new(Counter::default())
    }
}

impl AuthenticationMetrics {
    /// Creates the metrics. `review_access_denied` counts responses that deny the proxy the
    /// creation of TokenReviews; its owner registers it.
    pub fn new(review_access_denied: Counter) -> AuthenticationMetrics {
        fn counter(family: &Family<StatusLabel, Counter>, status: &'static str) -> Counter {
            family.get_or_create_owned(&StatusLabel { status })
        }
        let (cache_requests, fetches) = (Family::default(), Family::default());
        let (active_fetches, config_reloads) = (Family::default(), Family::default());
        let gauge = |status| Family::get_or_create_owned(&active_fetches, &StatusLabel { status });
        for status in ["failure", "success"] {
            counter(&config_reloads, status);
        }
        AuthenticationMetrics {
            cache_hits: counter(&cache_requests, "hit"),
            cache_misses: counter(&cache_requests, "miss"),
            fetched: counter(&fetches, "ok"),
            fetch_errors: counter(&fetches, "error"),
            blocked: gauge("blocked"),
            in_flight: gauge("in_flight"),
            reviews_throttled: Counter::default(),
            review_access_denied,
            reserved_names: Counter::default(),
            cache_requests,
            fetches,
            active_fetches,
            reviews: Family::default(),
            review_seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            config_reloads,
            config_reload_times: Family::default(),
        }
    }

    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "authentication_token_cache_request",
            "Bearer tokens, by whether their user was in the cache",
            self.cache_requests.clone(),
        );
        registry.register(
            "authentication_token_cache_fetch",
            "TokenReviews, by whether they had a response",
            self.fetches.clone(),
        );
        registry.register(
            "authentication_token_cache_active_fetch_count",
            "TokenReviews in flight, and requests blocked by them",
            self.active_fetches.clone(),
        );
        registry.register(
            "kube_audit_proxy_token_reviews_throttled",
            "Unknown bearer tokens for which no TokenReview was sent because of its rate limits",
            self.reviews_throttled.clone(),
        );
        registry.register(
            "apiserver_delegated_authn_request",
            "TokenReview requests, by HTTP status code; <error> if there was no response",
            self.reviews.clone(),
        );
        registry.register_with_unit(
            "apiserver_delegated_authn_request_duration",
            "Latency of TokenReview requests, by HTTP status code",
            Unit::Seconds,
            self.review_seconds.clone(),
        );
        registry.register(
            "apiserver_authentication_config_controller_automatic_reloads",
            "Reloads of the authentication configuration, by status",
            self.config_reloads.clone(),
        );
        registry.register_with_unit(
            "apiserver_authentication_config_controller_automatic_reload_last_timestamp",
            "Unix time of the last reload of the authentication configuration, by status",
            Unit::Seconds,
            self.config_reload_times.clone(),
        );
        registry.register(
            "kube_audit_proxy_reserved_names",
            "User names and groups of tokens that were rejected because they begin with system:",
            self.reserved_names.clone(),
        );
    }

    /// Counts a TokenReview request by its status code; `None` if it received no response.
    pub fn reviewed(&self, code: Option<u16>, took: Duration) {
        let code = code.map_or("<error>".to_owned(), |code| code.to_string());
        let label = CodeLabel { code };
        self.reviews.get_or_create(&label).inc();
        self.review_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Counts a reload of the authentication configuration.
    pub fn config_reloaded(&self, succeeded: bool) {
        let label = StatusLabel { status: if succeeded { "success" } else { "failure" } };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.config_reload_times.get_or_create(&label).set(seconds);
        self.config_reloads.get_or_create(&label).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text;

    use super::*;

    #[test]
    fn reviews_are_counted_by_code() {
        let (metrics, mut registry) = (AuthenticationMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.reviewed(Some(201), Duration::from_millis(600));
        metrics.reviewed(None, Duration::from_secs(20));
        metrics.cache_hits.inc();
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).unwrap();
        for line in [
            "authentication_token_cache_request_total{status=\"hit\"} 1",
            "authentication_token_cache_active_fetch_count{status=\"in_flight\"} 0",
            "apiserver_delegated_authn_request_total{code=\"201\"} 1",
            "apiserver_delegated_authn_request_duration_seconds_bucket{code=\"201\",le=\"0.5\"} 0",
            "apiserver_delegated_authn_request_duration_seconds_bucket{code=\"201\",le=\"0.7\"} 1",
            "apiserver_delegated_authn_request_duration_seconds_bucket{code=\"<error>\",le=\"10\"} 0",
            "apiserver_delegated_authn_request_duration_seconds_count{code=\"<error>\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("reload_last_timestamp_seconds{"), "there was no reload:\n{text}");
    }
}
