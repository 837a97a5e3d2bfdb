//! The policy file, which is reloaded when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use watched_files::file_watch::FileWatcher;
use watched_files::reload::{Outcome, Reload, Reloader};

use super::active::ActivePolicy;
use super::extension::{Extension, parse_with_extension};
use super::load::{self, LoadError};
use super::metrics::PolicyMetrics;
use super::{Changed, Diagnostic, Difference, Loaded, Policy, PolicySpec, records_nothing};
use crate::file_watch::{ReloadMetrics, Reloaded};

/// The active policy; clones share it.
#[derive(Debug, Clone)]
pub struct PolicyHandle(Arc<PolicyState>);

#[derive(Debug)]
struct PolicyState {
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
        PolicyHandle(Arc::new(PolicyState { policy, path, backends }))
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
    active: Vec<u8>,
}

impl PolicyFile {
    /// Loads the policy at start. The second value has the warnings.
    ///
    /// # Errors
    /// Returns an error if there is no valid policy in the file.
    pub fn open(path: &Path) -> Result<(PolicyFile, Vec<Diagnostic>), LoadError> {
        let files = FileWatcher::new(vec![path.to_owned()]);
        let active = load::read(path)?;
        let source = path.display().to_string();
        let (mut loaded, extension) = parse_with_extension(&active, &source)?;
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
            active,
        };
        Ok((file, warnings))
    }

    /// Sets the metrics of the backends that use the policy.
    #[must_use]
    pub fn of_sinks(self, sinks: Vec<PolicyMetrics>) -> PolicyFile {
        let names = sinks.iter().map(|sink| sink.backend.clone()).collect();
        let handle = self.handle.for_backends(names);
        set_generation(&sinks, handle.generation());
        PolicyFile { sinks, handle, ..self }
    }

    /// Returns a handle to the active policy, which follows reloads.
    pub fn handle(&self) -> PolicyHandle {
        self.handle.clone()
    }

    /// Watches the file until the sender of `forced` is dropped: polls it every `interval` (usually
    /// [`POLL_INTERVAL`](crate::file_watch::POLL_INTERVAL)), and reads it immediately when `forced`
    /// receives a value (SIGHUP).
    pub async fn watch(
        self,
        metrics: Arc<ReloadMetrics>,
        forced: watch::Receiver<()>,
        interval: Duration,
    ) {
        self.reloader(metrics).follow(forced, interval).await;
    }

    fn reloader(self, metrics: Arc<ReloadMetrics>) -> Reloader<PolicyReload> {
        let PolicyFile { path, files, handle, sinks, active } = self;
        Reloader::new(files, active, PolicyReload { path, handle, sinks, metrics })
    }
}

/// Activates the policy of a file that has changed.
#[derive(Debug)]
struct PolicyReload {
    path: PathBuf,
    handle: PolicyHandle,
    sinks: Vec<PolicyMetrics>,
    metrics: Arc<ReloadMetrics>,
}

impl Reload for PolicyReload {
    type Content = Vec<u8>;
    type Error = LoadError;

    fn read(&mut self, _: &FileWatcher) -> Result<Vec<u8>, LoadError> {
        load::read(&self.path)
    }

    fn apply(&mut self, content: &Vec<u8>, is_changed: bool) -> Result<(), LoadError> {
        let source = self.path.display().to_string();
        let (mut loaded, extension) = parse_with_extension(content, &source)?;
        let warnings = std::mem::take(&mut loaded.warnings);
        warn_of_nothing(&self.path, &loaded);
        let before = self.handle.current();
        let difference = Difference::between(&before.spec, &loaded.spec);
        let (rules, rules_before) = (loaded.spec.rules.len(), before.spec.rules.len());
        drop(before);
        let generation = self.handle.replace(loaded, extension);
        set_generation(&self.sinks, generation);
        for warning in warnings {
            tracing::warn!("audit policy: {warning}");
        }
        tracing::info!(
            file = source,
            generation,
            rules,
            rules_before,
            changed = is_changed,
            rules_added = list(&difference.added),
            rules_removed = list(&difference.removed),
            rules_changed = list(&difference.changed),
            settings_changed = difference.settings,
            "audit policy reloaded"
        );
        Ok(())
    }

    fn report(&mut self, outcome: Outcome<'_, LoadError>) {
        match outcome {
            Outcome::Reloaded { .. } => self.metrics.reloaded(Reloaded::Policy, true),
            Outcome::Rejected(error) => self.report_rejected(error),
            Outcome::Restored => {
                let file = self.path.display().to_string();
                tracing::info!(file, "the audit policy file has the active policy again");
            }
            Outcome::InMotion => tracing::warn!(
                file = %self.path.display(),
                "the audit policy file changes continuously; its current content is loaded every 2 s; \
                 rename a complete file over it instead of writing it in place"
            ),
        }
    }
}

impl PolicyReload {
    fn report_rejected(&self, error: &LoadError) {
        self.metrics.reloaded(Reloaded::Policy, false);
        for sink in &self.sinks {
            sink.reload_failures.inc();
        }
        let generation = self.handle.generation();
        if let LoadError::Invalid(_) = error {
            let problems = error.to_string();
            tracing::error!(
                generation,
                problems = problems.lines().count(),
                "audit policy not reloaded, the current one stays active: {}",
                problems.replace('\n', " | ")
            );
        } else {
            tracing::warn!(
                generation,
                "audit policy not reloaded, the current one stays active: {error}"
            );
        }
    }
}

fn set_generation(sinks: &[PolicyMetrics], generation: u64) {
    for sink in sinks {
        sink.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
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

#[cfg(test)]
mod tests;
