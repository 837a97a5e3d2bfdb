//! Files that are watched and reloaded.

use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::watch;

use crate::file_watch::{FileWatcher, POLL_INTERVAL, Reloaded, SelfReading};
use crate::metrics::Metrics;
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

    pub(in crate::cli) fn spawn<E: Display + Send + 'static>(
        &self,
        what: Reloaded,
        watcher: FileWatcher,
        reload: impl Fn() -> Result<(), E> + Send + 'static,
    ) {
        self.spawn_counting(what, watcher, reload, |_| {});
    }

    /// Like [`Follow::spawn`], with a function that counts successes and failures in addition.
    pub(super) fn spawn_counting<E: Display + Send + 'static>(
        &self,
        what: Reloaded,
        watcher: FileWatcher,
        reload: impl Fn() -> Result<(), E> + Send + 'static,
        count: impl Fn(bool) + Send + 'static,
    ) {
        let metrics = self.metrics.reloads.clone();
        let reloader = SelfReading { what, metrics, reload, count }.reloader(watcher);
        tokio::spawn(reloader.follow(self.forced.clone(), POLL_INTERVAL));
    }
}
