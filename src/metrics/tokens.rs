//! Metrics of bearer tokens, under the names that Kubernetes has for them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::{Counter, Gauge, Text};

/// Upper bounds of the latency buckets, in seconds, as in Kubernetes.
const BUCKETS: [f64; 8] = [0.25, 0.5, 0.7, 1.0, 1.5, 3.0, 5.0, 10.0];

/// What is remembered of tokens, and what is asked about them.
#[derive(Debug, Default)]
pub struct TokenMetrics {
    /// Tokens whose user was remembered.
    pub hits: Counter,
    /// Tokens of which nothing was remembered.
    pub misses: Counter,
    /// Questions that were answered.
    pub fetched: Counter,
    /// Questions that were not.
    pub fetch_errors: Counter,
    /// Requests that wait for an answer.
    pub blocked: Gauge,
    /// Questions under way or waiting for their turn.
    pub in_flight: Gauge,
    /// Questions that were not asked because too much was.
    pub not_asked: Counter,
    /// Tries to ask, by what came of them.
    reviews: Mutex<BTreeMap<Option<u16>, Reviews>>,
}

#[derive(Debug, Default, Clone)]
struct Reviews {
    buckets: [u64; BUCKETS.len()],
    sum: Duration,
    count: u64,
}

impl TokenMetrics {
    /// A TokenReview was answered with `code`, or could not be asked, after this time.
    pub fn reviewed(&self, code: Option<u16>, took: Duration) {
        let mut all = self.reviews.lock().expect("nothing panics while holding the lock");
        let reviews = all.entry(code).or_default();
        if let Some(bucket) = BUCKETS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            reviews.buckets[bucket] += 1;
        }
        reviews.sum += took;
        reviews.count += 1;
    }

    pub(super) fn render(&self, text: &mut Text) {
        let name = "authentication_token_cache_request_total";
        text.head(name, "counter", "Bearer tokens, by whether their user was remembered.");
        text.sample(name, &[("status", "hit")], &self.hits);
        text.sample(name, &[("status", "miss")], &self.misses);
        let name = "authentication_token_cache_fetch_total";
        text.head(name, "counter", "Questions whose a token is, by whether they were answered.");
        text.sample(name, &[("status", "ok")], &self.fetched);
        text.sample(name, &[("status", "error")], &self.fetch_errors);
        let name = "authentication_token_cache_active_fetch_count";
        text.head(name, "gauge", "Questions under way, and requests that wait for them.");
        text.gauge_sample(name, &[("status", "blocked")], &self.blocked);
        text.gauge_sample(name, &[("status", "in_flight")], &self.in_flight);
        text.counter(
            "kube_audit_proxy_token_questions_refused_total",
            "Unknown tokens that were not asked about because there were too many of them.",
            &self.not_asked,
        );
        self.render_reviews(text);
    }

    fn render_reviews(&self, text: &mut Text) {
        let all = self.reviews.lock().expect("nothing panics while holding the lock").clone();
        let code = |code: Option<u16>| code.map_or("<error>".to_owned(), |code| code.to_string());
        let name = "apiserver_delegated_authn_request_total";
        text.head(name, "counter", "TokenReviews, by HTTP status code.");
        for (of, reviews) in &all {
            text.line(name, &[("code", &code(*of))], &reviews.count);
        }
        let name = "apiserver_delegated_authn_request_duration_seconds";
        text.head(name, "histogram", "Time of TokenReviews, by HTTP status code.");
        for (of, reviews) in &all {
            let of = code(*of);
            let mut below = 0;
            let bucket = format!("{name}_bucket");
            for (bound, count) in BUCKETS.iter().zip(reviews.buckets) {
                below += count;
                text.line(&bucket, &[("code", &of), ("le", &bound.to_string())], &below);
            }
            text.line(&bucket, &[("code", &of), ("le", "+Inf")], &reviews.count);
            text.line(&format!("{name}_sum"), &[("code", &of)], &reviews.sum.as_secs_f64());
            text.line(&format!("{name}_count"), &[("code", &of)], &reviews.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_are_counted_by_code() {
        let metrics = TokenMetrics::default();
        metrics.reviewed(Some(201), Duration::from_millis(600));
        metrics.reviewed(None, Duration::from_secs(20));
        metrics.hits.increment();
        let mut text = Text(String::new());
        metrics.render(&mut text);
        for line in [
            "authentication_token_cache_request_total{status=\"hit\"} 1",
            "authentication_token_cache_active_fetch_count{status=\"in_flight\"} 0",
            "apiserver_delegated_authn_request_total{code=\"201\"} 1",
            "apiserver_delegated_authn_request_duration_seconds_bucket{code=\"201\",le=\"0.5\"} 0",
            "apiserver_delegated_authn_request_duration_seconds_bucket{code=\"201\",le=\"0.7\"} 1",
            "apiserver_delegated_authn_request_duration_seconds_bucket{code=\"<error>\",le=\"10\"} 0",
            "apiserver_delegated_authn_request_duration_seconds_count{code=\"<error>\"} 1",
        ] {
            assert!(text.0.lines().any(|l| l == line), "{line} is not in\n{}", text.0);
        }
    }
}
