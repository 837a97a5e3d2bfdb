//! Monitors the backends while the process runs: their health and lost events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::audit::record::{AuditPipeline, AuditSink};
use crate::server::admin::Check;
use audit_log::{BackendMetrics, BackendState};

/// How often lost events are logged and health is updated.
const INTERVAL: Duration = Duration::from_secs(1);

/// Returns the `/readyz` check of each backend. A backend in `batch` mode does not make the process
/// unready.
pub(super) fn checks(recorder: &Arc<AuditPipeline>) -> Vec<Check> {
    let of_sink = |(index, sink): (usize, &AuditSink)| {
        let recorder = recorder.clone();
        let name = format!("audit-{}", sink.name);
        let check = move || {
            let recorder = recorder.clone();
            async move { recorder.sinks()[index].backend.check().await }
        };
        match sink.backend.is_awaited() {
            true => Check::new(name, check),
            false => Check::informational(name, "batch mode, no request waits for it", check),
        }
    };
    recorder.sinks().iter().enumerate().map(of_sink).collect()
}

/// Updates the health metrics of the backends and logs events that they lost, until the recorder is
/// dropped.
pub(super) fn spawn_monitor(recorder: &Arc<AuditPipeline>, metrics: &[Arc<BackendMetrics>]) {
    let (recorder, metrics) = (Arc::downgrade(recorder), metrics.to_vec());
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Some(recorder) = recorder.upgrade() else { return };
            for sink in recorder.sinks() {
                sink.backend.tick();
                let healthy = sink.backend.state() == BackendState::Ok;
                if let Some(metrics) = metrics.iter().find(|metrics| metrics.name() == sink.name) {
                    metrics.healthy.set(i64::from(healthy));
                }
            }
        }
    });
}
