//! Metrics of file reloads.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// A file that is reloaded while the proxy runs: the label `file` of the reload counters.
#[derive(Debug, Clone, Copy)]
pub enum Reloaded {
    /// `--audit-policy-file`
    Policy,
    /// `--tls-cert-file`, `--tls-private-key-file`
    ServingCertificate,
    /// `--client-ca-file`
    ClientCa,
    /// `--requestheader-client-ca-file`
    FrontProxyCa,
    /// `--service-account-key-file`
    ServiceAccountKeys,
    /// `--authentication-config`
    AuthenticationConfig,
    /// `--kubeconfig`
    Kubeconfig,
    /// `--audit-webhook-config-file`
    AuditWebhookConfig,
    /// `--authentication-token-webhook-config-file`
    TokenWebhookConfig,
    /// `--session-recording-rules`
    SessionRecordingRules,
}

impl Reloaded {
    const ALL: [Reloaded; 10] = [
        Reloaded::Policy,
        Reloaded::ServingCertificate,
        Reloaded::ClientCa,
        Reloaded::FrontProxyCa,
        Reloaded::ServiceAccountKeys,
        Reloaded::AuthenticationConfig,
        Reloaded::Kubeconfig,
        Reloaded::AuditWebhookConfig,
        Reloaded::TokenWebhookConfig,
        Reloaded::SessionRecordingRules,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Reloaded::Policy => "policy",
            Reloaded::ServingCertificate => "serving_certificate",
            Reloaded::ClientCa => "client_ca",
            Reloaded::FrontProxyCa => "requestheader_client_ca",
            Reloaded::ServiceAccountKeys => "service_account_keys",
            Reloaded::AuthenticationConfig => "authentication_config",
            Reloaded::Kubeconfig => "kubeconfig",
            Reloaded::AuditWebhookConfig => "audit_webhook_config",
            Reloaded::TokenWebhookConfig => "token_webhook_config",
            Reloaded::SessionRecordingRules => "session_recording_rules",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    file: &'static str,
    result: &'static str,
}

impl ReloadLabels {
    fn new(what: Reloaded, succeeded: bool) -> ReloadLabels {
        let result = if succeeded { "success" } else { "failure" };
        ReloadLabels { file: what.as_str(), result }
    }
}

/// Counts reloads. There are two series per variant of [`Reloaded`].
#[derive(Debug)]
pub struct ReloadMetrics {
    reloads: Family<ReloadLabels, Counter>,
}

impl Default for ReloadMetrics {
    fn default() -> ReloadMetrics {
        let reloads = Family::default();
        for what in Reloaded::ALL {
            for succeeded in [false, true] {
                let _ = Family::<_, Counter>::get_or_create(
                    &reloads,
                    &ReloadLabels::new(what, succeeded),
                );
            }
        }
        ReloadMetrics { reloads }
    }
}

impl ReloadMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_reloads",
            "Reloads of files while the proxy runs, by file and result",
            self.reloads.clone(),
        );
    }

    /// Counts a reload.
    pub fn reloaded(&self, what: Reloaded, succeeded: bool) {
        self.reloads.get_or_create(&ReloadLabels::new(what, succeeded)).inc();
    }

    /// Returns the number of reloads so far.
    pub fn count(&self, what: Reloaded, succeeded: bool) -> u64 {
        self.reloads.get_or_create(&ReloadLabels::new(what, succeeded)).get()
    }
}
