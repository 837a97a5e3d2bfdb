//! Events that are lost are counted, and told to the operator: once a second at most.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::metrics::{BackendMetrics, Plugin};

const INTERVAL: Duration = Duration::from_secs(1);

/// Counts and logs the losses of one plugin.
#[derive(Debug)]
pub(crate) struct Losses {
    plugin: Plugin,
    metrics: Arc<BackendMetrics>,
    untold: Mutex<Untold>,
}

#[derive(Debug, Default)]
struct Untold {
    events: u64,
    error: String,
    /// When the last line was logged.
    told: Option<Instant>,
}

impl Losses {
    pub(crate) fn new(plugin: Plugin, metrics: Arc<BackendMetrics>) -> Losses {
        Losses { plugin, metrics, untold: Mutex::default() }
    }

    /// `events` more are lost, because of `error`.
    pub(crate) fn add(&self, events: u64, error: &dyn Display) {
        self.metrics.events_lost(self.plugin, events);
        let mut untold = self.untold.lock().expect("nothing panics while it holds the losses");
        untold.events += events;
        untold.error = error.to_string();
        self.tell(&mut untold, INTERVAL);
    }

    /// Logs what [`Self::add`] held back, if its time has come.
    pub(crate) fn tick(&self) {
        let mut untold = self.untold.lock().expect("nothing panics while it holds the losses");
        self.tell(&mut untold, INTERVAL);
    }

    /// Logs what is held back, now.
    pub(crate) fn flush(&self) {
        let mut untold = self.untold.lock().expect("nothing panics while it holds the losses");
        self.tell(&mut untold, Duration::ZERO);
    }

    fn tell(&self, untold: &mut Untold, interval: Duration) {
        let due = untold.told.is_none_or(|told| told.elapsed() >= interval);
        if untold.events == 0 || !due {
            return;
        }
        let plugin = self.plugin.as_str();
        // kube-apiserver's words. It goes on with the events themselves: we do not, because who
        // reads our log is not always who may read the audit log.
        tracing::error!(
            sink = self.metrics.name(),
            "Error in audit plugin '{plugin}' affecting {} audit events: {}",
            untold.events,
            untold.error
        );
        untold.events = 0;
        untold.told = Some(Instant::now());
    }
}
