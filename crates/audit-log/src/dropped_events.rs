//! Events that are lost are counted, and reported to the operator: once a second at most.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::metrics::{BackendMetrics, Plugin};

const INTERVAL: Duration = Duration::from_secs(1);

/// Counts and logs the losses of one plugin.
#[derive(Debug)]
pub(crate) struct DroppedEvents {
    plugin: Plugin,
    metrics: Arc<BackendMetrics>,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    events: u64,
    error: String,
    /// When the last message was logged.
    reported: Option<Instant>,
}

impl DroppedEvents {
    pub(crate) fn new(plugin: Plugin, metrics: Arc<BackendMetrics>) -> DroppedEvents {
        DroppedEvents { plugin, metrics, pending: Mutex::default() }
    }

    /// `events` more are lost, because of `error`.
    pub(crate) fn add(&self, events: u64, error: &dyn Display) {
        self.metrics.events_lost(self.plugin, events);
        let mut pending = self.pending.lock().expect("nothing panics while it holds the losses");
        pending.events += events;
        pending.error = error.to_string();
        self.report(&mut pending, INTERVAL);
    }

    /// Logs what [`Self::add`] held back, if its time has come.
    pub(crate) fn tick(&self) {
        let mut pending = self.pending.lock().expect("nothing panics while it holds the losses");
        self.report(&mut pending, INTERVAL);
    }

    /// Logs all pending counts immediately.
    pub(crate) fn flush(&self) {
        let mut pending = self.pending.lock().expect("nothing panics while it holds the losses");
        self.report(&mut pending, Duration::ZERO);
    }

    fn report(&self, pending: &mut Pending, interval: Duration) {
        let due = pending.reported.is_none_or(|reported| reported.elapsed() >= interval);
        if pending.events == 0 || !due {
            return;
        }
        let plugin = self.plugin.as_str();
        // kube-apiserver's words. It goes on with the events themselves: we do not, because who
        // reads our log is not always who may read the audit log.
        tracing::error!(
            sink = self.metrics.name(),
            "Error in audit plugin '{plugin}' affecting {} audit events: {}",
            pending.events,
            pending.error
        );
        pending.events = 0;
        pending.reported = Some(Instant::now());
    }
}
