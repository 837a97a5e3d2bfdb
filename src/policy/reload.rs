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

use super::load::{self, LoadError};
use super::metrics::PolicyMetrics;
use super::{Diagnostic, Loaded, Policy, parse};
use crate::file_watch::FileWatcher;
use crate::file_watch::{ReloadMetrics, Reloaded};

/// Steps of a tenth of the interval for which a file that is being written is waited for. With the
/// interval itself, a file that never rests is read at latest every one and a half intervals.
const SETTLE_STEPS: u32 = 5;
/// How often a file that does not rest is read until it is valid, and the wait between two attempts.
const MOTION_ATTEMPTS: u32 = 5;
const MOTION_PAUSE: Duration = Duration::from_millis(7);

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
    sinks: Vec<PolicyMetrics>,
    /// What the policy in force was read from.
    in_force: Vec<u8>,
    /// What is known to be wrong with the file now, so that it is told once.
    refused: Option<Refused>,
    /// The file is read again at the next poll, whether or not it seems to have changed: what was
    /// wrong may have been half of a file, and a second change can hide behind the first one's
    /// time stamp.
    again: bool,
    /// It was still being written when it was last read.
    is_in_motion: bool,
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
    pub fn open(path: &Path) -> Result<(PolicyFile, Vec<Diagnostic>), LoadError> {
        let files = FileWatcher::new(vec![path.to_owned()]);
        let in_force = load::read(path)?;
        let Loaded { policy, warnings } = parse(&in_force, &path.display().to_string())?;
        let file = PolicyFile {
            path: path.to_owned(),
            files,
            handle: PolicyHandle::new(policy),
            sinks: Vec::new(),
            in_force,
            refused: None,
            again: true,
            is_in_motion: false,
        };
        Ok((file, warnings))
    }

    /// Says to whose metrics it belongs.
    #[must_use]
    pub fn of_sinks(self, sinks: Vec<PolicyMetrics>) -> PolicyFile {
        let file = PolicyFile { sinks, ..self };
        file.tell_generation(file.handle.generation());
        file
    }

    fn tell_generation(&self, generation: u64) {
        for sink in &self.sinks {
            sink.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        }
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
        metrics: Arc<ReloadMetrics>,
        forced: watch::Receiver<()>,
        interval: Duration,
    ) {
        Followed(Some(self)).watch(metrics, forced, interval).await;
    }

    /// Reports once that the file does not come to rest, until it does.
    fn note_motion(&mut self, is_in_motion: bool) {
        if is_in_motion && !self.is_in_motion {
            tracing::warn!(
                file = %self.path.display(),
                "the audit policy file does not come to rest; it is loaded as it is, at latest every \
                 2 s; rename a complete file over it instead of writing it in place so often"
            );
        }
        self.is_in_motion = is_in_motion;
    }

    /// Reads the file if it is due, and puts what is in it in force if that is a valid policy. With
    /// `lenient`, returns `false` and changes nothing if it is not, or if it was written meanwhile.
    fn look(
        &mut self,
        changed: bool,
        forced: bool,
        lenient: bool,
        metrics: &ReloadMetrics,
    ) -> bool {
        if !(changed || forced || self.again) {
            return true;
        }
        self.again = changed;
        let source = self.path.display().to_string();
        let read = load::read(&self.path);
        if lenient && (read.is_err() || self.files.changed()) {
            self.again = true;
            return false;
        }
        let content = match read {
            Ok(content) => content,
            Err(error) => {
                self.refuse(Refused::Unreadable(error.to_string()), &error, forced, metrics);
                return true;
            }
        };
        if content == self.in_force && !forced {
            if self.refused.take().is_some() {
                tracing::info!(file = source, "the audit policy in force is back in its file");
            }
            return true;
        }
        match parse(&content, &source) {
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
            Err(_) if lenient => {
                self.again = true;
                return false;
            }
            Err(error) => self.refuse(Refused::Content(content), &error.into(), forced, metrics),
        }
        true
    }

    /// Tells once what is wrong with the file; if it was asked for, again.
    fn refuse(
        &mut self,
        refused: Refused,
        error: &LoadError,
        forced: bool,
        metrics: &ReloadMetrics,
    ) {
        self.again = true;
        if self.refused.as_ref() == Some(&refused) && !forced {
            return;
        }
        metrics.reloaded(Reloaded::Policy, false);
        for sink in &self.sinks {
            sink.reload_failures.inc();
        }
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
        metrics: Arc<ReloadMetrics>,
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
                sleep(interval / 10).await;
                let Some(changed) = self.beside(|file| file.files.changed()).await else { return };
                settling = changed;
            }
            let mut attempts = if settling { MOTION_ATTEMPTS } else { 1 };
            loop {
                attempts -= 1;
                let (lenient, metrics) = (attempts > 0, metrics.clone());
                let look = move |file: &mut PolicyFile| {
                    file.note_motion(settling);
                    file.look(changed, is_forced, lenient, &metrics)
                };
                match self.beside(look).await {
                    Some(false) if lenient => sleep(MOTION_PAUSE).await,
                    Some(_) => break,
                    None => return,
                }
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
