//! Queues TokenReviews fairly by source.
//!
//! A flood of unknown tokens from one address must not delay the tokens of others. Therefore the
//! queue serves source addresses round-robin, no address can use all TokenReviews in flight, and an
//! address with many invalid tokens is rate-limited. Tokens that were valid before have a separate
//! queue.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Maximum number of TokenReviews in flight.
pub(crate) const MAX_IN_FLIGHT: usize = 64;
/// Maximum number of TokenReviews in flight for one source; the rest is reserved for others.
const MAX_PER_SOURCE: usize = 48;
/// Maximum number of waiting TokenReviews. When it is reached, a new one replaces the newest of the
/// source with the most.
const MAX_WAITING: usize = 2048;
/// The failure budget of a source: the initial number of invalid tokens, and the number per second
/// afterwards.
const FAILURE_BUDGET: f64 = 1000.0;
const FAILURES_PER_SECOND: f64 = 100.0;
/// Maximum number of sources whose failures are counted.
const MAX_BUDGETS: usize = 16_384;

/// The source of a TokenReview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An IPv4 address, or the /64 of an IPv6 address, which a single machine may own.
    Address(IpAddr),
    /// A token that was valid before, from any source.
    KnownToken,
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        Source::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        })
    }
}

/// Why a TokenReview gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    /// The failure budget of the source is exhausted.
    #[error("too many invalid tokens from this address")]
    FailureBudget,
    /// Too many TokenReviews are waiting.
    #[error("too many unknown tokens at a time")]
    Full,
    /// No permit was available in time.
    #[error("an unknown token waited too long for its TokenReview")]
    Late,
}

/// Issues permits for TokenReviews, round-robin among the sources.
#[derive(Default)]
pub(crate) struct FairQueue {
    queues: Mutex<Queues>,
    budgets: Mutex<HashMap<Source, FailureBudget>>,
}

#[derive(Default)]
struct Queues {
    in_flight: usize,
    waiting: usize,
    /// Waiting sources, the next one first.
    order: VecDeque<Source>,
    /// Sources that wait, or have TokenReviews in flight.
    sources: HashMap<Source, Queue>,
}

#[derive(Default)]
struct Queue {
    in_flight: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// The remaining failure budget of a source, and when it was computed.
#[derive(Clone, Copy)]
struct FailureBudget {
    left: f64,
    since: Instant,
}

/// A place in the queue.
pub(crate) struct Waiting(oneshot::Receiver<Permit>);

/// The permit for one TokenReview; returned when dropped.
pub(crate) struct Permit {
    /// `None` after the permit was returned.
    queue: Option<Arc<FairQueue>>,
    source: Source,
}

impl FairQueue {
    /// Enqueues a request for a permit.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub(crate) fn enqueue(self: &Arc<Self>, source: Source) -> Result<Waiting, Rejected> {
        if self.is_budget_exhausted(source, Instant::now()) {
            return Err(Rejected::FailureBudget);
        }
        let (sender, permit) = oneshot::channel();
        let mut queues = self.queues();
        queues.enqueue(source, sender)?;
        queues.assign(self);
        Ok(Waiting(permit))
    }

    /// Counts an invalid token against the failure budget of its source.
    pub(crate) fn count_failure(&self, source: Source) {
        let now = Instant::now();
        let mut all = self.budgets();
        if all.len() >= MAX_BUDGETS && !all.contains_key(&source) {
            all.retain(|_, budget| budget.at(now).left < FAILURE_BUDGET);
            if all.len() >= MAX_BUDGETS {
                // There are failures from very many sources; the limit of TokenReviews in flight
                // still applies.
                all.clear();
            }
        }
        let budget =
            all.entry(source).or_insert(FailureBudget { left: FAILURE_BUDGET, since: now });
        *budget = budget.at(now);
        budget.left -= 1.0;
    }

