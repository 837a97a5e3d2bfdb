//! Tests of [`super::in_flight`].

use futures_util::FutureExt;

use super::in_flight::{InFlightLimits, Permit, TooManyRequests};
use super::metrics::FilterMetrics;
use kube_authn::UserInfo;

fn user(name: &str) -> UserInfo {
    UserInfo { username: name.to_owned(), ..UserInfo::default() }
}

struct Limits {
    limits: InFlightLimits,
    metrics: FilterMetrics,
}

impl Limits {
    fn new(read_only: usize, mutating: usize) -> Limits {
        let metrics = FilterMetrics::default();
        let limits = InFlightLimits::new(read_only, mutating, &metrics).unwrap();
        Limits { limits, metrics }
    }

    /// Acquires a slot for a read-only request; `None` if it waits.
    fn get(&self, name: &str) -> Option<Result<Permit, TooManyRequests>> {
        self.limits.acquire("get", &user(name)).now_or_never()
    }

    fn admitted(&self, name: &str) -> Permit {
        self.get(name).expect("it does not wait").expect("it is not rejected")
    }

    fn is_rejected(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Err(TooManyRequests)))
    }
}

#[test]
fn without_limits_every_request_is_admitted() {
    assert!(InFlightLimits::new(0, 0, &FilterMetrics::default()).is_none());
}

#[test]
fn a_user_that_is_alone_gets_the_whole_limit() {
    let limits = Limits::new(3, 0);
    let held: Vec<_> = (0..3).map(|_| limits.admitted("ann")).collect();
    assert!(limits.is_rejected("ann"));
    assert_eq!(limits.metrics.read_only.current.get(), 3);
    assert_eq!(limits.metrics.read_only.rejected.get(), 1);
    drop(held);
    assert_eq!(limits.metrics.read_only.current.get(), 0);
    limits.admitted("ann");
}

#[test]
fn kinds_have_limits_of_their_own() {
    let limits = Limits::new(1, 1);
    let _reads = limits.admitted("ann");
    for verb in ["list", "get"] {
        let again = limits.limits.acquire(verb, &user("ann")).now_or_never();
        assert!(matches!(again, Some(Err(TooManyRequests))), "{verb}");
    }
    let changes = limits.limits.acquire("head", &user("ann")).now_or_never().unwrap();
    for verb in ["create", "deletecollection", "post", ""] {
        let again = limits.limits.acquire(verb, &user("ann")).now_or_never();
        assert!(matches!(again, Some(Err(TooManyRequests))), "{verb}");
    }
    drop(changes);
    assert_eq!(limits.metrics.mutating.rejected.get(), 4);

    // Without a limit, any number of requests may be in flight.
    let limits = Limits::new(0, 1);
    let held: Vec<_> = (0..1_000).map(|_| limits.admitted("ann")).collect();
    assert_eq!(held.len(), 1_000);
}

#[test]
fn masters_are_never_rejected_and_count_where_there_is_room() {
    let limits = Limits::new(1, 0);
    let master = UserInfo { groups: vec!["system:masters".to_owned()], ..user("kubernetes-admin") };
    let get = || limits.limits.acquire("get", &master).now_or_never().unwrap();
    let first = get().unwrap();
    let others: Vec<_> = (0..5).map(|_| get().unwrap()).collect();
    assert_eq!(limits.metrics.read_only.current.get(), 1);
    drop(others);
    assert_eq!(limits.metrics.read_only.current.get(), 1);
    drop(first);
    assert_eq!(limits.metrics.read_only.current.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_user_below_its_share_gets_the_next_slots() {
    let limits = Limits::new(4, 0);
    let mut ann: Vec<_> = (0..4).map(|_| limits.admitted("ann")).collect();
    let reader = user("ben");
    let mut ben: Vec<_> = (0..2).map(|_| Box::pin(limits.limits.acquire("get", &reader))).collect();
    assert!(ben.iter_mut().all(|waiting| waiting.as_mut().now_or_never().is_none()));
    assert_eq!(limits.metrics.read_only.waiting.get(), 2);
    // The share of each is half of the limit: a third slot exceeds that of ben, and any slot that
    // of ann.
    assert!(limits.is_rejected("ben"));
    assert!(limits.is_rejected("ann"));

    // Slots that ann frees go to ben, even if ann requests one before.
    ann.pop();
    assert!(limits.is_rejected("ann"));
    let first = ben.remove(0).await.unwrap();
    ann.pop();
    let second = ben.remove(0).await.unwrap();
    assert_eq!(limits.metrics.read_only.current.get(), 4);
    assert!(limits.is_rejected("ben") && limits.is_rejected("ann"));

    // When one user has fewer slots, the other one may take more.
    drop(first);
    let ann_again = limits.admitted("ann");
    drop((second, ann, ann_again));
    assert_eq!(limits.metrics.read_only.current.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_as_long_as_it_would_be_told_to() {
    let limits = Limits::new(1, 0);
    let _held = limits.admitted("ann");
    let start = tokio::time::Instant::now();
    let rejected = limits.limits.acquire("get", &user("ben")).await;
    assert!(rejected.is_err());
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!(limits.metrics.read_only.waiting.get(), 0);
    assert_eq!(limits.metrics.read_only.rejected.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_requests_get_no_slot() {
    let limits = Limits::new(1, 0);
    let held = limits.admitted("ann");
    let (ben, cid) = (user("ben"), user("cid"));
    let mut first = Box::pin(limits.limits.acquire("get", &ben));
    assert!(first.as_mut().now_or_never().is_none());
    // The queue is as long as the limit.
    assert!(limits.is_rejected("cid"));
    drop(first);
    let mut second = Box::pin(limits.limits.acquire("get", &cid));
    assert!(second.as_mut().now_or_never().is_none());
    drop(held);
    // It is dropped after it got the slot and before it uses it.
    drop(second);
    assert_eq!(limits.metrics.read_only.current.get(), 0);
    limits.admitted("dan");
}
