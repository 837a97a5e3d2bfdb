//! Caches the results of authenticating bearer tokens, both users and invalid tokens.
//!
//! Tokens themselves are not stored. They, and those of `--token-auth-file`, are looked up by an
//! HMAC with a random key of this process. So neither the timing of lookups nor a dump of the
//! memory reveals a token, not even a short one that could be guessed from a plain hash.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api_client::ttl_cache::{TtlCache, WhenFull};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{constant_time, hmac};

use super::User;
use crate::AuthenticationMetrics;

/// Maximum number of cached valid tokens; many more than a cluster has users at a time.
const VALID: usize = 16_384;
/// Maximum number of cached invalid tokens, about 5 MiB.
const INVALID: usize = 65_536;
/// Number of separately locked parts of a table.
const SHARDS: usize = 16;

/// The user of a token, and the annotations for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUser {
    /// The user.
    pub user: Arc<User>,
    /// Annotations for events, sorted by key; usually none.
    pub annotations: Option<Arc<[(&'static str, String)]>>,
}

impl From<Arc<User>> for TokenUser {
    fn from(user: Arc<User>) -> TokenUser {
        TokenUser { user, annotations: None }
    }
}

/// Identifies a token. Compared in constant time.
#[derive(Debug, Clone, Copy, Eq)]
pub struct TokenId([u8; 32]);

impl std::hash::Hash for TokenId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl PartialEq for TokenId {
    fn eq(&self, other: &TokenId) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// The number of times that the cache was cleared. A result that was determined in one generation
/// is not cached in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// Caches tokens for a limited time. Invalid tokens never evict valid ones.
pub struct TokenCache {
    key: hmac::Key,
    metrics: Arc<AuthenticationMetrics>,
    generation: AtomicU64,
    users: Table<TokenUser>,
    invalid: Table<()>,
}

impl TokenCache {
    /// Creates an empty cache with a random key.
    pub fn with_random_key(metrics: Arc<AuthenticationMetrics>) -> TokenCache {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the system has random numbers");
        TokenCache {
            key,
            metrics,
            generation: AtomicU64::new(0),
            users: Table::new(VALID),
            invalid: Table::new(INVALID),
        }
    }

    /// Returns the current generation. Must be called before a token is verified.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::SeqCst))
    }

    /// Returns the key of `token` in the cache.
    pub fn id(&self, token: &[u8]) -> TokenId {
        let tag = hmac::sign(&self.key, token);
        TokenId(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    /// Returns the user of a valid token, if it is cached and not expired.
    pub fn user(&self, id: &TokenId) -> Option<TokenUser> {
        let user = self.users.get(id, Instant::now());
        let metrics = &self.metrics;
        if user.is_some() { &metrics.cache_hits } else { &metrics.cache_misses }.inc();
        user
    }

    /// Returns whether the token is or was valid, even if its cache entry has expired, as long as
    /// the entry was not evicted.
    pub fn was_valid(&self, id: &TokenId) -> bool {
        self.users.shard(id).contains_expired(id)
    }

    /// Returns the metrics of token authentication.
    pub fn metrics(&self) -> &AuthenticationMetrics {
        &self.metrics
    }

    /// Returns whether the token is known to be invalid.
    pub fn is_invalid(&self, id: &TokenId) -> bool {
        self.invalid.get(id, Instant::now()).is_some()
    }

    /// Caches the user of a valid token, unless the result is of an earlier generation.
    pub fn insert_user(&self, since: Generation, id: TokenId, user: TokenUser, time: Duration) {
        self.users.insert(id, user, Instant::now(), time, || self.generation() == since);
    }

    /// Caches that a token is invalid, unless the result is of an earlier generation.
    pub fn insert_invalid(&self, since: Generation, id: TokenId, time: Duration) {
        self.invalid.insert(id, (), Instant::now(), time, || self.generation() == since);
    }

    /// Clears the cache, because keys or issuers have changed.
    pub fn clear(&self) {
        // Incremented first, so that results of the earlier generation are either cleared or not
        // inserted.
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.users.clear();
        self.invalid.clear();
    }
}

/// A bounded map whose entries expire, in parts that are locked separately.
struct Table<T> {
    shards: [Mutex<TtlCache<TokenId, T>>; SHARDS],
}

impl<T: Clone> Table<T> {
    fn new(capacity: usize) -> Table<T> {
        let shard = |_| Mutex::new(TtlCache::new(capacity / SHARDS, WhenFull::EvictHalf));
        Table { shards: std::array::from_fn(shard) }
    }

    fn shard(&self, id: &TokenId) -> MutexGuard<'_, TtlCache<TokenId, T>> {
        let shard = &self.shards[usize::from(id.0[0]) % SHARDS];
        shard.lock().expect("nothing panics while holding the lock")
    }

    fn get(&self, id: &TokenId, now: Instant) -> Option<T> {
        self.shard(id).get(id, now).cloned()
    }

    /// Inserts `value` for a limited time, unless `counts`, which is called with the shard locked,
    /// returns `false`.
    fn insert(
        &self,
        id: TokenId,
        value: T,
        now: Instant,
        time: Duration,
        counts: impl FnOnce() -> bool,
    ) {
        let mut shard = self.shard(&id);
        if counts() {
            shard.insert(id, value, time, now);
        }
    }

    fn clear(&self) {
        for shard in &self.shards {
            shard.lock().expect("nothing panics while holding the lock").clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UserInfo;

    const TIME: Duration = Duration::from_secs(10);

    #[test]
    fn tokens_are_known_by_no_hash_that_others_could_make() {
        let (one, other) = (
            TokenCache::with_random_key(Arc::default()),
            TokenCache::with_random_key(Arc::default()),
        );
        assert_eq!(one.id(b"token"), one.id(b"token"));
        assert_ne!(one.id(b"token"), one.id(b"token2"));
        assert_ne!(one.id(b"token"), other.id(b"token"));
    }

    #[test]
    fn entries_end_and_are_forgotten_on_demand() {
        let table = Table::new(1000);
        let (id, now) = (TokenId([7; 32]), Instant::now());
        table.insert(id, 1, now, TIME, || true);
        assert_eq!(table.get(&id, now), Some(1));
        assert_eq!(table.get(&id, now + TIME - Duration::from_nanos(1)), Some(1));
        assert_eq!(table.get(&id, now + TIME), None);
        table.insert(id, 2, now, Duration::ZERO, || true);
        assert_eq!(table.get(&id, now), Some(1), "an entry with a lifetime of zero is not cached");
        table.clear();
        assert_eq!(table.get(&id, now), None);
    }

    #[test]
    fn results_from_before_a_clear_are_not_cached() {
        let cache = TokenCache::with_random_key(Arc::default());
        let (id, before) = (cache.id(b"token"), cache.generation());
        cache.clear();
        cache.insert_user(before, id, Arc::new(User::from(UserInfo::anonymous())).into(), TIME);
        cache.insert_invalid(before, id, TIME);
        assert!(cache.user(&id).is_none() && !cache.is_invalid(&id));
        cache.insert_invalid(cache.generation(), id, TIME);
        assert!(cache.is_invalid(&id));
    }

    #[test]
    fn a_flood_of_invalid_tokens_uses_bounded_memory_and_evicts_no_user() {
        let cache = TokenCache::with_random_key(Arc::default());
        let alice = cache.id(b"alice");
        let now = cache.generation();
        cache.insert_user(now, alice, Arc::new(User::from(UserInfo::anonymous())).into(), TIME);
        for number in 0..200_000_u32 {
            cache.insert_invalid(now, cache.id(&number.to_le_bytes()), TIME);
        }
        let known: usize = cache.invalid.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!((INVALID / 4..=INVALID).contains(&known), "{known}");
        assert!(cache.is_invalid(&cache.id(&199_999_u32.to_le_bytes())), "the last is there");
        assert!(cache.user(&alice).is_some());
        assert_eq!((cache.metrics.cache_hits.get(), cache.metrics.cache_misses.get()), (1, 0));
    }

    #[test]
    fn that_a_token_was_valid_is_cached_longer() {
        let cache = TokenCache::with_random_key(Arc::default());
        let (alice, bob) = (cache.id(b"alice"), cache.id(b"bob"));
        let (now, user) = (cache.generation(), Arc::new(User::from(UserInfo::anonymous())));
        cache.insert_user(now, alice, user.into(), Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(1));
        assert!(cache.user(&alice).is_none() && cache.was_valid(&alice));
        assert!(!cache.was_valid(&bob));
    }
}
