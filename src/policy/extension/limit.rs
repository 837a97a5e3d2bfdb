//! A rate limit for each user and verb.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Maximum number of user and verb pairs that are limited concurrently. The events of others are
/// written.
const MOST: usize = 10_000;

/// Limits the number of events of a user and verb in a time window.
#[derive(Debug)]
pub(super) struct Limiter {
    events: u64,
    window: Duration,
    windows: Mutex<HashMap<UserAndVerb, Window>>,
}

type UserAndVerb = (Box<[u8]>, Box<[u8]>);

#[derive(Debug)]
struct Window {
    began: Instant,
    began_at: SystemTime,
    events: u64,
    suppressed: u64,
}

/// Events of a user and verb that a rate limit has suppressed in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressed {
    /// The user.
    pub user: Vec<u8>,
    /// The verb.
    pub verb: Vec<u8>,
    /// The number of events.
    pub events: u64,
    /// When the window began.
    pub since: SystemTime,
}

impl Limiter {
    pub(super) fn new(events: u64, window: Duration) -> Limiter {
        Limiter { events, window, windows: Mutex::default() }
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Returns whether an event is written; if not, it is counted as suppressed.
    pub(super) fn admits(&self, user: &[u8], verb: &[u8]) -> bool {
        self.admits_at(user, verb, Instant::now())
    }

    fn admits_at(&self, user: &[u8], verb: &[u8], now: Instant) -> bool {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Box::from(user), Box::from(verb));
        if windows.len() >= MOST && !windows.contains_key(&key) {
            windows.retain(|_, window| window.suppressed > 0 || now - window.began < self.window);
            if windows.len() >= MOST {
                return true;
            }
        }
        let new = || Window { began: now, began_at: SystemTime::now(), events: 0, suppressed: 0 };
        let window = windows.entry(key).or_insert_with(new);
        // A window in which events were suppressed ends when that is reported.
        if now - window.began >= self.window && window.suppressed == 0 {
            *window = new();
        }
        if window.events < self.events {
            window.events += 1;
            return true;
        }
        window.suppressed += 1;
        false
    }

    pub(super) fn take_suppressed(&self, all: bool) -> Vec<Suppressed> {
        self.take_suppressed_at(all, Instant::now())
    }

    fn take_suppressed_at(&self, all: bool, now: Instant) -> Vec<Suppressed> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        windows.retain(|(user, verb), window| {
            let has_ended = all || now - window.began >= self.window;
            if has_ended && window.suppressed > 0 {
                taken.push(Suppressed {
                    user: user.to_vec(),
                    verb: verb.to_vec(),
                    events: window.suppressed,
                    since: window.began_at,
                });
            }
            !has_ended
        });
        taken.sort_by(|one, other| (&one.user, &one.verb).cmp(&(&other.user, &other.verb)));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_and_verb_has_a_limit_of_its_own() {
        let limiter = Limiter::new(2, Duration::from_secs(60));
        let start = Instant::now();
        let admitted = |user: &str, verb: &str, seconds| {
            let now = start + Duration::from_secs(seconds);
            limiter.admits_at(user.as_bytes(), verb.as_bytes(), now)
        };
        assert!(admitted("a", "get", 0) && admitted("a", "get", 10));
        assert!(!admitted("a", "get", 20) && !admitted("a", "get", 59));
        assert!(admitted("a", "list", 20) && admitted("b", "get", 20));
        assert_eq!(limiter.take_suppressed_at(false, start + Duration::from_secs(59)), []);
        // A new window does not begin until the previous one has been reported.
        assert!(!admitted("a", "get", 61));
        let taken = limiter.take_suppressed_at(false, start + Duration::from_secs(61));
        let taken: Vec<_> = taken.iter().map(|s| (&s.user[..], &s.verb[..], s.events)).collect();
        assert_eq!(taken, [(&b"a"[..], &b"get"[..], 3)]);
        assert!(admitted("a", "get", 62));
    }

    #[test]
    fn the_end_reports_windows_that_have_not_ended() {
        let limiter = Limiter::new(1, Duration::from_secs(3600));
        assert!(limiter.admits(b"a", b"get") && !limiter.admits(b"a", b"get"));
        assert_eq!(limiter.take_suppressed(true)[0].events, 1);
        assert_eq!(limiter.take_suppressed(true), []);
    }

    #[test]
    fn beyond_the_most_users_events_are_written() {
        let limiter = Limiter::new(1, Duration::from_secs(3600));
        for user in 0..MOST {
            assert!(limiter.admits(user.to_string().as_bytes(), b"get"));
        }
        for _ in 0..3 {
            assert!(limiter.admits(b"one more", b"get"));
        }
        assert!(!limiter.admits(b"0", b"get"));
    }
}
