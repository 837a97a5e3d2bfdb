//! Metrics of connections and requests to the API server.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::access::Access;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccessLabel {
    access: &'static str,
}

/// The metrics of connections and requests to the API server. The label `access` has one value per
/// variant of [`Access`].
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Requests without a response from the API server.
    pub errors: Counter,
    access_denied: [Counter; Access::ALL.len()],
    access_denied_family: Family<AccessLabel, Counter>,
}

impl Default for UpstreamMetrics {
    fn default() -> UpstreamMetrics {
        let family = Family::<AccessLabel, Counter>::default();
        UpstreamMetrics {
            connections: Gauge::default(),
            errors: Counter::default(),
            access_denied: Access::ALL
                .map(|(_, access)| family.get_or_create_owned(&AccessLabel { access })),
            access_denied_family: family,
        }
    }
}

impl UpstreamMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_upstream_connections",
            "Open connections to the API server",
            self.connections.clone(),
        );
        registry.register(
            "kube_audit_proxy_upstream_errors",
            "Requests that failed because the API server could not be reached or did not respond",
            self.errors.clone(),
        );
        registry.register(
            "kube_audit_proxy_upstream_access_denied",
            "Responses of the API server that denied the proxy's own access (401 or 403)",
            self.access_denied_family.clone(),
        );
    }

    /// Returns the counter of responses that denied the proxy's own access.
    pub fn access_denied(&self, access: Access) -> &Counter {
        &self.access_denied[access as usize]
    }
}
