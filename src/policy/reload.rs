//! Watches and reloads the policy file.
//!
//! A file that cannot be read or is invalid is rejected; the current policy stays active.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::time::sleep;

use super::active::ActivePolicy;
use super::extension::{Extension, parse_with_extension};
use super::load::{self, LoadError};
use super::metrics::PolicyMetrics;
use super::{Changed, Diagnostic, Difference, Loaded, Policy, PolicySpec, records_nothing};
use crate::file_watch::FileWatcher;
use crate::file_watch::{ReloadMetrics, Reloaded};

/// Maximum number of steps, of a tenth of the interval each, to wait for a file that is being
/// written. A file that changes constantly is thus read at least every one and a half intervals.
const SETTLE_STEPS: u32 = 5;
/// Maximum number of attempts to read a valid policy from a file that is being written, and the
/// wait between two attempts.
const MOTION_ATTEMPTS: u32 = 5;
const MOTION_PAUSE: Duration = Duration::from_millis(7);

/// The active policy; clones share it.
#[derive(Debug, Clone)]
pub struct PolicyHandle(Arc<InForce>);

#[derive(Debug)]
struct InForce {
    policy: ArcSwap<ActivePolicy>,
    path: PathBuf,
    /// The names of the backends that use it.
    backends: Vec<String>,
}

impl PolicyHandle {
    /// Creates a handle to a policy that does not come from a file: generation 1.
    pub fn new(policy: Policy) -> PolicyHandle {
        let loaded = Loaded { policy, spec: PolicySpec::default(), warnings: Vec::new() };
        PolicyHandle::of_file(PathBuf::new(), (loaded, None), Vec::new())
    }

    fn of_file(
        path: PathBuf,
        (loaded, extension): (Loaded, Option<Arc<Extension>>),
        backends: Vec<String>,
    ) -> PolicyHandle {
        let policy = ActivePolicy::new(loaded, extension, &path, backends.len(), 1);
        let policy = ArcSwap::from_pointee(policy);
        PolicyHandle(Arc::new(InForce { policy, path, backends }))
    }

    /// Returns a handle to the same policy with counts for these backends.
    fn for_backends(&self, backends: Vec<String>) -> PolicyHandle {
        let current = self.current();
        let (spec, extension) = (current.spec.clone(), current.extension.clone());
        let loaded = Loaded { policy: Policy::new(&spec), spec, warnings: Vec::new() };
        PolicyHandle::of_file(self.0.path.clone(), (loaded, extension), backends)
    }

    /// Returns the active policy, to be kept for as long as needed.
    pub fn current(&self) -> Arc<ActivePolicy> {
        self.0.policy.load_full()
    }

    /// Returns the active policy for one evaluation: without a reference count, and not to be held
    /// across an `await`.
    pub fn borrow(&self) -> Guard<Arc<ActivePolicy>> {
        self.0.policy.load()
    }

    /// Returns the path of the policy's file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the names of the backends that use it, by their number in [`Usage`](super::Usage).
    pub fn backends(&self) -> &[String] {
        &self.0.backends
    }

    /// Returns the number of a backend in [`Usage`](super::Usage).
    pub fn backend(&self, name: &str) -> usize {
        self.0.backends.iter().position(|known| known == name).unwrap_or_default()
    }

    /// Returns whether both handles are of the same file.
    pub fn is_same(&self, other: &PolicyHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the number of policies that were active since the start, including this one.
    pub fn generation(&self) -> u64 {
        self.borrow().generation
    }

    /// Activates another policy, from the next evaluation on, and returns its generation. Only the
    /// task that watches the file calls this.
    pub fn replace(&self, loaded: Loaded, extension: Option<Extension>) -> u64 {
        let generation = self.generation() + 1;
        let backends = self.0.backends.len();
        let extension = extension.map(Arc::new);
        let policy = ActivePolicy::new(loaded, extension, &self.0.path, backends, generation);
        self.0.policy.store(Arc::new(policy));
        generation
    }
}

/// A policy file that is watched.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    files: FileWatcher,
    handle: PolicyHandle,
    /// The metrics of the backends that use the policy.
    sinks: Vec<PolicyMetrics>,
    /// The content that the active policy was read from.
    in_force: Vec<u8>,
    /// The current errors of the file, so that they are logged once.
    refused: Option<Refused>,
    /// Whether to read the file at the next poll even if it seems unchanged: an invalid file may
    /// have been half written, and a second change can have the same timestamp as the first one.
    again: bool,
    /// Whether the file was being written when it was last read.
    is_in_motion: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Content(Vec<u8>),
    Unreadable(String),
}

