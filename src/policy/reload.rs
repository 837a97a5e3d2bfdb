//! Following the policy file while the proxy runs.
//!
//! A file that cannot be read or is no valid policy changes nothing: the last good policy stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::time::sleep;

use super::load::{self, LoadError, Loaded};
use super::matcher::Policy;
use crate::document::problem::Problem;
use crate::file_watch::FileWatcher;
use crate::metrics::{Metrics, Reloaded, SinkMetrics};

/// How often, within one poll, a file that is being written is waited for.
const SETTLE_STEPS: u32 = 10;

/// The policy in force; clones share it.
#[derive(Debug, Clone)]
pub struct PolicyHandle(Arc<InForce>);

#[derive(Debug)]
struct InForce {
    policy: ArcSwap<Policy>,
    generation: AtomicU64,
}

impl PolicyHandle {
    /// Puts the first policy in force: generation 1.
    pub fn new(policy: Policy) -> PolicyHandle {
        let policy = ArcSwap::from_pointee(policy);
        PolicyHandle(Arc::new(InForce { policy, generation: AtomicU64::new(1) }))
    }

    /// The policy in force now, to be kept for as long as needed.
    pub fn current(&self) -> Arc<Policy> {
        self.0.policy.load_full()
    }

    /// The policy in force now, for one evaluation: without counting references, and not to be
    /// held across an `await`.
    pub fn borrow(&self) -> Guard<Arc<Policy>> {
        self.0.policy.load()
    }

    /// Whether both are of one file.
    pub fn is_same(&self, other: &PolicyHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many policies have been in force since the start, this one included.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }

    /// Puts another policy in force, from the next evaluation on; gives its generation.
    pub fn replace(&self, policy: Policy) -> u64 {
        self.0.policy.store(Arc::new(policy));
        self.0.generation.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A policy file that is followed.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    files: FileWatcher,
    handle: PolicyHandle,
    /// Those of the sinks that it is the policy of.
    sinks: Vec<Arc<SinkMetrics>>,
    /// What the policy in force was read from.
    in_force: Vec<u8>,
    /// What is known to be wrong with the file now, so that it is told once.
    refused: Option<Refused>,
    /// The file is read again at the next poll, whether or not it seems to have changed: what was
    /// wrong may have been half of a file, and a second change can hide behind the first one's
    /// time stamp.
    again: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Content(Vec<u8>),
    Unreadable(String),
}

impl PolicyFile {
    /// Reads the policy at start. The second value is what was ignored in it.
    ///
    /// # Errors
    /// There is no valid policy in the file.
    pub fn open(path: &Path) -> Result<(PolicyFile, Vec<Problem>), LoadError> {
        let files = FileWatcher::new(vec![path.to_owned()]);
        let in_force = load::read(path)?;
        let Loaded { policy, warnings } = load::parse(&in_force, &path.display().to_string())?;
        let file = PolicyFile {
            path: path.to_owned(),
            files,
            handle: PolicyHandle::new(policy),
            sinks: Vec::new(),
            in_force,
            refused: None,
            again: true,
        };
        Ok((file, warnings))
    }

    /// Says to whose metrics it belongs.
    #[must_use]
    pub fn of_sinks(self, sinks: Vec<Arc<SinkMetrics>>) -> PolicyFile {
        let file = PolicyFile { sinks, ..self };
        file.tell_generation(file.handle.generation());
        file
    }

    fn tell_generation(&self, generation: u64) {
        self.sinks.iter().for_each(|sink| sink.policy_generation.set(generation as i64));
    }

    /// The policy in force, now and after each reload.
    pub fn handle(&self) -> PolicyHandle {
        self.handle.clone()
    }

    /// Follows the file for ever: looks at it each `interval` (usually
    /// [`POLL_INTERVAL`](crate::file_watch::POLL_INTERVAL)), and reads it at once when `forced`
    /// gets a value (SIGHUP).
    pub async fn watch(
        self,
        metrics: Arc<Metrics>,
        forced: watch::Receiver<()>,
        interval: Duration,
    ) {
        Followed(Some(self)).watch(metrics, forced, interval).await;
    }

