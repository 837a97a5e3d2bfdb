//! Caches reviews that are in flight or were allowed recently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_client::ttl_cache::{TtlCache, WhenFull};
use tokio::sync::watch;

use super::Outcome;
use super::decision::Decision;
use crate::impersonation::Key;

/// Maximum number of cached reviews, and of reviews in flight; each takes about 200 bytes.
const CAPACITY: usize = 10_000;

/// Reviews by user and attributes.
pub(super) struct Cache {
    ttl: Duration,
    reviews: Mutex<Reviews>,
}

struct Reviews {
    allowed: TtlCache<Key, Arc<Decision>>,
    pending: HashMap<Key, watch::Receiver<Option<Outcome>>>,
}

/// The cached state of a review.
pub(super) enum Lookup {
    Known(Arc<Decision>),
    /// In flight.
    Pending(watch::Receiver<Option<Outcome>>),
    /// Not in the cache: the caller must send it.
    New(NewEntry),
    /// Not in the cache, and too many are in flight.
    Full,
}

/// A review that the caller must send.
pub(super) struct NewEntry {
    key: Key,
    sender: watch::Sender<Option<Outcome>>,
}

impl NewEntry {
    pub(super) fn receiver(&self) -> watch::Receiver<Option<Outcome>> {
        self.sender.subscribe()
    }
}

impl Cache {
    pub(super) fn new(ttl: Duration) -> Cache {
        let allowed = TtlCache::new(CAPACITY, WhenFull::EvictHalf);
        Cache { ttl, reviews: Mutex::new(Reviews { allowed, pending: HashMap::new() }) }
    }

    fn reviews(&self) -> MutexGuard<'_, Reviews> {
        self.reviews.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look_up(&self, key: Key) -> Lookup {
        let mut reviews = self.reviews();
        if let Some(decision) = reviews.allowed.get(&key, Instant::now()) {
            return Lookup::Known(Arc::clone(decision));
        }
        let pending = &mut reviews.pending;
        match pending.get(&key) {
            // Otherwise its task has been dropped.
            Some(receiver) if receiver.has_changed().is_ok() => {
                return Lookup::Pending(receiver.clone());
            }
            _ => {}
        }
        if pending.len() >= CAPACITY {
            return Lookup::Full;
        }
        let (sender, receiver) = watch::channel(None);
        pending.insert(key, receiver);
        Lookup::New(NewEntry { key, sender })
    }

    /// Stores an allowed review, and passes the outcome to all requests that wait for it.
    pub(super) fn finish(&self, entry: NewEntry, outcome: Outcome, is_cacheable: bool) {
        let NewEntry { key, sender } = entry;
        let mut reviews = self.reviews();
        reviews.pending.remove(&key);
        if let Ok(decision) = &outcome
            && decision.allowed
            && is_cacheable
        {
            reviews.allowed.insert(key, Arc::clone(decision), self.ttl, Instant::now());
        }
        drop(reviews);
        sender.send_replace(Some(outcome));
    }
}