impl PolicyFile {
    /// Loads the policy at start. The second value has the warnings.
    ///
    /// # Errors
    /// Returns an error if there is no valid policy in the file.
    pub fn open(path: &Path) -> Result<(PolicyFile, Vec<Diagnostic>), LoadError> {
        let files = FileWatcher::new(vec![path.to_owned()]);
        let in_force = load::read(path)?;
        let source = path.display().to_string();
        let (mut loaded, extension) = parse_with_extension(&in_force, &source)?;
        let warnings = std::mem::take(&mut loaded.warnings);
        warn_of_nothing(path, &loaded);
        let file = PolicyFile {
            path: path.to_owned(),
            files,
            handle: PolicyHandle::of_file(
                path.to_owned(),
                (loaded, extension.map(Arc::new)),
                Vec::new(),
            ),
            sinks: Vec::new(),
            in_force,
            refused: None,
            again: true,
            is_in_motion: false,
        };
        Ok((file, warnings))
    }

    /// Sets the metrics of the backends that use the policy.
    #[must_use]
    pub fn of_sinks(self, sinks: Vec<PolicyMetrics>) -> PolicyFile {
        let names = sinks.iter().map(|sink| sink.backend.clone()).collect();
        let handle = self.handle.for_backends(names);
        let file = PolicyFile { sinks, handle, ..self };
        file.tell_generation(file.handle.generation());
        file
    }

    fn tell_generation(&self, generation: u64) {
        for sink in &self.sinks {
            sink.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        }
    }

    /// Returns a handle to the active policy, which follows reloads.
    pub fn handle(&self) -> PolicyHandle {
        self.handle.clone()
    }

    /// Watches the file indefinitely: polls it every `interval` (usually
    /// [`POLL_INTERVAL`](crate::file_watch::POLL_INTERVAL)), and reads it immediately when
    /// `forced` receives a value (SIGHUP).
    pub async fn watch(
        self,
        metrics: Arc<ReloadMetrics>,
        forced: watch::Receiver<()>,
        interval: Duration,
    ) {
        Followed(Some(self)).watch(metrics, forced, interval).await;
    }

    /// Reports once that the file changes constantly, until it no longer does.
    fn note_motion(&mut self, is_in_motion: bool) {
        if is_in_motion && !self.is_in_motion {
            tracing::warn!(
                file = %self.path.display(),
                "the audit policy file changes continuously; its current content is loaded every 2 s; \
                 rename a complete file over it instead of writing it in place"
            );
        }
        self.is_in_motion = is_in_motion;
    }

    /// Reads the file if necessary, and activates its policy if it is valid. With `lenient`,
    /// returns `false` and changes nothing if it is invalid, or changed while it was read.
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
                tracing::info!(file = source, "the audit policy file has the active policy again");
            }
            return true;
        }
        match parse_with_extension(&content, &source) {
            Ok((mut loaded, extension)) => {
                let changed = content != self.in_force;
                let warnings = std::mem::take(&mut loaded.warnings);
                warn_of_nothing(&self.path, &loaded);
                let before = self.handle.current();
                let difference = Difference::between(&before.spec, &loaded.spec);
                let (rules, rules_before) = (loaded.spec.rules.len(), before.spec.rules.len());
                drop(before);
                let generation = self.handle.replace(loaded, extension);
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
                    rules_added = list(&difference.added),
                    rules_removed = list(&difference.removed),
                    rules_changed = list(&difference.changed),
                    settings_changed = difference.settings,
                    "audit policy reloaded"
                );
            }
            Err(_) if lenient => {
                self.again = true;
                return false;
            }
            Err(error) => self.refuse(Refused::Content(content), &error, forced, metrics),
        }
        true
    }

    /// Logs the errors of the file once; repeats them if a reload was requested.
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
                "audit policy not reloaded, the current one stays active: {error}"
            );
        } else {
            let problems = error.to_string();
            let count = problems.lines().count();
            tracing::error!(
                generation,
                problems = count,
                "audit policy not reloaded, the current one stays active: {}",
                problems.replace('\n', " | ")
            );
        }
        self.refused = Some(refused);
    }
}

/// Maximum number of rules in a log line.
const LISTED: usize = 20;

/// Formats a list like `0 None at 4:3, 2 Metadata -> None at 9:3`.
fn list(rules: &[Changed]) -> String {
    let shown = rules.iter().take(LISTED).map(ToString::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if rules.len() > LISTED {
        text.push_str(&format!(", and {} more", rules.len() - LISTED));
    }
    text
}

fn warn_of_nothing(path: &Path, loaded: &Loaded) {
    if records_nothing(&loaded.spec, &loaded.policy) {
        tracing::warn!(
            file = %path.display(),
            "this audit policy records nothing: every rule that a request can match has level None or \
             omits all stages"
        );
    }
}

/// A policy file that is watched; `None` while another thread reads it.
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
                // Give a process that writes in place time to finish.
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

    /// Runs `look` on a thread that may block: a file system that hangs blocks this file only.
    /// Returns `None` if it panicked, which has been logged.
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
mod tests;
