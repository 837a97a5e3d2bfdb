//! Keys that a server publishes: an OpenID Connect issuer, or the API server for its ServiceAccount
//! tokens.
//!
//! They are fetched in the background. While the server is unavailable the last keys stay active,
//! and the proxy starts without waiting for them.

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use api_client::backoff::ExponentialBackoff;
use api_client::token_bucket::TokenBucket;
use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

/// Delays between attempts until the first keys are known.
const RETRY: ExponentialBackoff =
    ExponentialBackoff::new(Duration::from_secs(1), 2.0, Duration::from_secs(10));
/// Interval between fetches, after which withdrawn keys are no longer accepted.
const FRESH: Duration = Duration::from_secs(600);
/// Interval after which tokens may cause another fetch.
const INTERVAL: Duration = Duration::from_secs(10);

/// A source from which keys are fetched.
pub trait KeySource: Send + Sync + 'static {
    /// The keys.
    type Keys: PartialEq + Send + Sync + 'static;
    /// The error of a failed fetch, for the log.
    type Error: Display + Send;

    /// Fetches the keys.
    fn fetch(&self) -> impl Future<Output = Result<Self::Keys, Self::Error>> + Send;

    /// Logs that the fetched keys differ from the previous ones.
    fn log_changed(&self, keys: &Self::Keys);

    /// Logs that the keys cannot be fetched.
    fn log_failed(&self, error: &Self::Error);
}

/// The keys of one source, which are refreshed regularly.
pub struct RemoteKeySet<S: KeySource> {
    source: S,
    keys: ArcSwapOption<S::Keys>,
    /// Limits the fetches that tokens cause. Locked during a fetch.
    allowance: Mutex<TokenBucket>,
}

impl<S: KeySource> RemoteKeySet<S> {
    /// Starts fetching the keys, and refreshes them until the set is dropped. Tokens with unknown
    /// keys may cause `burst` fetches at once. Must be called within a tokio runtime.
    pub fn start(source: S, burst: u32) -> Arc<RemoteKeySet<S>> {
        let allowance = Mutex::new(TokenBucket::new(burst, INTERVAL));
        let set = Arc::new(RemoteKeySet { source, keys: ArcSwapOption::empty(), allowance });
        tokio::spawn(keep_fresh(Arc::downgrade(&set)));
        set
    }

    /// Returns a set whose keys are never fetched.
    #[cfg(test)]
    pub fn fixed(source: S, keys: S::Keys) -> Arc<RemoteKeySet<S>> {
        let allowance = Mutex::new(TokenBucket::new(0, INTERVAL));
        Arc::new(RemoteKeySet { source, keys: ArcSwapOption::from_pointee(keys), allowance })
    }

    /// Returns the source of the keys.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Returns the current keys; `None` before the first fetch has succeeded.
    pub fn keys(&self) -> Option<Arc<S::Keys>> {
        self.keys.load_full()
    }

    /// Fetches the keys because none of the keys `seen` has signed a token. Does nothing if another
    /// fetch has completed since, or tokens have caused too many fetches.
    pub async fn fetch_for_token(&self, seen: Option<&Arc<S::Keys>>) {
        let mut allowance = self.allowance.lock().await;
        let is_same = match (seen, &*self.keys.load()) {
            (Some(seen), Some(now)) => Arc::ptr_eq(seen, now),
            (seen, now) => seen.is_none() && now.is_none(),
        };
        // Taken before the fetch, so that a dropped request does not allow the next one to fetch at
        // once.
        if is_same && allowance.try_take() {
            self.refresh().await;
        }
    }

    async fn refresh(&self) {
        match self.source.fetch().await {
            Ok(keys) => {
                if self.keys.load().as_ref().is_none_or(|known| **known != keys) {
                    self.source.log_changed(&keys);
                }
                self.keys.store(Some(Arc::new(keys)));
            }
            Err(error) => self.source.log_failed(&error),
        }
    }
}

/// Refreshes the keys until the set is dropped.
async fn keep_fresh<S: KeySource>(set: Weak<RemoteKeySet<S>>) {
    let mut retry = RETRY;
    loop {
        let pause = {
            let Some(set) = set.upgrade() else { return };
            let _under_way = set.allowance.lock().await;
            set.refresh().await;
            if set.keys.load().is_some() { FRESH } else { retry.next_delay() }
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A source that publishes the number of the fetch, and fails a given number of times.
    #[derive(Default)]
    struct Counting {
        failures: u32,
        fetches: AtomicU32,
        failed: AtomicU32,
    }

    impl KeySource for Counting {
        type Keys = u32;
        type Error = String;

        async fn fetch(&self) -> Result<u32, String> {
            tokio::time::sleep(Duration::from_millis(10)).await;
            match self.fetches.fetch_add(1, Ordering::SeqCst) {
                number if number < self.failures => Err("down".to_owned()),
                number => Ok(number),
            }
        }

        fn log_changed(&self, _: &u32) {}

        fn log_failed(&self, _: &String) {
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn first_keys_are_retried_and_then_kept_fresh() {
        let set = RemoteKeySet::start(Counting { failures: 3, ..Counting::default() }, 1);
        assert!(set.keys().is_none());
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(
            (set.keys().as_deref(), set.source().failed.load(Ordering::SeqCst)),
            (Some(&3), 3)
        );
        tokio::time::sleep(FRESH).await;
        assert_eq!(set.keys().as_deref(), Some(&4));
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_share_a_fetch_and_cause_only_so_many() {
        let set = RemoteKeySet::start(Counting::default(), 2);
        tokio::time::sleep(Duration::from_secs(1)).await;
        for expected in [1, 2, 2] {
            let seen = set.keys();
            let waiting = (0..10).map(|_| set.fetch_for_token(seen.as_ref()));
            futures_util::future::join_all(waiting).await;
            assert_eq!(set.keys().as_deref(), Some(&expected));
        }
        tokio::time::sleep(INTERVAL).await;
        let seen = set.keys();
        set.fetch_for_token(seen.as_ref()).await;
        assert_eq!(set.keys().as_deref(), Some(&3));
    }
}
