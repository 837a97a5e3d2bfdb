//! Metrics of the backends' audit policies.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use audit_log::BackendLabel;

/// The metric families of policies, with one series per backend.
#[derive(Debug, Default)]
pub struct PolicyFamilies {
    generation: Family<BackendLabel, Gauge>,
    reload_failures: Family<BackendLabel, Counter>,
}

impl PolicyFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_policy_generation",
            "Audit policies that were active since start, the current one included",
            self.generation.clone(),
        );
        registry.register(
            "kube_audit_proxy_policy_reload_failures",
            "Rejected versions of the backend's audit policy file; the last good policy stayed active",
            self.reload_failures.clone(),
        );
    }

    /// Returns the metrics of the policy of the backend `name`.
    pub fn policy(&self, name: &str) -> PolicyMetrics {
        let label = BackendLabel::new(name);
        PolicyMetrics {
            generation: self.generation.get_or_create_owned(&label),
            reload_failures: self.reload_failures.get_or_create_owned(&label),
        }
    }
}

/// The metrics of one backend's policy.
#[derive(Debug, Clone, Default)]
pub struct PolicyMetrics {
    /// Policies that were active since start; 1 is the one loaded at start.
    pub generation: Gauge,
    /// Rejected versions of the file.
    pub reload_failures: Counter,
}
