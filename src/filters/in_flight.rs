//! Limits the requests in flight like kube-apiserver's `WithMaxInFlightLimit`, and shares them
//! fairly among users.
//!
//! There is one limit for mutating requests and one for all others; long-running requests do not
//! count. As long as slots are free, every request gets one. If all are in use, members of
//! `system:masters` are admitted without a slot, like in kube-apiserver; any other request waits or
//! is rejected with 429:
//!
//! - A user's share is the limit divided by the number of users that have slots or wait for one,
//!   but at least 1.
//! - If a user has and waits for fewer slots than its share, its request waits for up to one
//!   second, the time that `Retry-After` would tell the client to wait. A slot that becomes free
//!   goes to the request that has waited longest.
//! - All other requests are rejected immediately.
//!
//! So a single user can use the whole limit, and a user that floods the proxy cannot keep others
//! below their share: its new requests are rejected while theirs wait. Slots in use are never
//! revoked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::metrics::{FilterMetrics, InFlightMetrics};
use kube_authn::UserInfo;

/// The group whose requests are never rejected.
const MASTERS: &str = "system:masters";
/// How long a request waits for a slot: the time in `Retry-After`.
const PATIENCE: Duration = Duration::from_secs(1);

/// The limits for read-only and for mutating requests.
pub struct InFlightLimits {
    read_only: Option<Arc<Limit>>,
    mutating: Option<Arc<Limit>>,
}

/// Too many requests are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are in flight")]
pub struct TooManyRequests;

/// The slot of a request; empty for a request that was admitted without one. Dropping it frees the
/// slot.
#[derive(Default)]
pub struct Permit {
    _slot: Option<Slot>,
}

struct Slot {
    limit: Arc<Limit>,
    user: Arc<str>,
}

struct Limit {
    most: usize,
    state: Mutex<State>,
    metrics: InFlightMetrics,
}

#[derive(Default)]
struct State {
    taken: usize,
    /// Users that have slots or wait for one.
    users: HashMap<Arc<str>, Load>,
    waiting: VecDeque<Waiter>,
    next_waiter: u64,
}

/// The slots of a user, and its requests that wait for one.
#[derive(Default)]
struct Load {
    taken: usize,
    waiting: usize,
}

struct Waiter {
    number: u64,
    user: Arc<str>,
    sender: oneshot::Sender<Permit>,
}

/// A request in the queue. Dropping it removes it from the queue.
struct Waiting {
    limit: Arc<Limit>,
    number: u64,
    receiver: oneshot::Receiver<Permit>,
}

enum Attempt {
    Admitted(Permit),
    Queued(Waiting),
    Rejected,
}

impl InFlightLimits {
    /// Creates the limits; 0 means unlimited. `None` if both are 0.
    pub fn new(
        read_only: usize,
        mutating: usize,
        metrics: &FilterMetrics,
    ) -> Option<InFlightLimits> {
        let limit = |most, metrics: &InFlightMetrics| {
            (most > 0).then(|| Arc::new(Limit::new(most, metrics.clone())))
        };
        let limits = InFlightLimits {
            read_only: limit(read_only, &metrics.read_only),
            mutating: limit(mutating, &metrics.mutating),
        };
        (limits.read_only.is_some() || limits.mutating.is_some()).then_some(limits)
    }

    /// Waits for the permit of a request with this verb. `user` is the effective user.
    ///
    /// # Errors
    /// The limit is reached.
    pub async fn acquire(&self, verb: &str, user: &UserInfo) -> Result<Permit, TooManyRequests> {
        let limit = match verb {
            "get" | "list" | "watch" => &self.read_only,
            _ => &self.mutating,
        };
        let Some(limit) = limit else { return Ok(Permit::default()) };
        let rejected = || {
            limit.metrics.rejected.inc();
            Err(TooManyRequests)
        };
        match limit.attempt(user) {
            Attempt::Admitted(permit) => Ok(permit),
            Attempt::Rejected => rejected(),
            Attempt::Queued(mut waiting) => {
                match tokio::time::timeout(PATIENCE, &mut waiting.receiver).await {
                    Ok(Ok(permit)) => Ok(permit),
                    Ok(Err(_)) | Err(_) => rejected(),
                }
            }
        }
    }
}