    fn is_budget_exhausted(&self, source: Source, now: Instant) -> bool {
        source != Source::KnownToken
            && self.budgets().get(&source).is_some_and(|budget| budget.at(now).left < 1.0)
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("nothing panics while holding the lock")
    }

    fn budgets(&self) -> MutexGuard<'_, HashMap<Source, FailureBudget>> {
        self.budgets.lock().expect("nothing panics while holding the lock")
    }
}

impl Waiting {
    /// Waits at most `patience` for the permit.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub(crate) async fn get(self, patience: Duration) -> Result<Permit, Rejected> {
        match tokio::time::timeout(patience, self.0).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Rejected::Full),
            Err(_) => Err(Rejected::Late),
        }
    }
}

impl FailureBudget {
    fn at(self, now: Instant) -> FailureBudget {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        FailureBudget {
            left: (self.left + passed * FAILURES_PER_SECOND).min(FAILURE_BUDGET),
            since: now,
        }
    }
}

impl Queues {
    fn enqueue(&mut self, source: Source, sender: oneshot::Sender<Permit>) -> Result<(), Rejected> {
        if self.waiting >= MAX_WAITING {
            let waiting = |queue: &Queue| queue.waiting.len();
            let ours = self.sources.get(&source).map_or(0, waiting);
            let longest = self.sources.iter_mut().max_by_key(|(_, queue)| waiting(queue));
            match longest {
                // The newest waiter is dropped; its request notices that by the dropped sender.
                Some((_, longest)) if waiting(longest) > ours + 1 => {
                    longest.waiting.pop_back();
                    self.waiting -= 1;
                }
                _ => return Err(Rejected::Full),
            }
        }
        let queue = self.sources.entry(source).or_default();
        if queue.waiting.is_empty() {
            self.order.push_back(source);
        }
        queue.waiting.push_back(sender);
        self.waiting += 1;
        Ok(())
    }

    /// Assigns free permits to waiters.
    fn assign(&mut self, fair: &Arc<FairQueue>) {
        // As many as wait; a source at its limit moves to the end of the queue.
        let mut passed_over = 0;
        while self.in_flight < MAX_IN_FLIGHT && passed_over < self.order.len() {
            let Some(source) = self.order.pop_front() else { return };
            let queue = self.sources.get_mut(&source).expect("whoever is in line has a queue");
            if queue.in_flight >= MAX_PER_SOURCE {
                self.order.push_back(source);
                passed_over += 1;
                continue;
            }
            passed_over = 0;
            if let Some(sender) = queue.waiting.pop_front() {
                self.waiting -= 1;
                let permit = Permit { queue: Some(fair.clone()), source };
                match sender.send(permit) {
                    Ok(()) => {
                        queue.in_flight += 1;
                        self.in_flight += 1;
                    }
                    // The request has been dropped, so the permit was not used.
                    Err(mut permit) => permit.queue = None,
                }
            }
            match queue.waiting.is_empty() {
                false => self.order.push_back(source),
                true => self.remove_idle(source),
            }
        }
    }

