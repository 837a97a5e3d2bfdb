//! Limits of requests in flight, like kube-apiserver's `WithMaxInFlightLimit`, and fair among
//! users.
//!
//! One limit is for requests that change something, one for the others; long-running requests do
//! not count. Below a limit every request gets a slot. When all slots are taken, members of
//! `system:masters` are let through without one, like by kube-apiserver, and for everyone else a
//! request is rejected with 429 or waits:
//!
//! - A user's share is the limit divided by the number of users that have slots or wait for one,
//!   but at least 1.
//! - A request of a user that has, and waits for, fewer slots than its share waits up to one
//!   second, which is what a 429 would tell its client to do. A slot that becomes free goes to the
//!   request that has waited longest.
//! - All others are rejected at once.
//!
//! So a user that is alone can use the whole limit, and one that floods the proxy cannot keep
//! others below their share: its new requests are rejected while theirs wait. Slots in use are
//! never taken away.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::metrics::{FilterMetrics, InFlightMetrics};
use kube_authn::UserInfo;

/// The group that is never rejected.
const MASTERS: &str = "system:masters";
/// How long a request waits for a slot: as long as `Retry-After` would say.
const PATIENCE: Duration = Duration::from_secs(1);

/// The limits for requests that only read, and for those that do not.
pub struct InFlightLimits {
    read_only: Option<Arc<Limit>>,
    mutating: Option<Arc<Limit>>,
}

/// Too many requests are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are in flight")]
pub struct TooManyRequests;

/// The slot of a request, or none for one that is let through without. Freed when it is dropped.
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

/// What a user has.
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

/// A request in the queue; leaves it when dropped.
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
    /// Creates the limits; 0 is no limit. `None` if there is neither.
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

    /// Returns the permit for a request with this verb, as soon as it has one. `user` is the one
    /// that the request is done as.
    ///
    /// # Errors
    /// As many requests as allowed are in flight.
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
        // The queue is bounded also if there are more users than slots.
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
            // If the request is gone, the permit is dropped here and goes to the one after it.
            drop(sender.send(self.permit(user)));
        }
    }
}

impl State {
    /// Returns the name as it is kept for the user.
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

    /// Removes a user that has nothing and waits for nothing.
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
        // If it is not there, it got a permit. Unless that was taken, it is dropped with the
        // receiver.
        let Some(waiter) = place.and_then(|place| state.waiting.remove(place)) else { return };
        if let Some(load) = state.users.get_mut(&waiter.user) {
            load.waiting -= 1;
        }
        state.forget(&waiter.user);
        self.limit.metrics.waiting.set(state.waiting.len() as i64);
    }
}
