//! Files that are watched and reloaded.

use std::sync::Arc;

use tokio::sync::watch;

use crate::file_watch::{FileWatcher, POLL_INTERVAL, Reloaded};
use crate::metrics::Metrics;
use crate::server::reload;
use crate::upstream::{KubeconfigFile, ReloadTarget};

/// What is needed to follow files.
pub(in crate::cli) struct Follow {
    pub(in crate::cli) metrics: Arc<Metrics>,
    pub(super) forced: watch::Receiver<()>,
}

impl Follow {
    pub(super) fn spawn_kubeconfig(&self, file: KubeconfigFile, target: &impl ReloadTarget) {
        let (metrics, forced) = (self.metrics.reloads.clone(), self.forced.clone());
        tokio::spawn(file.follow(target.clone(), metrics, forced, POLL_INTERVAL));
    }

    pub(in crate::cli) fn spawn<E: std::fmt::Display + Send + 'static>(
        &self,
        what: Reloaded,
        watcher: FileWatcher,
        reload: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) {
        let (forced, metrics) = (self.forced.clone(), self.metrics.reloads.clone());
        tokio::spawn(reload::follow(what, watcher, forced, metrics, reload));
    }
}
