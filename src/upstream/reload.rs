//! Reloads kubeconfigs, so that credentials that kubeadm, k3s or Rancher renew in them are used
//! without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_client::ApiClient;
use tokio::sync::watch;
use watched_files::file_watch::FileWatcher;
use watched_files::regular_file;
use watched_files::reload::{Outcome, Reload, Reloader};

use super::forward::Upstream;
use super::{ConfigError, UpstreamConfig};
use crate::file_watch::{ReloadMetrics, Reloaded};

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
    files: FileWatcher,
    resolve: Resolve,
    active: Contents,
}

/// The contents of the files; `None` for files that do not exist.
type Contents = Vec<Option<Vec<u8>>>;

impl KubeconfigFile {
    /// Remembers the current contents of the files as those of the active settings, so create it
    /// before reading them.
    pub fn new(what: Reloaded, paths: &[PathBuf], resolve: Resolve) -> KubeconfigFile {
        let files = FileWatcher::new(paths.to_vec());
        let active = contents(&files);
        KubeconfigFile { what, files, resolve, active }
    }

    /// Watches the file for `target` until the sender of `forced` is dropped: polls it every
    /// `interval`, and immediately when `forced` receives a value (SIGHUP). The target watches the
    /// files that the kubeconfig refers to; `forced` reloads these as well.
    pub async fn follow(
        self,
        target: impl ReloadTarget,
        metrics: Arc<ReloadMetrics>,
        forced: watch::Receiver<()>,
        interval: Duration,
    ) {
        let KubeconfigFile { what, files, resolve, active } = self;
        let names: Vec<_> = files.paths().iter().map(|path| path.display().to_string()).collect();
        let reload = KubeconfigReload { what, name: names.join(", "), resolve, target, metrics };
        Reloader::new(files, active, reload).follow(forced, interval).await;
    }
}

/// Replaces the settings of a target when its kubeconfig has changed.
struct KubeconfigReload<T> {
    what: Reloaded,
    /// The paths, for log lines.
    name: String,
    resolve: Resolve,
    target: T,
    metrics: Arc<ReloadMetrics>,
}

impl<T: ReloadTarget> Reload for KubeconfigReload<T> {
    type Content = Contents;
    type Error = ConfigError;

    fn read(&mut self, files: &FileWatcher) -> Result<Contents, ConfigError> {
        Ok(contents(files))
    }

    /// Reads the files a second time; if they change meanwhile, the next poll finds them different
    /// from `content`.
    fn apply(&mut self, _: &Contents, is_changed: bool) -> Result<(), ConfigError> {
        if is_changed {
            self.target.replace((self.resolve)()?)
        } else {
            self.target.refresh();
            Ok(())
        }
    }

    fn report(&mut self, outcome: Outcome<'_, ConfigError>) {
        let file = self.name.as_str();
        match outcome {
            Outcome::Reloaded { is_changed } => {
                self.metrics.reloaded(self.what, true);
                if is_changed {
                    tracing::info!(file, server = %self.target.authority(), "kubeconfig reloaded");
                }
            }
            Outcome::Rejected(error) => {
                self.metrics.reloaded(self.what, false);
                tracing::error!(
                    file,
                    "kubeconfig not reloaded, the current one stays active: {}",
                    error.to_string().replace('\n', " | ")
                );
            }
            Outcome::Restored => {
                tracing::info!(file, "the kubeconfig is back to its active content");
            }
            Outcome::InMotion => {}
        }
    }
}

fn contents(files: &FileWatcher) -> Contents {
    files.paths().iter().map(|path| regular_file::read(path).ok()).collect()
}
