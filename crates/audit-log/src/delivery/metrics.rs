//! Metrics of backends that send events to another system: webhooks and streams.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::{BackendLabel, BackendMetrics};

/// The metric families of backends that send events to another system.
#[derive(Debug, Default)]
pub struct DeliveryFamilies {
    healthy: Family<BackendLabel, Gauge>,
    events: Family<BackendLabel, Counter>,
    failures: Family<BackendLabel, Counter>,
    last_success: Family<BackendLabel, Gauge>,
    spool_bytes: Family<BackendLabel, Gauge>,
    rejected_events: Family<BackendLabel, Counter>,
    rejected_files: Family<BackendLabel, Gauge>,
    rejected_bytes: Family<BackendLabel, Gauge>,
}

impl DeliveryFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_delivery_healthy",
            "Whether the destination of the backend accepted the last batch (1) or not (0)",
            self.healthy.clone(),
        );
        registry.register(
            "kube_audit_proxy_delivery_events",
            "Audit events that the destination of the backend accepted",
            self.events.clone(),
        );
        registry.register(
            "kube_audit_proxy_delivery_failures",
            "Failed attempts to send a batch to the destination of the backend",
            self.failures.clone(),
        );
        registry.register_with_unit(
            "kube_audit_proxy_delivery_last_success_timestamp",
            "Unix time at which the destination last accepted a batch; 0 before the first",
            Unit::Seconds,
            self.last_success.clone(),
        );
        registry.register_with_unit(
            "kube_audit_proxy_spool",
            "Size of the events that wait in the spool",
            Unit::Bytes,
            self.spool_bytes.clone(),
        );
        registry.register(
            "kube_audit_proxy_spool_rejected_events",
            "Audit events of the spool that were set aside as *.rejected or deleted, because the \
             destination rejected them or their batch was corrupt",
            self.rejected_events.clone(),
        );
        registry.register(
            "kube_audit_proxy_spool_rejected_files",
            "Files *.rejected in the spool",
            self.rejected_files.clone(),
        );
        registry.register_with_unit(
            "kube_audit_proxy_spool_rejected",
            "Size of the files *.rejected in the spool",
            Unit::Bytes,
            self.rejected_bytes.clone(),
        );
    }

    /// Returns the delivery metrics of the backend that `backend` belongs to.
    pub fn delivery(&self, backend: Arc<BackendMetrics>) -> Arc<DeliveryMetrics> {
        let label = BackendLabel::new(backend.name());
        let metrics = DeliveryMetrics {
            healthy: self.healthy.get_or_create_owned(&label),
            events: self.events.get_or_create_owned(&label),
            failures: self.failures.get_or_create_owned(&label),
            last_success: self.last_success.get_or_create_owned(&label),
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

/// The metrics of one backend that sends events to another system.
#[derive(Debug, Default)]
pub struct DeliveryMetrics {
    /// The metrics that all backends have.
    pub backend: Arc<BackendMetrics>,
    /// 1 while the destination accepts events.
    pub healthy: Gauge,
    /// Events that the destination accepted.
    pub events: Counter,
    /// Failed attempts to send a batch.
    pub failures: Counter,
    /// When the destination last accepted a batch, as Unix time in seconds.
    pub last_success: Gauge,
    /// Bytes in the spool.
    pub spool_bytes: Gauge,
    /// Events of the spool that the destination rejected, or whose batch was corrupt.
    pub rejected_events: Counter,
    /// Files in the spool that were set aside.
    pub rejected_files: Gauge,
    /// The size of these files.
    pub rejected_bytes: Gauge,
}

impl DeliveryMetrics {
    /// Counts a batch of `events` events that the destination accepted.
    pub(crate) fn delivered(&self, events: u64) {
        self.events.inc_by(events);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}
