//! Deadlines of requests, checked ten times a second.
//!
//! A timer for each request would be expensive, and almost none of them would ever fire. Instead, a
//! request stores its deadline and its waker in a slot, and one task scans the slots. The slots are
//! divided into shards by connection: a connection belongs to one worker thread, so that workers
//! seldom share a lock.
//!
//! A deadline takes effect up to 200 ms late, and not early as long as the task runs on time. If
//! the API server has the same deadline, its response usually arrives first and is forwarded.
//!
//! The slot also holds the request's permit of the limits of requests in flight. The permit is
//! released when the deadline passes, even if the client does not read its response and therefore
//! nothing polls the request.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::in_flight::Permit;
use super::metrics::FilterMetrics;

/// The time between two checks.
const TICK: Duration = Duration::from_millis(100);
/// Enough that two workers seldom use the same one.
const SHARDS: usize = 64;
/// For requests without a deadline.
const NEVER: u64 = u64::MAX;

/// A time with the resolution of a tick, at most one tick in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coarse(u64);

/// The deadline of a request has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request did not complete within its timeout")]
pub struct Expired;

/// The deadlines of all requests.
pub(super) struct Deadlines {
    start: Instant,
    /// Milliseconds since the start, updated with each tick.
    now: AtomicU64,
    shards: Box<[Arc<Shard>]>,
}

struct Shard {
    /// Slots in use.
    used: AtomicUsize,
    slots: Mutex<Slots>,
    metrics: Arc<FilterMetrics>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    /// Indices of those that are free.
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    /// Milliseconds since the start; [`NEVER`] if free, or without a deadline.
    due: u64,
    expired: bool,
    waker: Option<Waker>,
    permit: Option<Permit>,
}

impl Deadlines {
    pub(super) fn new(metrics: &Arc<FilterMetrics>) -> Deadlines {
        let shard = |_| {
            let (used, slots) = (AtomicUsize::new(0), Mutex::default());
            Arc::new(Shard { used, slots, metrics: Arc::clone(metrics) })
        };
        let shards = (0..SHARDS).map(shard).collect();
        Deadlines { start: Instant::now(), now: AtomicU64::new(0), shards }
    }

    pub(super) fn now(&self) -> Coarse {
        Coarse(self.now.load(Ordering::Relaxed))
    }

    /// Registers a request on `connection` that came in at `started`. A timeout of zero is none.
    pub(super) fn register(&self, connection: u64, started: Coarse, timeout: Duration) -> Deadline {
        let due = match u64::try_from(timeout.as_millis()) {
            Ok(0) if timeout.is_zero() => NEVER,
            // The start may be a tick later than the coarse time.
            Ok(millis) => started.0.saturating_add(millis).saturating_add(TICK.as_millis() as u64),
            Err(_) => NEVER,
        };
        let shard = &self.shards[connection as usize % SHARDS];
        let slot = Slot { due, ..Slot::default() };
        let mut slots = shard.lock();
        let index = match slots.free.pop() {
            Some(index) => {
                slots.all[index as usize] = slot;
                index
            }
            None => {
                slots.all.push(slot);
                (slots.all.len() - 1) as u32
            }
        };
        drop(slots);
        shard.used.fetch_add(1, Ordering::Relaxed);
        Deadline { shard: Arc::clone(shard), index }
    }

    /// Wakes the requests whose deadline is at `now` or earlier.
    fn check(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        let now = u64::try_from(elapsed).unwrap_or(NEVER - 1);
        self.now.store(now, Ordering::Relaxed);
        let mut passed = Vec::new();
        for shard in &self.shards {
            if shard.used.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut slots = shard.lock();
            for slot in slots.all.iter_mut().filter(|slot| slot.due <= now) {
                slot.due = NEVER;
                slot.expired = true;
                passed.push((slot.waker.take(), slot.permit.take()));
            }
        }
        // After the lock is released: both run foreign code.
        for (waker, permit) in passed {
            drop(permit);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Checks the deadlines until nothing else holds them.
pub(super) fn spawn_watch(deadlines: &Arc<Deadlines>) {
    let deadlines: Weak<Deadlines> = Arc::downgrade(deadlines);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(deadlines) = deadlines.upgrade() else { return };
            deadlines.check(Instant::now());
        }
    });
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The deadline of one request, and its permit of the limits of requests in flight.
pub struct Deadline {
    shard: Arc<Shard>,
    index: u32,
}

impl Deadline {
    /// Keeps a permit of the limits of requests in flight until the request has ended or its
    /// deadline has passed.
    pub fn hold(&self, permit: Permit) {
        let mut slots = self.shard.lock();
        let slot = &mut slots.all[self.index as usize];
        let refused = if slot.expired { Some(permit) } else { slot.permit.replace(permit) };
        drop(slots);
        drop(refused);
    }

