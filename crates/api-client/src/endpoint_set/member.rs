//! One address of an API server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::client::MemberClient;
use crate::target::Target;

/// The state of a member, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Health {
    /// Not checked yet.
    Unknown,
    /// `/readyz` returned a status below 500.
    Healthy,
    /// A connection failed, and a check is in progress.
    Suspect,
    /// `/readyz` returned a status of 500 or more: it is starting or shutting down.
    NotReady,
    /// `/readyz` had no response.
    Down,
}

/// A failure of a member. The label `reason` of its counter has one value per variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be opened.
    Connect,
    /// A connection broke while a request waited for its response.
    ConnectionLost,
    /// A health check failed.
    HealthCheck,
}

impl Failure {
    /// All, with their names in metrics.
    pub const ALL: [(Failure, &'static str); 3] = [
        (Failure::Connect, "connect"),
        (Failure::ConnectionLost, "connection_lost"),
        (Failure::HealthCheck, "health_check"),
    ];
}

/// One address of an API server.
pub struct Member {
    target: Arc<Target>,
    /// `None` if the address is found at each connection: before the name is resolved, and where a
    /// proxy resolves it.
    address: Option<SocketAddr>,
    name: Arc<str>,
    health: AtomicU8,
    /// The fault that the last check found.
    reason: Mutex<String>,
    in_flight: AtomicUsize,
    /// Requests without the head of a response.
    awaiting: AtomicUsize,
    /// Heads of responses.
    answered: AtomicUsize,
    failures: [AtomicU64; Failure::ALL.len()],
    started: AtomicBool,
    removed: AtomicBool,
    seen: Mutex<Instant>,
    /// Wakes requests that wait for a response.
    went_down: Notify,
    /// Wakes the task that checks the health.
    pub(super) check_now: Notify,
    pub(crate) client: MemberClient,
}

impl Member {
    pub(super) fn new(
        target: Arc<Target>,
        address: Option<SocketAddr>,
        runtime: &Handle,
    ) -> Member {
        let name = match address {
            Some(address) => address.to_string().into(),
            None => Arc::clone(&target.name),
        };
        let client = MemberClient::new(Arc::clone(&target), address, runtime);
        Member {
            target,
            address,
            name,
            health: AtomicU8::new(Health::Unknown as u8),
            reason: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            awaiting: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            failures: Default::default(),
            started: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            seen: Mutex::new(Instant::now()),
            went_down: Notify::new(),
            check_now: Notify::new(),
            client,
        }
    }

    /// Returns the server that it is an address of.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Returns the address; `None` if it is found at each connection.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Returns the address as text, or host and port of the server.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the result of the last health check, or what has happened since.
    pub fn health(&self) -> Health {
        const ALL: [Health; 5] =
            [Health::Unknown, Health::Healthy, Health::Suspect, Health::NotReady, Health::Down];
        ALL[usize::from(self.health.load(Ordering::Acquire))]
    }

    /// Returns whether requests should be sent to it while others are healthy, too.
    pub fn is_usable(&self) -> bool {
        self.health() <= Health::Healthy
    }

    /// Sorts members: the lower the better.
    pub fn rank(&self) -> (Health, usize) {
        (self.health().max(Health::Healthy), self.in_flight())
    }

    /// Requests without the end of a response, and upgraded connections.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the number of failures of this kind.
    pub fn failures(&self, failure: Failure) -> u64 {
        self.failures[failure as usize].load(Ordering::Relaxed)
    }

    /// Counts a request until the guard is dropped.
    pub fn start_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Counts a request that waits for the head of its response, until the guard is dropped.
    pub fn await_response(&self) -> AwaitingResponse<'_> {
        self.awaiting.fetch_add(1, Ordering::Relaxed);
        AwaitingResponse(self)
    }

    /// Returns what completes when the member goes down from now on.
    pub fn went_down(&self) -> Notified<'_> {
        self.went_down.notified()
    }

    /// Counts a failure that a request met, and has the health checked at once. Until then,
    /// requests prefer other members.
    pub fn failed(&self, failure: Failure) {
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
        if self.is_usable() {
            self.health.store(Health::Suspect as u8, Ordering::Release);
            self.check_now.notify_one();
        }
    }

    /// Checks the health immediately, because the server announced its shutdown.
    pub fn check(&self) {
        self.check_now.notify_one();
    }

    /// Describes the fault, if there is one.
    pub fn fault(&self) -> Option<String> {
        let state = match self.health() {
            Health::Unknown => "has not been checked yet",
            Health::Healthy => return None,
            Health::Suspect => "is being checked",
            Health::NotReady => "is not ready",
            Health::Down => "is down",
        };
        let reason = lock(&self.reason);
        let separator = if reason.is_empty() { "" } else { ": " };
        Some(format!("{} {state}{separator}{reason}", self.name))
    }

    /// Stores the result of a health check; returns whether it came up.
    pub(super) fn checked(&self, health: Health, reason: String) -> bool {
        if health > Health::Healthy {
            self.failures[Failure::HealthCheck as usize].fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.reason).clone_from(&reason);
        let before = Health::max(self.health(), Health::Healthy);
        let was_reported = matches!(before, Health::NotReady | Health::Down);
        self.health.store(health as u8, Ordering::Release);
        match health {
            Health::Down if before != Health::Down => {
                tracing::warn!(endpoint = &*self.name, reason, "API server is down");
                self.went_down.notify_waiters();
            }
            Health::NotReady if before != Health::NotReady => {
                tracing::warn!(endpoint = &*self.name, reason, "API server is not ready");
            }
            Health::Healthy if was_reported => {
                tracing::info!(endpoint = &*self.name, "API server is healthy again");
            }
            _ => {}
        }
        health == Health::Healthy && before != Health::Healthy
    }

    /// Requests that wait for a response, and responses so far.
    pub(super) fn progress(&self) -> (usize, usize) {
        (self.awaiting.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed))
    }

    /// Marks it as watched; returns whether it was not before.
    pub(super) fn start(&self) -> bool {
        !self.started.swap(true, Ordering::Relaxed)
    }

    /// Ends its task.
    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        self.check_now.notify_one();
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    pub(super) fn seen(&self, now: Instant) {
        *lock(&self.seen) = now;
    }

    pub(super) fn unseen_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*lock(&self.seen))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request in flight.
pub struct InFlight(Arc<Member>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits for the head of its response.
pub struct AwaitingResponse<'a>(&'a Member);

impl AwaitingResponse<'_> {
    /// The head has come.
    pub fn answered(self) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for AwaitingResponse<'_> {
    fn drop(&mut self) {
        self.0.awaiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Member").field(&self.name).field(&self.health()).finish()
    }
}
