//! Metrics of recordings.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Why a session was not recorded, or only in part: the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The file cannot be written.
    Io,
    /// The protocol cannot be read.
    Protocol,
    /// The recording reached its maximum size.
    Size,
    /// The disk is too slow.
    Timeout,
}

impl FailureReason {
    const ALL: [(FailureReason, &'static str); 4] = [
        (FailureReason::Io, "io"),
        (FailureReason::Protocol, "protocol"),
        (FailureReason::Size, "size"),
        (FailureReason::Timeout, "timeout"),
    ];
}

/// The metrics of recordings.
#[derive(Debug)]
pub struct RecordingMetrics {
    /// Sessions that are being recorded.
    pub active: Gauge,
    /// Recordings that were started.
    pub started: Counter,
    /// Bytes written to recordings.
    pub bytes: Counter,
    /// Sessions refused because they could not be recorded.
    pub refused: Counter,
    /// Recordings salvaged at start.
    pub salvaged: Counter,
    /// Recordings deleted by retention.
    pub deleted: Counter,
    failures: [Counter; FailureReason::ALL.len()],
    family: Family<Reason, Counter>,
}

impl Default for RecordingMetrics {
    fn default() -> RecordingMetrics {
        let family = Family::<Reason, Counter>::default();
        RecordingMetrics {
            active: Gauge::default(),
            started: Counter::default(),
            bytes: Counter::default(),
            refused: Counter::default(),
            salvaged: Counter::default(),
            deleted: Counter::default(),
            failures: FailureReason::ALL
                .map(|(_, reason)| family.get_or_create_owned(&Reason { reason })),
            family,
        }
    }
}

impl RecordingMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_session_recordings_active",
            "Sessions that are being recorded",
            self.active.clone(),
        );
        registry.register(
            "kube_audit_proxy_session_recordings_started",
            "Session recordings that were started",
            self.started.clone(),
        );
        registry.register(
            "kube_audit_proxy_session_recording_bytes",
            "Bytes written to session recordings",
            self.bytes.clone(),
        );
        registry.register(
            "kube_audit_proxy_session_recording_failures",
            "Sessions that were not recorded, or only in part",
            self.family.clone(),
        );
        registry.register(
            "kube_audit_proxy_session_recordings_refused",
            "Sessions refused because they could not be recorded",
            self.refused.clone(),
        );
        registry.register(
            "kube_audit_proxy_session_recordings_salvaged",
            "Session recordings of a crashed process that were completed at startup",
            self.salvaged.clone(),
        );
        registry.register(
            "kube_audit_proxy_session_recordings_deleted",
            "Session recordings deleted because of their age or total size",
            self.deleted.clone(),
        );
    }

    /// Counts a failure.
    pub fn failed(&self, reason: FailureReason) {
        self.failures[reason as usize].inc();
    }
}
