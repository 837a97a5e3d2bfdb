//! Metrics of OTLP backends, besides those that all backends have.

use std::sync::Arc;

use audit_log::{BackendLabel, BackendMetrics, Plugin};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The metric families of OTLP backends.
#[derive(Debug, Default)]
pub struct OtlpFamilies {
    rejected: Family<BackendLabel, Counter>,
}

impl OtlpFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_otlp_rejected_events",
            "Audit events that the OpenTelemetry collector rejected in a successful response",
            self.rejected.clone(),
        );
    }

    /// Returns the metrics of the OTLP backend that `backend` belongs to.
    pub fn otlp(&self, backend: Arc<BackendMetrics>) -> OtlpMetrics {
        let rejected = self.rejected.get_or_create_owned(&BackendLabel::new(backend.name()));
        OtlpMetrics { rejected, backend }
    }
}

/// The metrics of one OTLP backend.
#[derive(Debug, Default)]
pub struct OtlpMetrics {
    /// Events that the collector rejected in successful responses.
    pub rejected: Counter,
    /// The metrics that all backends have.
    pub backend: Arc<BackendMetrics>,
}

impl OtlpMetrics {
    /// Counts events that the collector rejected and that must not be sent again.
    pub(super) fn rejected(&self, events: u64) {
        self.rejected.inc_by(events);
        self.backend.events_lost(Plugin::Stream, events);
    }
}
