//! Watches files and reloads them when they change.

use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::file_watch::{FileWatcher, POLL_INTERVAL};
use crate::file_watch::{ReloadMetrics, Reloaded};

/// Calls `reload` whenever the files of `watcher` change, and on each `force`; counts and logs the
/// result as that of `what`. A failed `reload` must leave everything as it was. Ends when the
/// sender of `force` is dropped.
pub(crate) async fn follow<E: Display + Send + 'static>(
    what: Reloaded,
    watcher: FileWatcher,
    mut force: watch::Receiver<()>,
    metrics: Arc<ReloadMetrics>,
    reload: impl Fn() -> Result<(), E> + Send + 'static,
) {
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut files = Some((watcher, reload));
    while let Some((mut watcher, reload)) = files.take() {
        let forced = tokio::select! {
            _ = poll.tick() => false,
            forced = force.changed() => match forced {
                Ok(()) => true,
                Err(_) => return,
            },
        };
        // A file system that hangs blocks this file only, and not the threads that accept
        // connections and serve `/livez`.
        let looked = tokio::task::spawn_blocking(move || {
            let due = watcher.changed() || forced;
            let result = due.then(&reload);
            ((watcher, reload), result)
        });
        // The panic has been logged.
        let Ok((back, result)) = looked.await else { return };
        files = Some(back);
        let Some(result) = result else { continue };
        metrics.reloaded(what, result.is_ok());
        match result {
            Ok(()) => tracing::info!(?what, "reloaded"),
            Err(error) => {
                let error = error.to_string().replace('\n', " | ");
                tracing::error!(?what, %error, "not reloaded, what was loaded before stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::certificates::ServingCertificate;
    use crate::server::test_support::{certificate, leaf_of};
    use test_support::TempDir;

    #[tokio::test]
    async fn changed_files_are_read_and_so_are_unchanged_ones_by_force() {
        let dir = TempDir::new();
        let (old, new) = (certificate("old"), certificate("new"));
        let crt = dir.write("tls.crt", &old.certificate);
        let key = dir.write("tls.key", &old.key);
        let watcher = ServingCertificate::watcher(&crt, &key);
        let serving = Arc::new(ServingCertificate::load(&crt, &key).unwrap());
        dir.write("tls.crt", &new.certificate);
        dir.write("tls.key", &new.key);
        let metrics = Arc::new(ReloadMetrics::default());
        let (force, forced) = watch::channel(());
        let reload = {
            let serving = serving.clone();
            move || serving.reload()
        };
        let what = Reloaded::ServingCertificate;
        let task = tokio::spawn(follow(what, watcher, forced, metrics.clone(), reload));
        reloads(&metrics, true, 1).await;
        assert_eq!(serving.leaf(), leaf_of(&new.certificate));
        force.send_replace(());
        reloads(&metrics, true, 2).await;
        dir.write("tls.key", "");
        force.send_replace(());
        reloads(&metrics, false, 1).await;
        assert_eq!(serving.leaf(), leaf_of(&new.certificate));
        drop(force);
        task.await.unwrap();
    }

    async fn reloads(metrics: &ReloadMetrics, succeeded: bool, count: u64) {
        while metrics.count(Reloaded::ServingCertificate, succeeded) < count {
            tokio::task::yield_now().await;
        }
    }
}