    /// Reads the file if it is due, and puts what is in it in force if that is a valid policy.
    fn look(&mut self, changed: bool, forced: bool, metrics: &Metrics) {
        if !(changed || forced || self.again) {
            return;
        }
        self.again = changed;
        let source = self.path.display().to_string();
        let content = match load::read(&self.path) {
            Ok(content) => content,
            Err(error) => {
                self.refuse(Refused::Unreadable(error.to_string()), &error, forced, metrics);
                return;
            }
        };
        if content == self.in_force && !forced {
            if self.refused.take().is_some() {
                tracing::info!(file = source, "the audit policy in force is back in its file");
            }
            return;
        }
        match load::parse(&content, &source) {
            Ok(Loaded { policy, warnings }) => {
                let (rules, rules_before) =
                    (policy.rule_count(), self.handle.borrow().rule_count());
                let changed = content != self.in_force;
                let generation = self.handle.replace(policy);
                (self.in_force, self.refused) = (content, None);
                metrics.reloaded(Reloaded::Policy, true);
                self.tell_generation(generation);
                for warning in warnings {
                    tracing::warn!("audit policy: {warning}");
                }
                tracing::info!(
                    file = source,
                    generation,
                    rules,
                    rules_before,
                    changed,
                    "audit policy reloaded"
                );
            }
            Err(error) => self.refuse(Refused::Content(content), &error, forced, metrics),
        }
    }

    /// Tells once what is wrong with the file; if it was asked for, again.
    fn refuse(&mut self, refused: Refused, error: &LoadError, forced: bool, metrics: &Metrics) {
        self.again = true;
        if self.refused.as_ref() == Some(&refused) && !forced {
            return;
        }
        metrics.reloaded(Reloaded::Policy, false);
        self.sinks.iter().for_each(|sink| sink.policy_failures.increment());
        let generation = self.handle.generation();
        if let Refused::Unreadable(_) = refused {
            tracing::warn!(
                generation,
                "audit policy not reloaded, the last good one stays: {error}"
            );
        } else {
            let problems = error.to_string();
            let count = problems.lines().count();
            tracing::error!(
                generation,
                problems = count,
                "audit policy not reloaded, the last good one stays; {}",
                problems.replace('\n', " | ")
            );
        }
        self.refused = Some(refused);
    }
}

/// A policy file that is followed; `None` while another thread looks at it.
struct Followed(Option<PolicyFile>);

impl Followed {
    async fn watch(
        mut self,
        metrics: Arc<Metrics>,
        mut forced: watch::Receiver<()>,
        interval: Duration,
    ) {
        let mut can_be_forced = true;
        loop {
            let is_forced = tokio::select! {
                () = sleep(interval) => false,
                result = forced.changed(), if can_be_forced => {
                    can_be_forced = result.is_ok();
                    can_be_forced
                }
            };
            let Some(changed) = self.beside(|file| file.files.changed()).await else { return };
            let mut settling = changed;
            for _ in 0..SETTLE_STEPS {
                if !settling {
                    break;
                }
                // Whoever writes in place is left the time to finish.
                sleep(interval / SETTLE_STEPS).await;
                let Some(changed) = self.beside(|file| file.files.changed()).await else { return };
                settling = changed;
            }
            let metrics = metrics.clone();
            let look = move |file: &mut PolicyFile| file.look(changed, is_forced, &metrics);
            if self.beside(look).await.is_none() {
                return;
            }
        }
    }

    /// Runs `look` on a thread that may block: a file system that hangs holds up this file only. Returns
    /// `None` if it panicked, which has been logged.
    async fn beside<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&mut PolicyFile) -> T + Send + 'static,
    ) -> Option<T> {
        let mut file = self.0.take()?;
        let looked = tokio::task::spawn_blocking(move || {
            let result = look(&mut file);
            (file, result)
        });
        let (file, result) = looked.await.ok()?;
        self.0 = Some(file);
        Some(result)
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
