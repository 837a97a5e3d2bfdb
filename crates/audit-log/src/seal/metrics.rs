//! Metrics of the audit log's seal.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::BackendLabel;

/// The metric families of seals.
#[derive(Debug, Default)]
pub struct SealFamilies {
    blocks: Family<BackendLabel, Counter>,
    failures: Family<BackendLabel, Counter>,
    skipped_lines: Family<BackendLabel, Counter>,
    broken: Family<BackendLabel, Gauge>,
}

impl SealFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_log_seal_blocks",
            "Blocks of the audit log that were sealed",
            self.blocks.clone(),
        );
        registry.register(
            "kube_audit_proxy_log_seal_failures",
            "Failed attempts to write the audit log's seal",
            self.failures.clone(),
        );
        registry.register(
            "kube_audit_proxy_log_seal_skipped_lines",
            "Lines of the audit log that stay unsealed because too many were waiting",
            self.skipped_lines.clone(),
        );
        registry.register(
            "kube_audit_proxy_log_seal_broken",
            "Whether the audit log or its seal had been tampered with when the proxy started (1) or not (0)",
            self.broken.clone(),
        );
    }

    /// Returns the metrics of the seal of one log.
    pub fn log(&self, label: &BackendLabel) -> SealMetrics {
        SealMetrics {
            blocks: self.blocks.get_or_create_owned(label),
            failures: self.failures.get_or_create_owned(label),
            skipped_lines: self.skipped_lines.get_or_create_owned(label),
            broken: self.broken.get_or_create_owned(label),
        }
    }
}

/// The metrics of the seal of one log.
#[derive(Debug, Default)]
pub struct SealMetrics {
    /// Sealed blocks.
    pub blocks: Counter,
    /// Failed attempts to write the seal.
    pub failures: Counter,
    /// Lines that stay unsealed because too many lines were waiting.
    pub skipped_lines: Counter,
    /// 1 if the proxy detected tampering with the log or its seal at startup.
    pub broken: Gauge,
}
