//! Metrics of client connections.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of client connections. None of them has labels.
#[derive(Debug, Default)]
pub(crate) struct ConnectionMetrics {
    /// Open connections.
    pub client_connections: Gauge,
    /// Connections refused because of `--max-connections`.
    pub connections_refused: Counter,
    /// Connections closed because of a missing or invalid PROXY header.
    pub proxy_protocol_errors: Counter,
    /// Failed TLS handshakes.
    pub tls_handshake_errors: Counter,
}

impl ConnectionMetrics {
    /// Registers the metrics in `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_client_connections",
            "Open connections from clients",
            self.client_connections.clone(),
        );
        registry.register(
            "kube_audit_proxy_connections_refused",
            "Client connections refused because the limit of --max-connections was reached",
            self.connections_refused.clone(),
        );
        registry.register(
            "kube_audit_proxy_proxy_protocol_errors",
            "Client connections closed because of a missing or invalid PROXY header",
            self.proxy_protocol_errors.clone(),
        );
        registry.register(
            "kube_audit_proxy_tls_handshake_errors",
            "Failed TLS handshakes with clients",
            self.tls_handshake_errors.clone(),
        );
    }
}
