//! Caches allowed impersonations.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api_client::ttl_cache::{TtlCache, WhenFull};
use aws_lc_rs::digest::{Context, SHA256};
use k8s_audit::authorizer::RequestAttributes;

use super::mode::Mode;
use kube_authn::UserInfo;

/// How long an allowed impersonation is cached, like in kube-apiserver; denials never are.
const CACHE_TTL: Duration = Duration::from_secs(10);
/// Maximum number of cached permissions; each takes about 100 bytes.
const CAPACITY: usize = 10_000;
/// Maximum number of callers whose last mode is cached, like in kube-apiserver.
const CALLERS: usize = 10_000;

/// The hash of an authorization's inputs. It has a fixed size.
pub(crate) type Key = [u8; 32];

/// Returns a key for everything that an authorization depends on; without `request`, for the part
/// that all requests share.
pub(super) fn key(
    mode: Mode,
    requester: &UserInfo,
    requested: &UserInfo,
    request: Option<&RequestAttributes>,
) -> Key {
    let mut hash = Hash(Context::new(&SHA256));
    hash.text(mode.verb());
    hash.user(requester);
    hash.user(requested);
    hash.texts(&request.map(RequestAttributes::parts).unwrap_or_default());
    hash.key()
}

/// Returns a key for everything that the authorization of a request by `user` depends on.
pub(crate) fn key_of_request(user: &UserInfo, request: &RequestAttributes) -> Key {
    let mut hash = Hash(Context::new(&SHA256));
    hash.user(user);
    hash.texts(&request.parts());
    hash.key()
}

/// Hashes texts together with their lengths, so that different lists have different hashes.
struct Hash(Context);

impl Hash {
    fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn texts<T: AsRef<str>>(&mut self, texts: &[T]) {
        self.0.update(&(texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| self.text(text.as_ref()));
    }

    fn user(&mut self, user: &UserInfo) {
        self.text(&user.username);
        self.text(&user.uid);
        self.texts(&user.groups);
        self.0.update(&(user.extra.len() as u64).to_le_bytes());
        for (key, values) in &user.extra {
            self.text(key);
            self.texts(values);
        }
    }

    fn key(self) -> Key {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Recently allowed impersonations.
pub(super) struct Allowed(Mutex<TtlCache<Key, ()>>);

impl Default for Allowed {
    fn default() -> Allowed {
        Allowed(Mutex::new(TtlCache::new(CAPACITY, WhenFull::Refuse)))
    }
}

impl Allowed {
    /// Returns whether the impersonation was allowed recently.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.lock().get(key, Instant::now()).is_some()
    }

    /// Stores an allowed impersonation, if the table is not full.
    pub(super) fn insert(&self, key: Key) {
        self.lock().insert(key, (), CACHE_TTL, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, TtlCache<Key, ()>> {
        self.0.lock().expect("nothing panics while holding the lock")
    }
}

/// The mode that each caller used last. The least recently used entries are evicted first.
#[derive(Default)]
pub(super) struct LastModes(Mutex<Lru>);

#[derive(Default)]
struct Lru {
    modes: HashMap<Key, (Mode, u64)>,
    /// Callers in the order of their last use.
    turns: BTreeMap<u64, Key>,
    turn: u64,
}

impl LastModes {
    /// Returns the mode that `username` used last.
    pub(super) fn of(&self, username: &str) -> Option<Mode> {
        let mut lru = self.0.lock().expect("nothing panics while holding the lock");
        let key = caller(username);
        let (mode, _) = *lru.modes.get(&key)?;
        lru.put(key, mode);
        Some(mode)
    }

    /// Stores the mode that `username` used.
    pub(super) fn set(&self, username: &str, mode: Mode) {
        let mut lru = self.0.lock().expect("nothing panics while holding the lock");
        lru.put(caller(username), mode);
    }
}

impl Lru {
    fn put(&mut self, key: Key, mode: Mode) {
        self.turn += 1;
        self.turns.insert(self.turn, key);
        if let Some((_, before)) = self.modes.insert(key, (mode, self.turn)) {
            self.turns.remove(&before);
        }
        if self.modes.len() > CALLERS
            && let Some((_, oldest)) = self.turns.pop_first()
        {
            self.modes.remove(&oldest);
        }
    }
}

fn caller(username: &str) -> Key {
    let mut hash = Hash(Context::new(&SHA256));
    hash.text(username);
    hash.key()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(groups: &[&str], extra: &[(&str, &[&str])]) -> UserInfo {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        UserInfo {
            username: "u".into(),
            groups: texts(groups),
            extra: extra.iter().map(|(key, values)| ((*key).to_owned(), texts(values))).collect(),
            ..UserInfo::default()
        }
    }

    #[test]
    fn keys_differ_where_anything_does() {
        let users = [
            user(&[], &[]),
            user(&["a"], &[]),
            user(&["a", ""], &[]),
            user(&["ab"], &[]),
            user(&["a", "b"], &[]),
            user(&[], &[("a", &["b"])]),
            user(&[], &[("a", &[]), ("b", &[])]),
            user(&[], &[("a", &["b", "c"])]),
            user(&[], &[("a", &["b"]), ("c", &[])]),
        ];
        let mut keys = std::collections::HashSet::new();
        for a in &users {
            for b in &users {
                assert!(keys.insert(key(Mode::UserInfo, a, b, None)), "{a:?} {b:?}");
                assert!(keys.insert(key(Mode::Legacy, a, b, None)), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn the_caller_longest_silent_is_forgotten_first() {
        let last = LastModes::default();
        for number in 0..CALLERS {
            last.set(&number.to_string(), Mode::Legacy);
        }
        assert_eq!(last.of("0"), Some(Mode::Legacy), "activity of again");
        last.set("one more", Mode::UserInfo);
        assert_eq!(last.of("1"), None);
        assert_eq!(last.of("0"), Some(Mode::Legacy));
        assert_eq!(last.of("one more"), Some(Mode::UserInfo));
        let lru = last.0.lock().unwrap();
        assert_eq!((lru.modes.len(), lru.turns.len()), (CALLERS, CALLERS));
    }

    #[test]
    fn what_is_allowed_is_bounded() {
        let allowed = Allowed::default();
        for number in 0..CAPACITY + 1 {
            allowed.insert(caller(&number.to_string()));
        }
        assert!(allowed.contains(&caller("0")));
        assert!(!allowed.contains(&caller(&CAPACITY.to_string())), "there was no room");
        assert_eq!(allowed.0.lock().unwrap().len(), CAPACITY);
    }
}
