//! Credential plugins: programs that return a token or a client certificate
//! (`users[].user.exec`, client.authentication.k8s.io/v1 and v1beta1).
//!
//! One task runs the plugin: at the start, ahead of the credential's expiry, when a request finds
//! the credential expired, and when the API server rejected it. Requests use the last credential
//! without waiting as long as it is valid. A plugin that fails is run again after a growing delay;
//! its last credential is used until it expires.

mod plugin;
mod protocol;
mod redact;
mod run;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use plugin::{ApiVersion, ExecPlugin};
use protocol::ReturnedCredential;
use run::Run;

use crate::backoff::ExponentialBackoff;
use crate::token_bucket::TokenBucket;

/// A credential is renewed when a fifth of its lifetime is left, at most this long before its
/// expiry.
const MAX_LEAD: Duration = Duration::from_secs(300);
/// The shortest time between two successful runs. A plugin whose credentials are always expired
/// already must not run in a loop.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// Delays after failed runs.
const BACKOFF: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_millis(500), 2.0, Duration::from_secs(30));
/// Runs because a credential was rejected: so many at once, and then one each interval. Whoever can
/// have the API server respond 401 must not have the plugin run all the time.
const REJECTED_BURST: u32 = 10;
const REJECTED_INTERVAL: Duration = Duration::from_millis(500);
/// The longest sleep. The wall clock, which decides about expiry, may jump meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Added to the plugin's timeout: the time after which a waiting request gives up.
const WAIT_MARGIN: Duration = Duration::from_secs(2);

/// The credentials that a plugin returns, kept valid.
pub struct ExecCredentials {
    plugin: ExecPlugin,
    /// The credential of requests.
    current: ArcSwapOption<Issued>,
    /// The credential of new connections. Replaced before `current`, so that a request that finds a
    /// new credential also finds connections with its certificate.
    latest: ArcSwapOption<Issued>,
    state: watch::Sender<State>,
    demand: Mutex<CredentialDemand>,
    wake: Arc<Notify>,
    is_started: AtomicBool,
    observers: Mutex<Vec<Observer>>,
}

/// Is called when another certificate is used for new connections; returns `false` if it no longer
/// has to be.
type Observer = Box<dyn Fn() -> bool + Send + Sync>;

/// A credential as the plugin returned it.
struct Issued {
    /// Counts from 1.
    generation: u64,
    header: Option<HeaderValue>,
    certificate: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    expires: Option<SystemTime>,
    renew_at: Option<SystemTime>,
}

impl Issued {
    fn new(generation: u64, returned: ReturnedCredential, now: SystemTime) -> Issued {
        let ReturnedCredential { header, certificate, expires } = returned;
        let renew_at = expires.map(|expires| {
            let lifetime = expires.duration_since(now).unwrap_or_default();
            let pause = lifetime - (lifetime / 5).min(MAX_LEAD);
            now + pause.max(MIN_PAUSE)
        });
        Issued { generation, header, certificate, expires, renew_at }
    }

    fn is_valid(&self) -> bool {
        self.expires.is_none_or(|expires| SystemTime::now() < expires)
    }

    fn own(&self) -> OwnCredential {
        OwnCredential { header: self.header.clone(), generation: Some(self.generation) }
    }
}

/// The credential that a request is sent with.
#[derive(Debug, Clone, Default)]
pub struct OwnCredential {
    /// `Authorization`; `None` if the client certificate is the credential.
    pub header: Option<HeaderValue>,
    /// Identifies the credential if it can be renewed after it was rejected.
    pub generation: Option<u64>,
}

/// The plugin has returned no credential that is still valid.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the credential plugin returned no valid credential: {0}")]
pub struct CredentialError(Arc<str>);

#[derive(Clone, Default)]
struct State {
    /// Completed runs.
    runs: u64,
    /// The last run failed.
    failure: Option<Failure>,
}

#[derive(Clone)]
struct Failure {
    error: CredentialError,
    retry_at: Instant,
}

/// Requests to the task.
struct CredentialDemand {
    /// The generation that was last rejected.
    rejected: u64,
    runs_left: TokenBucket,
}

impl fmt::Debug for ExecCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExecCredentials").field(&self.plugin).finish()
    }
}

