//! Metrics of audit backends. The label `backend` is the name of a backend in the configuration, so
//! each family has one series per backend.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::seal::{SealFamilies, SealMetrics};

/// The step that lost an audit event: kube-apiserver's label `plugin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The queue of the batch mode was full.
    Buffered,
    /// The log file could not be written.
    Log,
    /// The event exceeded `--audit-webhook-truncate-max-event-size`.
    Truncate,
    /// The webhook did not accept the event.
    Webhook,
    /// The spool of a stream backend was full or failed, or its destination rejected the event.
    Stream,
}

impl Plugin {
    const ALL: [Plugin; 5] =
        [Plugin::Buffered, Plugin::Log, Plugin::Truncate, Plugin::Webhook, Plugin::Stream];

    /// Returns kube-apiserver's label value, or `stream`, which kube-apiserver does not have.
    pub fn as_str(self) -> &'static str {
        match self {
            Plugin::Buffered => "buffered",
            Plugin::Log => "log",
            Plugin::Truncate => "truncate",
            Plugin::Webhook => "webhook",
            Plugin::Stream => "stream",
        }
    }
}

/// The label of families with one series per backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BackendLabel {
    backend: String,
}

impl BackendLabel {
    /// Returns the label of the backend `name`.
    pub fn new(name: &str) -> BackendLabel {
        BackendLabel { backend: name.to_owned() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabel {
    plugin: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendPluginLabels {
    backend: String,
    plugin: &'static str,
}

/// The metric families of all kinds of backends.
#[derive(Debug, Default)]
pub struct BackendFamilies {
    events: Family<BackendLabel, Counter>,
    errors: Family<BackendPluginLabels, Counter>,
    all_errors: Family<PluginLabel, Counter>,
    healthy: Family<BackendLabel, Gauge>,
}

impl BackendFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        for plugin in Plugin::ALL {
            let _ = self.all_errors.get_or_create(&PluginLabel { plugin: plugin.as_str() });
        }
        registry.register(
            "apiserver_audit_error",
            "Audit events that a backend lost, by the plugin that lost them",
            self.all_errors.clone(),
        );
        registry.register(
            "kube_audit_proxy_backend_events",
            "Audit events sent to the backend",
            self.events.clone(),
        );
        registry.register(
            "kube_audit_proxy_backend_errors",
            "Audit events that the backend lost, by the plugin that lost them",
            self.errors.clone(),
        );
        registry.register(
            "kube_audit_proxy_backend_healthy",
            "Whether the backend accepts events (1) or fails or hangs (0)",
            self.healthy.clone(),
        );
    }

    /// Returns the metrics of the backend `name`; its series exist from then on.
    pub fn backend(&self, name: &str) -> Arc<BackendMetrics> {
        let label = BackendLabel::new(name);
        let metrics = BackendMetrics {
            name: name.to_owned(),
            events: self.events.get_or_create_owned(&label),
            errors: Plugin::ALL.map(|plugin| {
                let (backend, plugin) = (name.to_owned(), plugin.as_str());
                self.errors.get_or_create_owned(&BackendPluginLabels { backend, plugin })
            }),
            all_errors: Plugin::ALL.map(|plugin| {
                self.all_errors.get_or_create_owned(&PluginLabel { plugin: plugin.as_str() })
            }),
            healthy: self.healthy.get_or_create_owned(&label),
        };
        metrics.healthy.set(1);
        Arc::new(metrics)
    }
}

/// The metrics of one backend of any kind.
#[derive(Debug, Default)]
pub struct BackendMetrics {
    name: String,
    /// Events sent to the backend.
    pub events: Counter,
    errors: [Counter; Plugin::ALL.len()],
    /// The errors of all backends, by plugin.
    all_errors: [Counter; Plugin::ALL.len()],
    /// 1 while the backend accepts events.
    pub healthy: Gauge,
}

impl BackendMetrics {
    /// Returns the backend's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts `events` lost events.
    pub fn events_lost(&self, plugin: Plugin, events: u64) {
        self.errors[plugin as usize].inc_by(events);
        self.all_errors[plugin as usize].inc_by(events);
    }

    /// Returns the number of events lost so far.
    pub fn lost(&self, plugin: Plugin) -> u64 {
        self.errors[plugin as usize].get()
    }
}

/// The metric families of log backends.
#[derive(Debug, Default)]
pub struct LogFamilies {
    queue_length: Family<BackendLabel, Gauge>,
    rotations: Family<BackendLabel, Counter>,
    healthy: Family<BackendLabel, Gauge>,
    seal: SealFamilies,
}

impl LogFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_log_queue_length",
            "Audit events that wait to be written to the log",
            self.queue_length.clone(),
        );
        registry.register(
            "kube_audit_proxy_log_rotations",
            "Rotations of the audit log file",
            self.rotations.clone(),
        );
        registry.register(
            "kube_audit_proxy_log_healthy",
            "Whether the last write to the audit log and its seal succeeded (1) or failed or hangs (0)",
            self.healthy.clone(),
        );
        self.seal.register(registry);
    }

    /// Returns the metrics of the log backend that `backend` belongs to.
    pub fn log(&self, backend: Arc<BackendMetrics>) -> Arc<LogMetrics> {
        let label = BackendLabel::new(backend.name());
        let metrics = LogMetrics {
            queue_length: self.queue_length.get_or_create_owned(&label),
            rotations: self.rotations.get_or_create_owned(&label),
            healthy: self.healthy.get_or_create_owned(&label),
            seal: self.seal.log(&label),
            backend,
        };
        metrics.healthy.set(1);
        Arc::new(metrics)
    }
}

/// The metrics of one log backend.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// The metrics that all backends have.
    pub backend: Arc<BackendMetrics>,
    queue_length: Gauge,
    /// Rotations of the log file.
    pub rotations: Counter,
    /// 1 while the log can be written.
    pub healthy: Gauge,
    /// The metrics of the log's seal.
    pub seal: SealMetrics,
}

impl LogMetrics {
    /// Sets the number of events in the queue. Called for each event, so it stores the value
    /// instead of swapping it like [`Gauge::set`] does.
    pub fn set_queue_length(&self, events: usize) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.queue_length.inner().store(events, std::sync::atomic::Ordering::Relaxed);
    }

    /// Returns the number of events in the queue.
    pub fn queue_length(&self) -> i64 {
        self.queue_length.get()
    }
}