    /// Returns whether the deadline has passed.
    pub fn is_expired(&self) -> bool {
        self.shard.lock().all[self.index as usize].expired
    }

    /// The metrics of the filters.
    pub fn metrics(&self) -> &FilterMetrics {
        &self.shard.metrics
    }

    /// Ready when the deadline has passed.
    pub fn poll_expired(&self, context: &mut Context<'_>) -> Poll<Expired> {
        let mut slots = self.shard.lock();
        let slot = &mut slots.all[self.index as usize];
        if slot.expired {
            return Poll::Ready(Expired);
        }
        let is_known = slot.waker.as_ref().is_some_and(|known| known.will_wake(context.waker()));
        if !is_known && slot.due != NEVER {
            slot.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    #[cfg(test)]
    pub(super) fn timeout(&self, now: Coarse) -> Duration {
        let due = self.shard.lock().all[self.index as usize].due;
        Duration::from_millis(due - now.0) - TICK
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.shard.lock();
        let slot = &mut slots.all[self.index as usize];
        let last = std::mem::replace(slot, Slot { due: NEVER, ..Slot::default() });
        slots.free.push(self.index);
        drop(slots);
        self.shard.used.fetch_sub(1, Ordering::Relaxed);
        // After the lock is released: the permit may wake another request.
        drop(last);
    }
}

/// Waits for `future`, at most until the deadline, if there is one.
///
/// It has to be one await for both cases: what is there in several suspension points of a future
/// does not share its memory with what is there in others.
///
/// # Errors
/// The deadline has passed.
pub(crate) fn race<F: Future>(
    deadline: Option<&Deadline>,
    mut future: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, Expired>> {
    std::future::poll_fn(move |context| match (future.as_mut().poll(context), deadline) {
        (Poll::Ready(output), _) => Poll::Ready(Ok(output)),
        (Poll::Pending, Some(deadline)) => deadline.poll_expired(context).map(Err),
        (Poll::Pending, None) => Poll::Pending,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_request_is_woken_after_its_deadline_and_not_before() {
        let deadlines = Deadlines::new(&Arc::default());
        let at = |millis| deadlines.start + Duration::from_millis(millis);
        deadlines.check(at(1_000));
        let short = deadlines.register(1, deadlines.now(), Duration::from_millis(500));
        let long = deadlines.register(1, deadlines.now(), Duration::from_secs(60));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(short.poll_expired(&mut context).is_pending());
        assert!(long.poll_expired(&mut context).is_pending());

        // The request may have come in just before the next tick, so the deadline is one tick
        // later.
        deadlines.check(at(1_599));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        deadlines.check(at(1_600));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(short.poll_expired(&mut context).is_ready());
        assert!(short.poll_expired(&mut context).is_ready(), "it stays expired");
        assert!(long.poll_expired(&mut context).is_pending());
    }

    #[test]
    fn slots_are_used_again() {
        let deadlines = Deadlines::new(&Arc::default());
        for _ in 0..1_000 {
            drop(deadlines.register(7, deadlines.now(), Duration::from_secs(1)));
        }
        let shard = &deadlines.shards[7];
        assert_eq!((shard.lock().all.len(), shard.used.load(Ordering::Relaxed)), (1, 0));

        // A slot that was expired is not so for the next request.
        let first = deadlines.register(7, deadlines.now(), Duration::from_millis(1));
        deadlines.check(deadlines.start + Duration::from_secs(1));
        drop(first);
        let next = deadlines.register(7, deadlines.now(), Duration::from_secs(1));
        assert!(next.poll_expired(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(shard.lock().all.len(), 1);
    }

    #[test]
    fn without_a_timeout_nothing_expires() {
        let deadlines = Deadlines::new(&Arc::default());
        let endless = deadlines.register(1, deadlines.now(), Duration::ZERO);
        deadlines.check(deadlines.start + Duration::from_secs(1 << 30));
        assert!(endless.poll_expired(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[tokio::test]
    async fn what_completes_in_time_is_returned() {
        let deadlines = Arc::new(Deadlines::new(&Arc::default()));
        spawn_watch(&deadlines);
        let deadline = deadlines.register(1, deadlines.now(), Duration::from_millis(1));
        let ready = std::pin::pin!(std::future::ready(7));
        assert_eq!(race(Some(&deadline), ready).await, Ok(7));
        let never = std::pin::pin!(std::future::pending::<()>());
        assert_eq!(race(Some(&deadline), never).await, Err(Expired));
    }
}
