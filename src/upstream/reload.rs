//! Reloads kubeconfigs, so that credentials that kubeadm, k3s or Rancher renew in them are used
//! without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_client::ApiClient;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::forward::Upstream;
use super::{ConfigError, UpstreamConfig};
use crate::file_watch::{ReloadMetrics, Reloaded};
use watched_files::regular_file;

/// Resolves the settings from a kubeconfig, and flags if there are any.
pub(super) type Resolve = Box<dyn Fn() -> Result<UpstreamConfig, ConfigError> + Send>;

/// An object whose settings come from a kubeconfig.
pub trait ReloadTarget: Clone + Send + 'static {
    /// Replaces the settings.
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used. The former settings stay
    /// active.
    fn replace(&self, config: UpstreamConfig) -> Result<(), ConfigError>;

    /// Reloads the files that the settings refer to.
    fn refresh(&self);

    /// Returns the host and port of the server.
    fn authority(&self) -> Arc<str>;
}

impl ReloadTarget for Upstream {
    fn replace(&self, config: UpstreamConfig) -> Result<(), ConfigError> {
        Upstream::replace(self, config)
    }

    fn refresh(&self) {
        Upstream::refresh(self);
    }

    fn authority(&self) -> Arc<str> {
        Upstream::authority(self)
    }
}

impl ReloadTarget for ApiClient {
    fn replace(&self, config: UpstreamConfig) -> Result<(), ConfigError> {
        ApiClient::replace(self, config)
    }

    fn refresh(&self) {
        ApiClient::refresh(self);
    }

    fn authority(&self) -> Arc<str> {
        ApiClient::authority(self)
    }
}

/// A kubeconfig that is watched, or several that are merged.
pub struct KubeconfigFile {
    what: Reloaded,
    paths: Vec<PathBuf>,
    resolve: Resolve,
    /// The contents that the active settings were read from; `None` for files that do not exist.
    active: Vec<Option<Vec<u8>>>,
    /// The reason of the last rejection; a lasting reason is logged once.
    rejected: Option<String>,
}

impl KubeconfigFile {
    /// Remembers the current contents of the files as those of the active settings, so create it
    /// before reading them.
    pub fn new(what: Reloaded, paths: &[PathBuf], resolve: Resolve) -> KubeconfigFile {
        let (paths, active) = (paths.to_vec(), texts(paths));
        KubeconfigFile { what, paths, resolve, active, rejected: None }
    }

    /// Watches the file for `target` until the sender of `forced` is dropped: checks it every
    /// `interval`, and immediately when `forced` receives a value (SIGHUP). The upstream watches
    /// the files that the kubeconfig refers to; `forced` reloads these as well.
    pub async fn follow(
        mut self,
        target: impl ReloadTarget,
        metrics: Arc<ReloadMetrics>,
        mut forced: watch::Receiver<()>,
        interval: Duration,
    ) {
        let mut poll = tokio::time::interval(interval);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_forced = tokio::select! {
                _ = poll.tick() => false,
                result = forced.changed() => match result {
                    Ok(()) => true,
                    Err(_) => return,
                },
            };
            let (target, metrics) = (target.clone(), Arc::clone(&metrics));
            // Files may be on a slow disk.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(&target, &metrics, is_forced);
                self
            });
            match looked.await {
                Ok(file) => self = file,
                Err(_) => return,
            }
        }
    }

    /// Reads the file and replaces the settings if it has changed. After a rejection, every check
    /// tries again, since a file that the kubeconfig refers to may have changed instead.
    fn look(&mut self, target: &impl ReloadTarget, metrics: &ReloadMetrics, is_forced: bool) {
        let texts = texts(&self.paths);
        if texts == self.active {
            if is_forced {
                target.refresh();
                metrics.reloaded(self.what, true);
            }
            if self.rejected.take().is_some() {
                tracing::info!(file = self.name(), "the kubeconfig is back to its active content");
            }
            return;
        }
        // The file is reloaded below; if it changes meanwhile, the next check finds it different
        // from `active`.
        match (self.resolve)().and_then(|config| target.replace(config)) {
            Ok(()) => {
                (self.active, self.rejected) = (texts, None);
                metrics.reloaded(self.what, true);
                tracing::info!(
                    file = self.name(),
                    server = %target.authority(),
                    "kubeconfig reloaded"
                );
            }
            Err(error) => self.reject(&error, metrics, is_forced),
        }
    }

    fn reject(&mut self, error: &ConfigError, metrics: &ReloadMetrics, is_forced: bool) {
        let reason = error.to_string();
        if self.rejected.as_ref() == Some(&reason) && !is_forced {
            return;
        }
        metrics.reloaded(self.what, false);
        tracing::error!(
            file = self.name(),
            "kubeconfig not reloaded, the current one stays active: {}",
            reason.replace('\n', " | ")
        );
        self.rejected = Some(reason);
    }

    fn name(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        paths.join(", ")
    }
}

fn texts(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    paths.iter().map(|path| regular_file::read(path).ok()).collect()
}