    fn remove_idle(&mut self, source: Source) {
        let is_idle = |queue: &Queue| queue.in_flight == 0 && queue.waiting.is_empty();
        if self.sources.get(&source).is_some_and(is_idle) {
            self.sources.remove(&source);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        let mut queues = queue.queues();
        queues.in_flight -= 1;
        if let Some(queue) = queues.sources.get_mut(&self.source) {
            queue.in_flight -= 1;
        }
        queues.assign(&queue);
        // If it is queued, it is removed with its last waiter.
        queues.remove_idle(self.source);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    /// Waits for a permit.
    async fn wait(queue: &Arc<FairQueue>, source: Source) -> Result<Permit, Rejected> {
        queue.enqueue(source)?.get(Duration::from_secs(60)).await
    }

    /// Takes the permits that are available immediately, at most `count`.
    fn at_once(queue: &Arc<FairQueue>, source: Source, count: usize) -> Vec<Permit> {
        let permit = |_| wait(queue, source).now_or_never()?.ok();
        (0..count).filter_map(permit).collect()
    }

    #[test]
    fn sources_are_machines() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
    }

    #[tokio::test]
    async fn no_source_has_all_turns_and_they_come_back() {
        let queue = Arc::new(FairQueue::default());
        let mut held = at_once(&queue, source(1), 100);
        assert_eq!(held.len(), MAX_PER_SOURCE);
        let others = at_once(&queue, source(2), 100);
        assert_eq!(others.len(), MAX_IN_FLIGHT - MAX_PER_SOURCE);
        assert!(at_once(&queue, source(3), 1).is_empty());
        held.pop();
        assert_eq!(at_once(&queue, source(3), 1).len(), 1);
        drop((held, others));
        let queues = queue.queues();
        assert_eq!((queues.in_flight, queues.waiting, queues.sources.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn those_that_wait_take_turns() {
        let queue = Arc::new(FairQueue::default());
        let held = [at_once(&queue, source(1), 40), at_once(&queue, source(2), 40)];
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        let sources = std::iter::repeat_n(source(9), 100).chain([source(3), Source::KnownToken]);
        for source in sources {
            let (place, order) = (queue.enqueue(source).unwrap(), order.clone());
            waiting.spawn(async move {
                let permit = place.get(Duration::from_secs(60)).await.unwrap();
                order.lock().unwrap().push(source);
                drop(permit);
            });
        }
        // One permit is free at a time, so waiters are served one after the other.
        let mut held = held.into_iter().flatten();
        drop(held.next());
        waiting.join_all().await;
        drop(held);
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 102);
        for late in [source(3), Source::KnownToken] {
            let at = order.iter().position(|source| *source == late).unwrap();
            assert!(at < 6, "{late:?} came last and waited for {at} others");
        }
    }

    #[tokio::test]
    async fn a_full_queue_makes_room_for_others() {
        let queue = Arc::new(FairQueue::default());
        let held = [at_once(&queue, source(1), 40), at_once(&queue, source(2), 40)];
        let mut waiting: Vec<Waiting> =
            (0..MAX_WAITING - 16).map(|_| queue.enqueue(source(9)).unwrap()).collect();
        // The requests without a permit were dropped, but still have their places in the queue.
        assert_eq!(queue.enqueue(source(9)).map(drop), Err(Rejected::Full));
        let other = queue.enqueue(source(3)).unwrap();
        let displaced = waiting.pop().unwrap().get(Duration::from_secs(60)).await;
        assert_eq!(displaced.map(drop), Err(Rejected::Full));
        drop((waiting, held));
        assert!(other.get(Duration::from_secs(60)).await.is_ok(), "who went away is passed over");
        assert_eq!(queue.queues().sources.len(), 0);
    }

    #[tokio::test]
    async fn patience_ends() {
        let queue = Arc::new(FairQueue::default());
        let _held = at_once(&queue, source(1), 100);
        let late = queue.enqueue(source(1)).unwrap().get(Duration::from_millis(1)).await;
        assert_eq!(late.map(drop), Err(Rejected::Late));
    }

    #[test]
    fn sources_of_invalid_tokens_wait_and_known_tokens_do_not() {
        let queue = Arc::new(FairQueue::default());
        for _ in 0..FAILURE_BUDGET as usize + 200 {
            queue.count_failure(source(1));
            queue.count_failure(Source::KnownToken);
        }
        let now = Instant::now();
        assert!(queue.is_budget_exhausted(source(1), now));
        assert!(!queue.is_budget_exhausted(source(2), now));
        assert!(!queue.is_budget_exhausted(Source::KnownToken, now));
        assert!(!queue.is_budget_exhausted(source(1), now + Duration::from_secs(3)));
        for number in 0..2 * MAX_BUDGETS as u32 {
            queue.count_failure(IpAddr::from(number.to_be_bytes()).into());
        }
        assert!(queue.budgets().len() <= MAX_BUDGETS);
    }
}
