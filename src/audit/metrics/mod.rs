//! Metrics of audit events, requests and recorded bodies.

mod bodies;
mod refused;
mod requests;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub(crate) use self::bodies::BodyMetrics;
pub(crate) use self::refused::RefusedRequest;
pub(crate) use self::requests::RequestMetrics;
use crate::policy::Level;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

/// The metrics of audit events, requests and recorded bodies. The label `level` has one value per
/// audit level.
#[derive(Debug)]
pub struct AuditMetrics {
    /// Events, each counted once even if several backends get it.
    pub events: Counter,
    levels: [Counter; Level::ALL.len()],
    levels_family: Family<LevelLabel, Counter>,
    /// Requests refused because their event could not be written (`blocking-strict`).
    pub requests_rejected: Counter,
    /// Requests of clients.
    pub requests: RequestMetrics,
    /// Recorded bodies.
    pub bodies: BodyMetrics,
}

impl Default for AuditMetrics {
    fn default() -> AuditMetrics {
        AuditMetrics::new(Counter::default())
    }
}

impl AuditMetrics {
    /// Creates the metrics. With a single backend, `events` is the counter of that backend, which
    /// counts its events itself.
    pub fn new(events: Counter) -> AuditMetrics {
        let family = Family::<LevelLabel, Counter>::default();
        AuditMetrics {
            events,
            levels: Level::ALL
                .map(|level| family.get_or_create_owned(&LevelLabel { level: level.as_str() })),
            levels_family: family,
            requests_rejected: Counter::default(),
            requests: RequestMetrics::default(),
            bodies: BodyMetrics::default(),
        }
    }

    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_audit_event",
            "Audit events generated and sent to the backends, one per request stage",
            self.events.clone(),
        );
        registry.register(
            "apiserver_audit_level",
            "Policy evaluations, by audit level",
            self.levels_family.clone(),
        );
        registry.register(
            "apiserver_audit_requests_rejected",
            "Requests rejected because their audit event could not be written",
            self.requests_rejected.clone(),
        );
        self.requests.register(registry);
        self.bodies.register(registry);
    }

    /// Counts a policy evaluation that resulted in `level`.
    pub fn policy_evaluated(&self, level: Level) {
        self.levels[level as usize].inc();
    }
}
