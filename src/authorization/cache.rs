//! Caches reviews that are in flight or were allowed recently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Outcome;
use super::decision::Decision;
use crate::impersonation::Key;

/// Maximum number of entries; each takes about 200 bytes.
const CAPACITY: usize = 10_000;

/// Reviews by user and attributes.
pub(super) struct Cache {
    ttl: Duration,
    entries: Mutex<HashMap<Key, Entry>>,
}

enum Entry {
    Allowed(Arc<Decision>, Instant),
    Pending(watch::Receiver<Option<Outcome>>),
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
        Cache { ttl, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look_up(&self, key: Key) -> Lookup {
        let now = Instant::now();
        let mut entries = self.entries();
        match entries.get(&key) {
            Some(Entry::Allowed(decision, until)) if *until > now => {
                return Lookup::Known(Arc::clone(decision));
            }
            // Its task may have been dropped.
            Some(Entry::Pending(receiver)) if receiver.has_changed().is_ok() => {
                return Lookup::Pending(receiver.clone());
            }
            _ => {}
        }
        if entries.len() >= CAPACITY {
            entries.retain(|_, entry| match entry {
                Entry::Allowed(_, until) => *until > now,
                Entry::Pending(_) => true,
            });
        }
        if entries.len() >= CAPACITY {
            entries.retain(|_, entry| matches!(entry, Entry::Pending(_)));
        }
        if entries.len() >= CAPACITY {
            return Lookup::Full;
        }
        let (sender, receiver) = watch::channel(None);
        entries.insert(key, Entry::Pending(receiver));
        Lookup::New(NewEntry { key, sender })
    }

    /// Stores an allowed review, and passes the outcome to all requests that wait for it.
    pub(super) fn finish(&self, entry: NewEntry, outcome: Outcome, is_cacheable: bool) {
        let NewEntry { key, sender } = entry;
        let mut entries = self.entries();
        match &outcome {
            Ok(decision) if decision.allowed && is_cacheable && !self.ttl.is_zero() => {
                let until = Instant::now() + self.ttl;
                entries.insert(key, Entry::Allowed(Arc::clone(decision), until));
            }
            _ => {
                entries.remove(&key);
            }
        }
        drop(entries);
        sender.send_replace(Some(outcome));
    }
}
