//! Following a kubeconfig: credentials that kubeadm, k3s or Rancher renew inside it are used without a
//! restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::config::UpstreamConfig;
use super::error::ConfigError;
use super::forward::Upstream;
use crate::file_watch::{ReloadMetrics, Reloaded};
use crate::regular_file;

/// Reads the settings that a kubeconfig, with flags where there are any, describes.
pub type Resolve = Box<dyn Fn() -> Result<UpstreamConfig, ConfigError> + Send>;

/// A kubeconfig that is followed.
pub struct KubeconfigFile {
    what: Reloaded,
    path: PathBuf,
    resolve: Resolve,
    /// The text that the active settings were read from.
    active: Vec<u8>,
    /// Why the file was last rejected; a lasting reason is logged once.
    rejected: Option<String>,
}

impl KubeconfigFile {
    /// Takes the present text of the file at `path` for the one that the active settings are from, so
    /// make it before reading them.
    pub fn new(what: Reloaded, path: &Path, resolve: Resolve) -> KubeconfigFile {
        let active = regular_file::read(path).unwrap_or_default();
        KubeconfigFile { what, path: path.to_owned(), resolve, active, rejected: None }
    }

    /// Follows the file for `upstream` until the sender of `forced` is dropped: looks at it each
    /// `interval`, and at once when `forced` gets a value (SIGHUP). The files that it names are followed
    /// by the upstream itself; `forced` reads them again, too.
    pub async fn follow(
        mut self,
        upstream: Upstream,
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
            let (upstream, metrics) = (upstream.clone(), Arc::clone(&metrics));
            // Files may be on a slow disk.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(&upstream, &metrics, is_forced);
                self
            });
            match looked.await {
                Ok(file) => self = file,
                Err(_) => return,
            }
        }
    }

    /// Reads the file, and replaces the settings if it is another one. After a rejected file this tries
    /// again each time, since a file that it names may be the one that changes.
    fn look(&mut self, upstream: &Upstream, metrics: &ReloadMetrics, is_forced: bool) {
        let read = regular_file::read(&self.path).map_err(|source| ConfigError::Read {
            field: "kubeconfig".to_owned(),
            path: self.path.clone(),
            source,
        });
        let text = match read {
            Ok(text) if text == self.active => {
                if is_forced {
                    upstream.refresh();
                    metrics.reloaded(self.what, true);
                }
                if self.rejected.take().is_some() {
                    tracing::info!(
                        file = %self.path.display(),
                        "the kubeconfig is back to its active content"
                    );
                }
                return;
            }
            Ok(text) => text,
            Err(error) => return self.reject(&error, metrics, is_forced),
        };
        // Read once more below; if it is changing, the next look finds it different from `active`.
        match (self.resolve)().and_then(|config| upstream.replace(config)) {
            Ok(()) => {
                (self.active, self.rejected) = (text, None);
                metrics.reloaded(self.what, true);
                tracing::info!(
                    file = %self.path.display(),
                    server = %upstream.authority(),
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
            file = %self.path.display(),
            "kubeconfig not reloaded, the last good one stays active: {}",
            reason.replace('\n', " | ")
        );
        self.rejected = Some(reason);
    }
}