impl ExecCredentials {
    /// Creates the credentials without running the plugin yet.
    pub fn new(plugin: ExecPlugin) -> Arc<ExecCredentials> {
        let runs_left = TokenBucket::new(REJECTED_BURST, REJECTED_INTERVAL);
        Arc::new(ExecCredentials {
            plugin,
            current: ArcSwapOption::empty(),
            latest: ArcSwapOption::empty(),
            state: watch::Sender::default(),
            demand: Mutex::new(CredentialDemand { rejected: 0, runs_left }),
            wake: Arc::default(),
            is_started: AtomicBool::new(false),
            observers: Mutex::default(),
        })
    }

    /// Starts the task that runs the plugin, once. It ends when the credentials are dropped. Must
    /// be called within a tokio runtime.
    pub fn start(self: &Arc<Self>) {
        if !self.is_started.swap(true, Ordering::Relaxed) {
            tokio::spawn(keep_valid(Arc::downgrade(self), Arc::clone(&self.wake)));
        }
    }

    /// Returns whether `other` runs the same program in the same way.
    pub fn is_same_plugin(&self, other: &ExecCredentials) -> bool {
        self.plugin == other.plugin
    }

    /// Has `observer` called whenever new connections have to be made with another certificate,
    /// before requests use the new credential. It is removed when it returns `false`.
    pub fn observe(&self, observer: impl Fn() -> bool + Send + Sync + 'static) {
        lock(&self.observers).push(Box::new(observer));
    }

    /// Returns the client certificate and key for new connections, PEM.
    pub fn certificate(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let latest = self.latest.load();
        let (certificate, key) = latest.as_ref()?.certificate.as_ref()?;
        Some((certificate.clone(), key.to_vec()))
    }

    /// Returns the plugin.
    pub fn plugin(&self) -> &ExecPlugin {
        &self.plugin
    }

    /// Returns the field of the plugin, for error messages about its certificate.
    pub fn field(&self) -> &str {
        &self.plugin.field
    }

    /// Returns the credential if it is valid now.
    pub fn current(&self) -> Option<OwnCredential> {
        let current = self.current.load();
        current.as_ref().filter(|issued| issued.is_valid()).map(|issued| issued.own())
    }

    /// Returns a valid credential; waits for the plugin if there is none.
    ///
    /// # Errors
    /// If the plugin fails or has just failed.
    pub async fn valid(&self) -> Result<OwnCredential, CredentialError> {
        match self.current() {
            Some(credential) => Ok(credential),
            None => self.newer_than(0).await,
        }
    }

    /// Returns a credential other than the one of `generation`, which the server rejected.
    ///
    /// # Errors
    /// If the plugin fails, or too many credentials have been rejected recently.
    pub async fn renewed(&self, generation: u64) -> Result<OwnCredential, CredentialError> {
        {
            let mut demand = lock(&self.demand);
            let is_current = |issued: &Arc<Issued>| issued.generation == generation;
            let is_newest = self.current.load().as_ref().is_some_and(is_current);
            if is_newest && demand.rejected < generation {
                if !demand.runs_left.try_take() {
                    return Err(CredentialError("its credentials are rejected repeatedly".into()));
                }
                demand.rejected = generation;
            }
        }
        self.newer_than(generation).await
    }

    /// Reports why there is no valid credential.
    ///
    /// # Errors
    /// Returns the last failure of the plugin.
    pub fn check(&self) -> Result<(), CredentialError> {
        if self.current().is_some() {
            return Ok(());
        }
        match &self.state.borrow().failure {
            Some(failure) => Err(failure.error.clone()),
            None => Err(CredentialError("it is still running".into())),
        }
    }

