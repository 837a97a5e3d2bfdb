//! Metrics of requests. Counting one is three atomic additions, without a lock or an allocation.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::RefusedRequest;

/// Values of the label `verb`.
const VERBS: [&str; 12] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
    "head",
    "post",
    "other",
];
/// Status codes 100 to 599; others count as the nearest one.
const CODES: usize = 500;
/// Upper bounds of the latency buckets, in seconds.
const BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, f64::INFINITY];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The metrics of requests. The label `verb` has 12 values, and with `code` at most 6,000, of which
/// those are exposed that occurred; `reason` has one value per variant of [`RefusedRequest`].
#[derive(Debug)]
pub struct RequestMetrics {
    done: RequestCounts,
    durations: Durations,
    /// Requests in flight that are not long-running.
    pub in_flight: Gauge,
    /// Watches, followed logs, upgrades and other long-running requests in flight.
    pub long_running: Gauge,
    refused: [Counter; RefusedRequest::ALL.len()],
    refused_family: Family<ReasonLabel, Counter>,
}

impl Default for RequestMetrics {
    fn default() -> RequestMetrics {
        let family = Family::<ReasonLabel, Counter>::default();
        RequestMetrics {
            done: RequestCounts::default(),
            durations: Durations::default(),
            in_flight: Gauge::default(),
            long_running: Gauge::default(),
            refused: RefusedRequest::ALL
                .map(|(_, reason)| family.get_or_create_owned(&ReasonLabel { reason })),
            refused_family: family,
        }
    }
}

impl RequestMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_requests",
            "Finished requests, by verb and HTTP status code",
            self.done.clone(),
        );
        registry.register_with_unit(
            "kube_audit_proxy_request_duration",
            "Time from the start of a request to the end of its response, long-running requests excluded",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register(
            "kube_audit_proxy_requests_in_flight",
            "Requests in flight, long-running requests excluded",
            self.in_flight.clone(),
        );
        registry.register(
            "kube_audit_proxy_long_running_requests",
            "Watches, followed logs, upgraded connections and other long-running requests in flight",
            self.long_running.clone(),
        );
        registry.register(
            "kube_audit_proxy_refused_requests",
            "Requests that could not be parsed and have no audit event, by reason",
            self.refused_family.clone(),
        );
    }

    /// Counts a finished request. `took` is `None` for long-running ones.
    pub fn done(&self, verb: &str, code: u16, took: Option<Duration>) {
        self.done.count(verb, code);
        if let Some(took) = took {
            self.durations.observe(took);
        }
    }

    /// Counts a request that the HTTP library refused.
    pub fn refused(&self, reason: RefusedRequest) {
        self.refused[reason as usize].inc();
    }
}

/// Requests by verb and code: a table instead of a [`Family`], which would be locked and searched
/// for each request.
#[derive(Debug, Clone)]
struct RequestCounts(Arc<[AtomicU64]>);

impl Default for RequestCounts {
    fn default() -> RequestCounts {
        RequestCounts((0..VERBS.len() * CODES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl RequestCounts {
    fn count(&self, verb: &str, code: u16) {
        let verb = VERBS.iter().position(|v| *v == verb).unwrap_or(VERBS.len() - 1);
        let code = usize::from(code).clamp(100, 599) - 100;
        self.0[verb * CODES + code].fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self) -> impl Iterator<Item = (usize, u64)> {
        let values = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        values.enumerate().filter(|(_, count)| *count > 0)
    }
}

impl EncodeMetric for RequestCounts {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (index, count) in self.counted() {
            let code = (index % CODES + 100).to_string();
            let labels = [("verb", VERBS[index / CODES]), ("code", &code)];
            let mut encoder = encoder.encode_family(&labels)?;
            encoder.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        self.counted().next().is_none()
    }
}

/// A histogram like [`prometheus_client::metrics::histogram::Histogram`], without its lock, for
/// which all threads would wait.
#[derive(Debug, Clone, Default)]
struct Durations(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len()],
    sum_micros: AtomicU64,
}

impl Durations {
    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        let bucket = bucket.unwrap_or(BOUNDS.len() - 1);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = BOUNDS.into_iter().zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
