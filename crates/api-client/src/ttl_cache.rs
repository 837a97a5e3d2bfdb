//! A bounded map whose entries expire.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What happens to a new entry when a [`TtlCache`] is full of entries that have not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is not inserted, so that a flood of new entries evicts no old one.
    Refuse,
    /// It is inserted, and an arbitrary half of the others is evicted. A flood of new entries thus
    /// goes through the map once for every half of its capacity, and not for every entry.
    EvictHalf,
}

/// A map whose entries expire, each after a time of its own, and that has at most `capacity`
/// entries. Expired entries use memory until the map is full.
#[derive(Debug)]
pub struct TtlCache<K, V> {
    /// Values with the time at which they expire.
    entries: HashMap<K, (V, Instant)>,
    capacity: usize,
    when_full: WhenFull,
}

impl<K: Hash + Eq, V> TtlCache<K, V> {
    /// Creates an empty map, without allocating.
    pub fn new(capacity: usize, when_full: WhenFull) -> TtlCache<K, V> {
        TtlCache { entries: HashMap::new(), capacity, when_full }
    }

    /// Returns the value of `key`, unless it has expired.
    pub fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value)
    }

    /// Returns whether there is an entry for `key`, even an expired one.
    pub fn contains_expired(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Returns the number of entries, including expired ones.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Inserts a value that expires `ttl` after `now`; does nothing if `ttl` is zero, or if the map
    /// is full and refuses entries.
    pub fn insert(&mut self, key: K, value: V, ttl: Duration, now: Instant) {
        let Some(until) = now.checked_add(ttl).filter(|until| *until > now) else { return };
        if self.entries.len() >= self.capacity {
            self.entries.retain(|_, (_, until)| *until > now);
            match self.when_full {
                WhenFull::Refuse if self.entries.len() >= self.capacity => return,
                WhenFull::Refuse => {}
                WhenFull::EvictHalf => self.keep_at_most(self.capacity / 2),
            }
        }
        self.entries.insert(key, (value, until));
    }

    fn keep_at_most(&mut self, count: usize) {
        let mut left = count;
        self.entries.retain(|_, _| {
            let stays = left > 0;
            left = left.saturating_sub(1);
            stays
        });
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn entries_expire_each_at_its_own_time() {
        let (mut cache, now) = (TtlCache::new(10, WhenFull::Refuse), Instant::now());
        cache.insert("a", 1, TTL, now);
        cache.insert("b", 2, TTL * 2, now);
        assert_eq!(cache.get(&"a", now + TTL - Duration::from_nanos(1)), Some(&1));
        assert_eq!((cache.get(&"a", now + TTL), cache.get(&"b", now + TTL)), (None, Some(&2)));
        assert!(cache.contains_expired(&"a") && !cache.contains_expired(&"c"));
        cache.insert("a", 3, TTL, now + TTL);
        assert_eq!(cache.get(&"a", now + TTL), Some(&3));
        cache.insert("b", 4, Duration::ZERO, now);
        assert_eq!(cache.get(&"b", now), Some(&2), "an entry without a lifetime is not inserted");
        cache.clear();
        assert!(cache.is_empty());
    }

    #[test]
    fn a_full_map_refuses_entries_until_others_have_expired() {
        let (mut cache, now) = (TtlCache::new(2, WhenFull::Refuse), Instant::now());
        cache.insert(1, (), TTL, now);
        cache.insert(2, (), TTL * 2, now);
        cache.insert(3, (), TTL, now);
        assert!(cache.get(&1, now).is_some() && cache.get(&3, now).is_none());
        let later = now + TTL;
        cache.insert(3, (), TTL, later);
        assert!(cache.get(&2, later).is_some() && cache.get(&3, later).is_some());
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn a_full_map_evicts_expired_entries_and_then_half() {
        let (mut cache, now) = (TtlCache::new(100, WhenFull::EvictHalf), Instant::now());
        (0..100).for_each(|key| cache.insert(key, (), TTL, now));
        cache.insert(100, (), TTL, now);
        assert_eq!(cache.len(), 51);
        assert!(cache.get(&100, now).is_some(), "the new one is there");
        let later = now + TTL;
        (200..249).for_each(|key| cache.insert(key, (), TTL, later));
        cache.insert(300, (), TTL, later);
        assert_eq!(cache.len(), 50, "only the expired entries are evicted");
        assert!((200..249).all(|key| cache.get(&key, later).is_some()));
    }
}
