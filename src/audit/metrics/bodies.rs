//! Metrics of recorded bodies.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The metrics of recorded bodies. None of them has labels.
#[derive(Debug, Default)]
pub struct BodyMetrics {
    /// Bodies of which only a part is recorded.
    pub truncated: Counter,
    /// Bodies recorded as a string because they could not be decoded.
    pub unreadable: Counter,
    /// Created objects with another name than the request body has.
    pub name_mismatches: Counter,
    /// Requests rejected because their body is ambiguous.
    pub ambiguous_rejected: Counter,
}

impl BodyMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_bodies_truncated",
            "Bodies that were recorded only in part",
            self.truncated.clone(),
        );
        registry.register(
            "kube_audit_proxy_bodies_unreadable",
            "Bodies recorded as text because they could not be decoded; annotations of the event name \
             the reason",
            self.unreadable.clone(),
        );
        registry.register(
            "kube_audit_proxy_object_name_mismatches",
            "Created objects whose name differs from the one in the request body",
            self.name_mismatches.clone(),
        );
        registry.register(
            "kube_audit_proxy_ambiguous_bodies_rejected",
            "Requests rejected because their body is ambiguous (--audit-ambiguous-bodies=reject)",
            self.ambiguous_rejected.clone(),
        );
    }
}
