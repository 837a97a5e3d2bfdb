//! Following files: what was read from them is read again when they change.

use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::file_watch::{FileWatcher, POLL_INTERVAL};
use crate::metrics::{Metrics, Reloaded};

/// Calls `reload` whenever the files of `watcher` change, and on each `force`; counts and logs the
/// result as that of `what`. A failed `reload` must leave everything as it was. Ends when the
/// sender of `force` is dropped.
pub async fn follow<E: Display>(
    what: Reloaded,
    mut watcher: FileWatcher,
    mut force: watch::Receiver<()>,
    metrics: Arc<Metrics>,
    reload: impl Fn() -> Result<(), E>,
) {
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = poll.tick() => if !watcher.changed() { continue },
            forced = force.changed() => if forced.is_err() { return },
        }
        let result = reload();
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
    use crate::test_dir::TestDir;

    #[tokio::test]
    async fn changed_files_are_read_and_so_are_unchanged_ones_by_force() {
        let dir = TestDir::new();
        let (old, new) = (certificate("old"), certificate("new"));
        let crt = dir.write("tls.crt", &old.certificate);
        let key = dir.write("tls.key", &old.key);
        let watcher = ServingCertificate::watcher(&crt, &key);
        let serving = Arc::new(ServingCertificate::load(&crt, &key).unwrap());
        dir.write("tls.crt", &new.certificate);
        dir.write("tls.key", &new.key);
        let metrics = Arc::new(Metrics::default());
        let (force, forced) = watch::channel(());
        let reload = {
            let serving = serving.clone();
            move || serving.reload()
        };
        let what = Reloaded::ServingCertificate;
        let task = tokio::spawn(follow(what, watcher, forced, metrics.clone(), reload));
        reloads(&metrics, "success", 1).await;
        assert_eq!(serving.leaf(), leaf_of(&new.certificate));
        force.send_replace(());
        reloads(&metrics, "success", 2).await;
        dir.write("tls.key", "");
        force.send_replace(());
        reloads(&metrics, "failure", 1).await;
        assert_eq!(serving.leaf(), leaf_of(&new.certificate));
        drop(force);
        task.await.unwrap();
    }

    async fn reloads(metrics: &Metrics, result: &str, count: u32) {
        let labels = format!("file=\"serving_certificate\",result=\"{result}\"");
        let line = format!("kube_audit_proxy_reloads_total{{{labels}}} {count}\n");
        while !metrics.render().contains(&line) {
            tokio::task::yield_now().await;
        }
    }
}
