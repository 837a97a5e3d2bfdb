//! Caches the users of valid bearer tokens, and which tokens are invalid.
//!
//! Tokens themselves are not kept. They, and those of `--token-auth-file`, are looked up by an HMAC
//! under a key that this process made at random, so that the timing of lookups does not give one
//! away, nor does a look into its memory, which short tokens could be guessed from otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api_client::ttl_cache::{TtlCache, WhenFull};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{constant_time, hmac};

use super::User;
use crate::AuthenticationMetrics;

/// Maximum number of cached valid tokens; many more than a cluster has users at a time.
const USERS: usize = 16_384;
/// Maximum number of cached invalid tokens, about 5 MiB.
const NOBODYS: usize = 65_536;
/// Parts of a table that are locked by themselves.
const SHARDS: usize = 16;

/// The user of a token, and the annotations for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUser {
    /// The user.
    pub user: Arc<User>,
    /// Annotations of its events, sorted by key; mostly none.
    pub annotations: Option<Arc<[(&'static str, String)]>>,
}

impl From<Arc<User>> for TokenUser {
    fn from(user: Arc<User>) -> TokenUser {
        TokenUser { user, annotations: None }
    }
}

/// Stands for a token. Compared in constant time.
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

/// The period between two times that the cache is cleared. A result that was determined in one
/// generation is not cached in the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// Caches tokens for a limited time. Invalid tokens never evict valid ones.
pub struct TokenCache {
    key: hmac::Key,
    metrics: Arc<AuthenticationMetrics>,
    generation: AtomicU64,
    users: Table<TokenUser>,
    nobodys: Table<()>,
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
            users: Table::new(USERS),
            nobodys: Table::new(NOBODYS),
        }
    }

    /// To be taken before a token is verified.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::SeqCst))
    }

    /// Returns the key of `token` in the cache.
    pub fn id(&self, token: &[u8]) -> TokenId {
        let tag = hmac::sign(&self.key, token);
        TokenId(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    /// Returns the user whose token it is, if that is known and still counts.
    pub fn user(&self, id: &TokenId) -> Option<TokenUser> {
        let user = self.users.get(id, Instant::now());
        let metrics = &self.metrics;
        if user.is_some() { &metrics.cache_hits } else { &metrics.cache_misses }.inc();
        user
    }

    /// Returns whether it is, or was when last asked about, a user's: as long as there is room to
    /// remember that.
    pub fn was_users(&self, id: &TokenId) -> bool {
        self.users.shard(id).contains_expired(id)
    }

    /// Returns the metrics of token authentication.
    pub fn metrics(&self) -> &AuthenticationMetrics {
        &self.metrics
    }

    /// Returns whether the token is known to be invalid.
    pub fn is_nobodys(&self, id: &TokenId) -> bool {
        self.nobodys.get(id, Instant::now()).is_some()
    }

    /// Remembers a user's token, unless it was verified by what no longer counts.
    pub fn remember_user(&self, since: Generation, id: TokenId, user: TokenUser, time: Duration) {
        self.users.insert(id, user, Instant::now(), time, || self.generation() == since);
    }

    /// Caches that a token is invalid, unless the result is of an earlier generation.
    pub fn remember_nobodys(&self, since: Generation, id: TokenId, time: Duration) {
        self.nobodys.insert(id, (), Instant::now(), time, || self.generation() == since);
    }

    /// Forgets everything, because other keys or issuers count now.
    pub fn clear(&self) {
        // First, so that results of the earlier generation are either cleared or not inserted.
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.users.clear();
        self.nobodys.clear();
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

    /// Caches `value` for `time`, if `counts` returns, with the shard locked, that it still counts.
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
    fn what_was_found_out_before_everything_was_forgotten_is_not_remembered() {
        let cache = TokenCache::with_random_key(Arc::default());
        let (id, before) = (cache.id(b"token"), cache.generation());
        cache.clear();
        cache.remember_user(before, id, Arc::new(User::from(UserInfo::anonymous())).into(), TIME);
        cache.remember_nobodys(before, id, TIME);
        assert!(cache.user(&id).is_none() && !cache.is_nobodys(&id));
        cache.remember_nobodys(cache.generation(), id, TIME);
        assert!(cache.is_nobodys(&id));
    }

    #[test]
    fn a_flood_of_bad_tokens_takes_bounded_memory_and_displaces_no_user() {
        let cache = TokenCache::with_random_key(Arc::default());
        let alice = cache.id(b"alice");
        let now = cache.generation();
        cache.remember_user(now, alice, Arc::new(User::from(UserInfo::anonymous())).into(), TIME);
        for number in 0..200_000_u32 {
            cache.remember_nobodys(now, cache.id(&number.to_le_bytes()), TIME);
        }
        let known: usize = cache.nobodys.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!((NOBODYS / 4..=NOBODYS).contains(&known), "{known}");
        assert!(cache.is_nobodys(&cache.id(&199_999_u32.to_le_bytes())), "the last is there");
        assert!(cache.user(&alice).is_some());
        assert_eq!((cache.metrics.cache_hits.get(), cache.metrics.cache_misses.get()), (1, 0));
    }

    #[test]
    fn that_a_token_was_good_is_remembered_for_longer() {
        let cache = TokenCache::with_random_key(Arc::default());
        let (alice, bob) = (cache.id(b"alice"), cache.id(b"bob"));
        let (now, user) = (cache.generation(), Arc::new(User::from(UserInfo::anonymous())));
        cache.remember_user(now, alice, user.into(), Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(1));
        assert!(cache.user(&alice).is_none() && cache.was_users(&alice));
        assert!(!cache.was_users(&bob));
    }
}