    async fn newer_than(&self, generation: u64) -> Result<OwnCredential, CredentialError> {
        let mut state = self.state.subscribe();
        let runs = state.borrow_and_update().runs;
        let deadline = Instant::now() + self.plugin.timeout + WAIT_MARGIN;
        loop {
            let (is_new_run, failure) = {
                let state = state.borrow_and_update();
                (state.runs > runs, state.failure.clone())
            };
            // A credential that was returned for this request is used even if it is already
            // expired: the server decides, since its clock may differ.
            if let Some(issued) = &*self.current.load()
                && issued.generation > generation
                && (is_new_run || issued.is_valid())
            {
                return Ok(issued.own());
            }
            if let Some(failure) = failure
                && (is_new_run || failure.retry_at > Instant::now())
            {
                return Err(failure.error);
            }
            self.wake.notify_one();
            match tokio::time::timeout_at(deadline, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(CredentialError("it did not finish in time".into()));
                }
            }
        }
    }

    /// Returns whether the plugin has to run now; otherwise how long to wait.
    fn is_due(&self) -> Result<(), Duration> {
        let current = self.current.load();
        let Some(issued) = current.as_ref() else { return Ok(()) };
        if lock(&self.demand).rejected >= issued.generation {
            return Ok(());
        }
        let Some(renew_at) = issued.renew_at else { return Err(MAX_SLEEP) };
        match renew_at.duration_since(SystemTime::now()) {
            Ok(left) if !left.is_zero() => Err(left.min(MAX_SLEEP)),
            _ => Ok(()),
        }
    }

    /// Publishes the result of a run. Returns whether it succeeded.
    fn finish(&self, run: Run, backoff: &mut ExponentialBackoff) -> bool {
        let command = self.plugin.command.display();
        for message in &run.messages {
            tracing::info!(plugin = %command, "credential plugin: {message}");
        }
        let failure = match run.result {
            Ok(returned) => {
                self.publish(returned);
                backoff.reset();
                None
            }
            Err(reason) => {
                let retry_in = backoff.next_delay();
                let last = self.current.load();
                let is_valid = last.as_ref().is_some_and(|issued| issued.is_valid());
                tracing::warn!(
                    plugin = %command,
                    ?retry_in,
                    "credential plugin failed{}: {}",
                    if is_valid { ", its last credential is used until it expires" } else { "" },
                    reason
                );
                let last_line = run.messages.last().map(|line| format!(" ({line})"));
                let reason =
                    format!("{}: {reason}{}", self.plugin.field, last_line.unwrap_or_default());
                let error = CredentialError(reason.into());
                Some(Failure { error, retry_at: Instant::now() + retry_in })
            }
        };
        let succeeded = failure.is_none();
        self.state.send_modify(|state| {
            state.runs += 1;
            state.failure = failure;
        });
        succeeded
    }

    fn publish(&self, returned: ReturnedCredential) {
        let previous = self.latest.load_full();
        let generation = previous.as_ref().map_or(1, |issued| issued.generation + 1);
        let issued = Arc::new(Issued::new(generation, returned, SystemTime::now()));
        let expires = issued.expires.and_then(|time| Timestamp::try_from(time).ok());
        let expires = expires.map_or("never".to_owned(), |time| time.to_string());
        let (plugin, token) = (self.plugin.command.display(), issued.header.is_some());
        let certificate = issued.certificate.is_some();
        match generation {
            1 => {
                tracing::info!(%plugin, token, certificate, expires, "credential plugin returned a credential")
            }
            _ => tracing::debug!(%plugin, token, certificate, expires, "credential renewed"),
        }
        let old_certificate = previous.as_ref().and_then(|issued| issued.certificate.as_ref());
        let is_other_certificate = issued.certificate.as_ref() != old_certificate;
        self.latest.store(Some(Arc::clone(&issued)));
        if is_other_certificate {
            lock(&self.observers).retain(|observer| observer());
        }
        self.current.store(Some(issued));
    }
}

impl Drop for ExecCredentials {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the plugin whenever a credential is needed, until the credentials are dropped.
async fn keep_valid(credentials: Weak<ExecCredentials>, wake: Arc<Notify>) {
    let mut backoff = BACKOFF;
    loop {
        let Some(running) = credentials.upgrade() else { return };
        let pause = match running.is_due() {
            Err(pause) => Some(pause),
            Ok(()) => {
                let finished = tokio::task::spawn_blocking(move || {
                    let succeeded = running.finish(run::run(&running.plugin), &mut backoff);
                    let retry_at = running.state.borrow().failure.as_ref().map(|f| f.retry_at);
                    (succeeded, retry_at, backoff)
                });
                // A panic has been logged.
                let Ok((succeeded, retry_at, after)) = finished.await else { return };
                backoff = after;
                match retry_at {
                    // Nothing makes a failing plugin run earlier.
                    Some(retry_at) => tokio::time::sleep_until(retry_at).await,
                    None if succeeded => tokio::time::sleep(MIN_PAUSE).await,
                    None => {}
                }
                None
            }
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => {}
            }
        }
    }
}