impl Limit {
    fn new(most: usize, metrics: InFlightMetrics) -> Limit {
        Limit { most, state: Mutex::default(), metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(self: &Arc<Self>, user: &UserInfo) -> Attempt {
        let mut state = self.lock();
        let name = user.username.as_str();
        if state.taken < self.most {
            let name = state.name(name);
            state.take(&name);
            self.metrics.current.set(state.taken as i64);
            return Attempt::Admitted(self.permit(name));
        }
        if user.groups.iter().any(|group| group == MASTERS) {
            return Attempt::Admitted(Permit::default());
        }
        let load = state.users.get(name);
        let users = state.users.len() + usize::from(load.is_none());
        let share = (self.most / users).max(1);
        let has = load.map_or(0, |load| load.taken + load.waiting);
        // This also bounds the queue if there are more users than slots.
        if has >= share || state.waiting.len() >= self.most {
            return Attempt::Rejected;
        }
        let name = state.name(name);
        state.users.entry(Arc::clone(&name)).or_default().waiting += 1;
        let number = state.next_waiter;
        state.next_waiter += 1;
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(Waiter { number, user: name, sender });
        self.metrics.waiting.set(state.waiting.len() as i64);
        Attempt::Queued(Waiting { limit: Arc::clone(self), number, receiver })
    }

    fn permit(self: &Arc<Self>, user: Arc<str>) -> Permit {
        Permit { _slot: Some(Slot { limit: Arc::clone(self), user }) }
    }

    /// Frees a slot of `user`, and gives it to the request that has waited longest.
    fn release(self: &Arc<Self>, user: &Arc<str>) {
        let next = {
            let mut state = self.lock();
            state.give_back(user);
            let next = state.waiting.pop_front();
            if let Some(waiter) = &next {
                state.users.entry(Arc::clone(&waiter.user)).or_default().waiting -= 1;
                state.take(&waiter.user);
            }
            self.metrics.current.set(state.taken as i64);
            self.metrics.waiting.set(state.waiting.len() as i64);
            next
        };
        if let Some(Waiter { user, sender, .. }) = next {
            // If the request has been dropped, the permit is dropped here, and the next request
            // gets the slot.
            drop(sender.send(self.permit(user)));
        }
    }
}

impl State {
    /// Returns the name in the form in which the map shares it.
    fn name(&self, name: &str) -> Arc<str> {
        self.users.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Arc::clone(name))
    }

    fn take(&mut self, user: &Arc<str>) {
        self.taken += 1;
        self.users.entry(Arc::clone(user)).or_default().taken += 1;
    }

    fn give_back(&mut self, user: &Arc<str>) {
        self.taken -= 1;
        if let Some(load) = self.users.get_mut(user) {
            load.taken -= 1;
        }
        self.forget(user);
    }

    /// Removes a user without slots and waiting requests.
    fn forget(&mut self, user: &Arc<str>) {
        if self.users.get(user).is_some_and(|load| load.taken + load.waiting == 0) {
            self.users.remove(user);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.limit.release(&self.user);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.limit.lock();
        let place = state.waiting.iter().position(|waiter| waiter.number == self.number);
        // If it is no longer in the queue, it got a permit. An unused permit is dropped with the
        // receiver.
        let Some(waiter) = place.and_then(|place| state.waiting.remove(place)) else { return };
        if let Some(load) = state.users.get_mut(&waiter.user) {
            load.waiting -= 1;
        }
        state.forget(&waiter.user);
        self.limit.metrics.waiting.set(state.waiting.len() as i64);
    }
}
