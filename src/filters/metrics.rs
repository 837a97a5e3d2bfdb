//! Metrics of the request filters.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabel {
    response: &'static str,
}

/// The metrics of one kind of requests: those that change something, or those that do not.
#[derive(Debug, Clone, Default)]
pub struct InFlightMetrics {
    /// Requests that count towards the limit.
    pub current: Gauge,
    /// Requests that wait for a slot.
    pub waiting: Gauge,
    /// Requests that got a 429.
    pub rejected: Counter,
}

/// The metrics of the request filters.
#[derive(Debug)]
pub struct FilterMetrics {
    /// Of `--max-requests-inflight`.
    pub read_only: InFlightMetrics,
    /// Of `--max-mutating-requests-inflight`.
    pub mutating: InFlightMetrics,
    /// Requests that got a 504 because of their deadline.
    pub timeouts: Counter,
    /// Responses that were broken off because of the request's deadline.
    pub timeouts_in_response: Counter,
    /// CORS preflights that were answered.
    pub preflights: Counter,
    /// Clients that were told to reconnect because of `--goaway-chance`.
    pub goaways: Counter,
    current_family: Family<KindLabel, Gauge>,
    waiting_family: Family<KindLabel, Gauge>,
    rejected_family: Family<KindLabel, Counter>,
    timeouts_family: Family<ResponseLabel, Counter>,
}

impl Default for FilterMetrics {
    fn default() -> FilterMetrics {
        let (current, waiting) = (Family::<KindLabel, Gauge>::default(), Family::default());
        let rejected = Family::<KindLabel, Counter>::default();
        let timeouts = Family::<ResponseLabel, Counter>::default();
        // kube-apiserver's values of `request_kind`.
        let kind = |request_kind| {
            let label = KindLabel { request_kind };
            InFlightMetrics {
                current: current.get_or_create_owned(&label),
                waiting: waiting.get_or_create_owned(&label),
                rejected: rejected.get_or_create_owned(&label),
            }
        };
        let timed_out = |response| timeouts.get_or_create_owned(&ResponseLabel { response });
        FilterMetrics {
            read_only: kind("readOnly"),
            mutating: kind("mutating"),
            timeouts: timed_out("none"),
            timeouts_in_response: timed_out("started"),
            preflights: Counter::default(),
            goaways: Counter::default(),
            current_family: current,
            waiting_family: waiting,
            rejected_family: rejected,
            timeouts_family: timeouts,
        }
    }
}

impl FilterMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_max_in_flight_current",
            "Requests in flight that count towards --max-requests-inflight or --max-mutating-requests-inflight",
            self.current_family.clone(),
        );
        registry.register(
            "kube_audit_proxy_max_in_flight_waiting",
            "Requests that wait for a slot of a limit that is reached",
            self.waiting_family.clone(),
        );
        registry.register(
            "kube_audit_proxy_max_in_flight_rejections",
            "Requests rejected with 429 because a limit of requests in flight was reached",
            self.rejected_family.clone(),
        );
        registry.register(
            "kube_audit_proxy_request_timeouts",
            "Requests that exceeded their deadline, by whether the response had started",
            self.timeouts_family.clone(),
        );
        registry.register(
            "kube_audit_proxy_cors_preflights",
            "CORS preflight requests of allowed origins, which have no audit event",
            self.preflights.clone(),
        );
        registry.register(
            "kube_audit_proxy_goaways",
            "HTTP/2 connections that received a GOAWAY because of --goaway-chance",
            self.goaways.clone(),
        );
    }
}
