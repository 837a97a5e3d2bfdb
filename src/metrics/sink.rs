//! What is counted of one sink; the label `sink` of its series.

use super::{Counter, Gauge, Plugin, Text};

/// The numbers of one sink.
#[derive(Debug, Default)]
pub struct SinkMetrics {
    name: String,
    /// Events handed to it.
    pub events: Counter,
    errors: [Counter; Plugin::ALL.len()],
    /// How often its policy has changed since start; 1 is the one loaded at start.
    pub policy_generation: Gauge,
    /// Times that its policy file was no good; the last good policy stayed.
    pub policy_failures: Counter,
    /// Events waiting for the writer.
    pub sink_queue: Gauge,
    /// Log files rotated.
    pub log_rotations: Counter,
    /// 1 while the audit log cannot be written.
    pub log_failing: Gauge,
    /// Blocks of the audit log that were sealed.
    pub seal_blocks: Counter,
    /// Attempts to write the audit log's seal that failed.
    pub seal_failures: Counter,
    /// Lines that stay unsealed, since too many waited.
    pub seal_skipped: Counter,
    /// 1 if, at the start, the seal or the log was not as the last run had left it.
    pub seal_broken: Gauge,
    /// 1 while the webhook takes no events.
    pub webhook_failing: Gauge,
    /// Events that the webhook has taken.
    pub webhook_events: Counter,
    /// Attempts to send a batch to the webhook that failed.
    pub webhook_failures: Counter,
    /// Bytes in the webhook's spool.
    pub webhook_spool: Gauge,
    /// Events that the webhook refused for good or whose batch was corrupt, with a spool.
    pub webhook_rejected_events: Counter,
    /// Files in the webhook's spool that were set aside.
    pub webhook_rejected_files: Gauge,
    /// Their bytes.
    pub webhook_rejected_bytes: Gauge,
    /// 1 while the backend accepts events.
    pub healthy: Gauge,
}

impl SinkMetrics {
    /// Those of the sink of this name.
    pub fn named(name: impl Into<String>) -> SinkMetrics {
        let metrics = SinkMetrics { name: name.into(), ..SinkMetrics::default() };
        metrics.healthy.set(1);
        metrics
    }

    /// The backend's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `events` events were lost.
    pub fn events_lost(&self, plugin: Plugin, events: u64) {
        self.errors[plugin as usize].add(events);
    }

    /// Events lost so far.
    pub fn lost(&self, plugin: Plugin) -> u64 {
        self.errors[plugin as usize].value()
    }
}

/// Name, help, and how to get it.
type Series<T> = (&'static str, &'static str, fn(&SinkMetrics) -> T);

const COUNTERS: [Series<u64>; 9] = [
    ("kube_audit_proxy_sink_events_total", "Audit events handed to the sink.", |sink| {
        sink.events.value()
    }),
    (
        "kube_audit_proxy_policy_reload_failures_total",
        "Times that the sink's policy file was no good, and the last good policy stayed.",
        |sink| sink.policy_failures.value(),
    ),
    ("kube_audit_proxy_log_rotations_total", "Audit log files rotated.", |sink| {
        sink.log_rotations.value()
    }),
    (
        "kube_audit_proxy_log_seal_blocks_total",
        "Blocks of the audit log that were sealed.",
        |sink| sink.seal_blocks.value(),
    ),
    (
        "kube_audit_proxy_log_seal_failures_total",
        "Attempts to write the audit log's seal that failed.",
        |sink| sink.seal_failures.value(),
    ),
    (
        "kube_audit_proxy_log_seal_skipped_total",
        "Lines of the audit log that stay unsealed, since too many waited.",
        |sink| sink.seal_skipped.value(),
    ),
    ("kube_audit_proxy_webhook_events_total", "Events that the webhook has taken.", |sink| {
        sink.webhook_events.value()
    }),
    (
        "kube_audit_proxy_webhook_failures_total",
        "Attempts to send a batch to the webhook that failed.",
        |sink| sink.webhook_failures.value(),
    ),
    (
        "kube_audit_proxy_webhook_rejected_events_total",
        "Events of the spool that were set aside as *.rejected or deleted, because the webhook \
         refused them or their batch was corrupt.",
        |sink| sink.webhook_rejected_events.value(),
    ),
];

const GAUGES: [Series<i64>; 9] = [
    ("kube_audit_proxy_policy_generation", "Policies loaded since start.", |sink| {
        sink.policy_generation.value()
    }),
    ("kube_audit_proxy_sink_queue", "Events waiting to be written.", |sink| {
        sink.sink_queue.value()
    }),
    ("kube_audit_proxy_log_failing", "1 while the audit log cannot be written.", |sink| {
        sink.log_failing.value()
    }),
    (
        "kube_audit_proxy_log_seal_broken",
        "1 if the audit log or its seal was found tampered with at the start.",
        |sink| sink.seal_broken.value(),
    ),
    ("kube_audit_proxy_webhook_failing", "1 while the webhook takes no events.", |sink| {
        sink.webhook_failing.value()
    }),
    ("kube_audit_proxy_webhook_spool_bytes", "Events that wait in the webhook's spool.", |sink| {
        sink.webhook_spool.value()
    }),
    (
        "kube_audit_proxy_webhook_rejected_files",
        "Files *.rejected in the webhook's spool.",
        |sink| sink.webhook_rejected_files.value(),
    ),
    (
        "kube_audit_proxy_webhook_rejected_bytes",
        "Size of the files *.rejected in the webhook's spool.",
        |sink| sink.webhook_rejected_bytes.value(),
    ),
    ("kube_audit_proxy_sink_healthy", "1 while the backend accepts events.", |sink| {
        sink.healthy.value()
    }),
];

/// All series that are told apart by sink.
pub(super) fn render(sinks: &[impl AsRef<SinkMetrics>], text: &mut Text) {
    let sinks = || sinks.iter().map(AsRef::as_ref);
    for (name, help, value) in COUNTERS {
        text.head(name, "counter", help);
        sinks().for_each(|sink| text.line(name, &[("sink", &sink.name)], &value(sink)));
    }
    for (name, help, value) in GAUGES {
        text.head(name, "gauge", help);
        sinks().for_each(|sink| text.line(name, &[("sink", &sink.name)], &value(sink)));
    }
    let name = "kube_audit_proxy_sink_errors_total";
    text.head(name, "counter", "Audit events lost, by sink and where.");
    for sink in sinks() {
        for (plugin, where_) in Plugin::ALL {
            let labels = [("sink", sink.name.as_str()), ("plugin", where_)];
            text.line(name, &labels, &sink.lost(plugin));
        }
    }
}
