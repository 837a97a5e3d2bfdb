//! Metrics of webhook backends.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::{BackendLabel, BackendMetrics};

/// The metric families of webhook backends.
#[derive(Debug, Default)]
pub struct WebhookFamilies {
    healthy: Family<BackendLabel, Gauge>,
    events: Family<BackendLabel, Counter>,
    failures: Family<BackendLabel, Counter>,
    spool_bytes: Family<BackendLabel, Gauge>,
    rejected_events: Family<BackendLabel, Counter>,
    rejected_files: Family<BackendLabel, Gauge>,
    rejected_bytes: Family<BackendLabel, Gauge>,
}

impl WebhookFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_webhook_healthy",
            "Whether the webhook endpoint accepted the last batch (1) or not (0)",
            self.healthy.clone(),
        );
        registry.register(
            "kube_audit_proxy_webhook_events",
            "Audit events that the webhook endpoint accepted",
            self.events.clone(),
        );
        registry.register(
            "kube_audit_proxy_webhook_failures",
            "Failed attempts to send a batch to the webhook endpoint",
            self.failures.clone(),
        );
        registry.register_with_unit(
            "kube_audit_proxy_webhook_spool",
            "Size of the events that wait in the spool",
            Unit::Bytes,
            self.spool_bytes.clone(),
        );
        registry.register(
            "kube_audit_proxy_webhook_rejected_events",
            "Audit events of the spool that were set aside as *.rejected or deleted, because the \
             webhook endpoint rejected them or their batch was corrupt",
            self.rejected_events.clone(),
        );
        registry.register(
            "kube_audit_proxy_webhook_rejected_files",
            "Files *.rejected in the spool",
            self.rejected_files.clone(),
        );
        registry.register_with_unit(
            "kube_audit_proxy_webhook_rejected",
            "Size of the files *.rejected in the spool",
            Unit::Bytes,
            self.rejected_bytes.clone(),
        );
    }

    /// Returns the metrics of the webhook backend that `backend` belongs to.
    pub fn webhook(&self, backend: Arc<BackendMetrics>) -> Arc<WebhookMetrics> {
        let label = BackendLabel::new(backend.name());
        let metrics = WebhookMetrics {
            healthy: self.healthy.get_or_create_owned(&label),
            events: self.events.get_or_create_owned(&label),
            failures: self.failures.get_or_create_owned(&label),
            spool_bytes: self.spool_bytes.get_or_create_owned(&label),
            rejected_events: self.rejected_events.get_or_create_owned(&label),
            rejected_files: self.rejected_files.get_or_create_owned(&label),
            rejected_bytes: self.rejected_bytes.get_or_create_owned(&label),
            backend,
        };
        metrics.healthy.set(1);
        Arc::new(metrics)
    }
}

/// The metrics of one webhook backend.
#[derive(Debug, Default)]
pub struct WebhookMetrics {
    /// The metrics that all backends have.
    pub backend: Arc<BackendMetrics>,
    /// 1 while the endpoint accepts events.
    pub healthy: Gauge,
    /// Events that the endpoint accepted.
    pub events: Counter,
    /// Failed attempts to send a batch.
    pub failures: Counter,
    /// Bytes in the spool.
    pub spool_bytes: Gauge,
    /// Events of the spool that the endpoint rejected, or whose batch was corrupt.
    pub rejected_events: Counter,
    /// Files in the spool that were set aside.
    pub rejected_files: Gauge,
    /// The size of these files.
    pub rejected_bytes: Gauge,
}
