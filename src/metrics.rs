//! All metrics of the process in one registry, which the admin port exposes.
//!
//! Each module owns the metrics of its concern: a struct with the handles that it counts with, and
//! a function that registers them. Names that kube-apiserver has are kept (`apiserver_audit_*`);
//! the rest begins with `kube_audit_proxy_`. Requests are counted with plain atomics: handles of
//! labelled metrics are looked up once at start.

mod connections;
mod exposition;
mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use session_recording::RecordingMetrics;

pub(crate) use self::connections::ConnectionMetrics;
pub(crate) use self::exposition::Exposition;
use self::process::ProcessCollector;
use crate::audit::metrics::AuditMetrics;
use crate::authorization::AuthorizationMetrics;
use crate::file_watch::ReloadMetrics;
use crate::filters::FilterMetrics;
use crate::policy::{PolicyFamilies, PolicyHandle, PolicyMetrics};
use crate::upstream::UpstreamMetrics;
use crate::upstream::access::Access;
use audit_log::{
    BackendFamilies, BackendMetrics, DeliveryFamilies, DeliveryMetrics, LogFamilies, LogMetrics,
};
use audit_stream::otlp::{OtlpFamilies, OtlpMetrics};
use kube_authn::AuthenticationMetrics;

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Audit events, requests and recorded bodies.
    pub audit: Arc<AuditMetrics>,
    /// Connections from clients.
    pub server: Arc<ConnectionMetrics>,
    /// Connections and requests to the API server.
    pub upstream: Arc<UpstreamMetrics>,
    /// Authentication.
    pub authentication: Arc<AuthenticationMetrics>,
    /// Authorization annotations.
    pub authorization: Arc<AuthorizationMetrics>,
    /// Request filters.
    pub filters: Arc<FilterMetrics>,
    /// Reloads of files.
    pub reloads: Arc<ReloadMetrics>,
    /// Recordings of sessions.
    pub sessions: Arc<RecordingMetrics>,
    /// All backends, in the order in which [`Metrics::new`] got their names.
    pub backends: Vec<Arc<BackendMetrics>>,
    policies: PolicyFamilies,
    logs: LogFamilies,
    deliveries: DeliveryFamilies,
    collectors: OtlpFamilies,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new([])
    }
}

impl Metrics {
    /// Creates and registers the metrics of a process with audit backends of these names.
    pub(crate) fn new<'a>(backends: impl IntoIterator<Item = &'a str>) -> Metrics {
        let families = BackendFamilies::default();
        let backends: Vec<_> = backends.into_iter().map(|name| families.backend(name)).collect();
        let events = match backends.as_slice() {
            [only] => only.events.clone(),
            _ => Counter::default(),
        };
        let upstream = UpstreamMetrics::default();
        let denied = upstream.access_denied(Access::TokenReview).clone();
        let mut metrics = Metrics {
            registry: Registry::default(),
            audit: Arc::new(AuditMetrics::new(events)),
            server: Arc::default(),
            upstream: Arc::new(upstream),
            authentication: Arc::new(AuthenticationMetrics::new(denied)),
            authorization: Arc::default(),
            filters: Arc::default(),
            reloads: Arc::default(),
            sessions: Arc::default(),
            backends,
            policies: PolicyFamilies::default(),
            logs: LogFamilies::default(),
            deliveries: DeliveryFamilies::default(),
            collectors: OtlpFamilies::default(),
        };
        let registry = &mut metrics.registry;
        metrics.audit.register(registry);
        families.register(registry);
        metrics.logs.register(registry);
        metrics.deliveries.register(registry);
        metrics.collectors.register(registry);
        metrics.policies.register(registry);
        metrics.server.register(registry);
        metrics.upstream.register(registry);
        metrics.authentication.register(registry);
        metrics.authorization.register(registry);
        metrics.filters.register(registry);
        metrics.reloads.register(registry);
        metrics.sessions.register(registry);
        let build = vec![
            ("version", env!("CARGO_PKG_VERSION")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
        ];
        registry.register(
            "kube_audit_proxy_build",
            "Version and platform of kube-audit-proxy; the value is 1",
            Info::new(build),
        );
        registry.register_collector(Box::new(ProcessCollector));
        metrics
    }

    /// Returns the metrics of the policy of a backend.
    pub(crate) fn policy(&self, backend: &BackendMetrics) -> PolicyMetrics {
        self.policies.policy(backend.name())
    }

    /// Exposes the counts of the rules of these policies.
    pub(crate) fn expose_rules(&self, policies: Vec<PolicyHandle>) {
        self.policies.expose_rules(policies);
    }

    /// Returns the metrics of the log backend that `backend` belongs to.
    pub(crate) fn log(&self, backend: Arc<BackendMetrics>) -> Arc<LogMetrics> {
        self.logs.log(backend)
    }

    /// Returns the metrics of the backend that sends events elsewhere, which `backend` belongs to.
    pub(crate) fn delivery(&self, backend: Arc<BackendMetrics>) -> Arc<DeliveryMetrics> {
        self.deliveries.delivery(backend)
    }

    /// Returns the metrics of the OTLP backend that `backend` belongs to.
    pub(crate) fn otlp(&self, backend: Arc<BackendMetrics>) -> OtlpMetrics {
        self.collectors.otlp(backend)
    }

    /// Renders all metrics.
    ///
    /// # Errors
    /// If a metric cannot be encoded, which is a bug of its encoder.
    pub(crate) fn render(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let mut rendered = String::with_capacity(16 << 10);
        match exposition {
            Exposition::PrometheusText => prometheus_text::encode(&mut rendered, &self.registry)?,
            Exposition::OpenMetrics => text::encode(&mut rendered, &self.registry)?,
        }
        Ok(rendered)
    }
}

#[cfg(test)]
mod tests;
