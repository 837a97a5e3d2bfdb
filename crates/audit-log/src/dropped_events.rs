//! Counts lost events, and logs them at most once per second.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::metrics::{BackendMetrics, Plugin};

const INTERVAL: Duration = Duration::from_secs(1);

/// Counts and logs the lost events of one plugin.
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

    /// Counts `events` more lost events; `error` is the reason.
    pub(crate) fn add(&self, events: u64, error: &dyn Display) {
        self.metrics.events_lost(self.plugin, events);
        let mut pending = self.pending.lock().expect("nothing panics while it holds the losses");
        pending.events += events;
        pending.error = error.to_string();
        self.report(&mut pending, INTERVAL);
    }

    /// Logs the pending count, unless the last message was less than a second ago.
    pub(crate) fn tick(&self) {
        let mut pending = self.pending.lock().expect("nothing panics while it holds the losses");
        self.report(&mut pending, INTERVAL);
    }

    /// Logs the pending count now.
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
        // kube-apiserver's message, which goes on with the events themselves. They are left out
        // here, because readers of the process log need not have access to the audit log.
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
