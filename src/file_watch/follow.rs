//! Files whose owner reads them itself when they have changed.

use std::fmt::Display;
use std::sync::Arc;

use watched_files::file_watch::{FileWatcher, Stamps};
use watched_files::reload::{Outcome, Reload, Reloader};

use super::{ReloadMetrics, Reloaded};

/// Files that a function reads when they have changed. Reloads are logged and counted as those of
/// `what`.
pub(crate) struct SelfReading<F, G> {
    pub what: Reloaded,
    pub metrics: Arc<ReloadMetrics>,
    /// Reads the files. If it fails, everything must be as it was.
    pub reload: F,
    /// Counts a success or a failure in further metrics.
    pub count: G,
}

impl<E, F, G> SelfReading<F, G>
where
    E: Display + Send + 'static,
    F: Fn() -> Result<(), E> + Send + 'static,
    G: Fn(bool) + Send + 'static,
{
    /// Reloads the files of `watcher`.
    pub(crate) fn reloader(self, watcher: FileWatcher) -> Reloader<SelfReading<F, G>> {
        let active = watcher.known().clone();
        Reloader::new(watcher, active, self)
    }

    fn count(&self, succeeded: bool) {
        self.metrics.reloaded(self.what, succeeded);
        (self.count)(succeeded);
    }
}

impl<E, F, G> Reload for SelfReading<F, G>
where
    E: Display + Send + 'static,
    F: Fn() -> Result<(), E> + Send + 'static,
    G: Fn(bool) + Send + 'static,
{
    type Content = Stamps;
    type Error = E;

    fn read(&mut self, files: &FileWatcher) -> Result<Stamps, E> {
        Ok(files.stamps())
    }

    fn apply(&mut self, _: &Stamps, _: bool) -> Result<(), E> {
        (self.reload)()
    }

    fn report(&mut self, outcome: Outcome<'_, E>) {
        let what = self.what;
        match outcome {
            Outcome::Reloaded { .. } => {
                self.count(true);
                tracing::info!(?what, "reloaded");
            }
            Outcome::Rejected(error) => {
                self.count(false);
                let error = error.to_string().replace('\n', " | ");
                tracing::error!(?what, %error, "not reloaded, the previous content stays active");
            }
            Outcome::Restored | Outcome::InMotion => {}
        }
    }
}
