//! Turns to ask the API server about tokens, dealt out fairly.
//!
//! A flood of unknown tokens from one address must not delay the tokens of others. Therefore the
//! source addresses take turns, none of them can use all TokenReviews in flight, and an address
//! with many invalid tokens is rate-limited. Tokens that were valid before have a separate queue.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Maximum number of TokenReviews in flight.
pub(crate) const UNDER_WAY: usize = 64;
/// Maximum number of TokenReviews in flight for one source; the rest is reserved for others.
const OF_ONE_SOURCE: usize = 48;
/// Questions that wait; what comes on top displaces one of the source that has most.
const WAITING: usize = 2048;
/// The failure budget of a source: initially, and per second afterwards.
const IN_VAIN: f64 = 1000.0;
const IN_VAIN_A_SECOND: f64 = 100.0;
/// Maximum number of sources with a failure count.
const REMEMBERED: usize = 16_384;

/// The source of a TokenReview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Requests from this address; of IPv6, from its /64, which one machine can have for itself.
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

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTurn {
    /// The failure budget of the source is exhausted.
    #[error("too many invalid tokens from this address")]
    InVain,
    /// Too much waits already.
    #[error("too many unknown tokens at a time")]
    Full,
    /// There was no permit in time.
    #[error("an unknown token waited too long for its TokenReview")]
    Late,
}

/// Deals out turns.
#[derive(Default)]
pub(crate) struct Turns {
    queues: Mutex<Queues>,
    in_vain: Mutex<HashMap<Source, InVain>>,
}

#[derive(Default)]
struct Queues {
    under_way: usize,
    waiting: usize,
    /// Sources that wait, the next one first.
    order: VecDeque<Source>,
    /// Sources that wait or have TokenReviews in flight.
    sources: HashMap<Source, Queue>,
}

#[derive(Default)]
struct Queue {
    under_way: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The remaining failure budget of a source, and when it was computed.
#[derive(Clone, Copy)]
struct InVain {
    left: f64,
    since: Instant,
}

/// A place in line.
pub(crate) struct Waiting(oneshot::Receiver<Turn>);

/// The permit for one TokenReview; returned when dropped.
pub(crate) struct Turn {
    /// `None` once it is given back.
    turns: Option<Arc<Turns>>,
    source: Source,
}

impl Turns {
    /// Stands in line for a turn.
    ///
    /// # Errors
    /// See [`NoTurn`].
    pub(crate) fn enqueue(self: &Arc<Self>, source: Source) -> Result<Waiting, NoTurn> {
        if self.has_asked_in_vain(source, Instant::now()) {
            return Err(NoTurn::InVain);
        }
        let (sender, turn) = oneshot::channel();
        let mut queues = self.queues();
        queues.enqueue(source, sender)?;
        queues.deal(self);
        Ok(Waiting(turn))
    }

    /// The TokenReview returned that a token is invalid.
    pub(crate) fn asked_in_vain(&self, source: Source) {
        let now = Instant::now();
        let mut all = self.in_vain();
        if all.len() >= REMEMBERED && !all.contains_key(&source) {
            all.retain(|_, in_vain| in_vain.at(now).left < IN_VAIN);
            if all.len() >= REMEMBERED {
                // A flood from everywhere; the limit of TokenReviews in flight still applies.
                all.clear();
            }
        }
        let in_vain = all.entry(source).or_insert(InVain { left: IN_VAIN, since: now });
        *in_vain = in_vain.at(now);
        in_vain.left -= 1.0;
    }

    fn has_asked_in_vain(&self, source: Source, now: Instant) -> bool {
        source != Source::KnownToken
            && self.in_vain().get(&source).is_some_and(|in_vain| in_vain.at(now).left < 1.0)
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("nothing panics while holding the lock")
    }

    fn in_vain(&self) -> MutexGuard<'_, HashMap<Source, InVain>> {
        self.in_vain.lock().expect("nothing panics while holding the lock")
    }
}

impl Waiting {
    /// Waits at most `patience` for the turn.
    ///
    /// # Errors
    /// See [`NoTurn`].
    pub(crate) async fn get(self, patience: Duration) -> Result<Turn, NoTurn> {
        match tokio::time::timeout(patience, self.0).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(NoTurn::Full),
            Err(_) => Err(NoTurn::Late),
        }
    }
}

impl InVain {
    fn at(self, now: Instant) -> InVain {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        InVain { left: (self.left + passed * IN_VAIN_A_SECOND).min(IN_VAIN), since: now }
    }
}

impl Queues {
    fn enqueue(&mut self, source: Source, sender: oneshot::Sender<Turn>) -> Result<(), NoTurn> {
        if self.waiting >= WAITING {
            let waiting = |queue: &Queue| queue.waiting.len();
            let ours = self.sources.get(&source).map_or(0, waiting);
            let longest = self.sources.iter_mut().max_by_key(|(_, queue)| waiting(queue));
            match longest {
                // The newest waiter is dropped; its request notices that by the dropped sender.
                Some((_, longest)) if waiting(longest) > ours + 1 => {
                    longest.waiting.pop_back();
                    self.waiting -= 1;
                }
                _ => return Err(NoTurn::Full),
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
    fn deal(&mut self, turns: &Arc<Turns>) {
        // As many as wait; sources at their limit move to the end of the queue.
        let mut passed_over = 0;
        while self.under_way < UNDER_WAY && passed_over < self.order.len() {
            let Some(source) = self.order.pop_front() else { return };
            let queue = self.sources.get_mut(&source).expect("whoever is in line has a queue");
            if queue.under_way >= OF_ONE_SOURCE {
                self.order.push_back(source);
                passed_over += 1;
                continue;
            }
            passed_over = 0;
            if let Some(sender) = queue.waiting.pop_front() {
                self.waiting -= 1;
                let turn = Turn { turns: Some(turns.clone()), source };
                match sender.send(turn) {
                    Ok(()) => {
                        queue.under_way += 1;
                        self.under_way += 1;
                    }
                    // No request waits for it any more, so the permit was never taken.
                    Err(mut turn) => turn.turns = None,
                }
            }
            match queue.waiting.is_empty() {
                false => self.order.push_back(source),
                true => self.forget_idle(source),
            }
        }
    }

    fn forget_idle(&mut self, source: Source) {
        let is_idle = |queue: &Queue| queue.under_way == 0 && queue.waiting.is_empty();
        if self.sources.get(&source).is_some_and(is_idle) {
            self.sources.remove(&source);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else { return };
        let mut queues = turns.queues();
        queues.under_way -= 1;
        if let Some(queue) = queues.sources.get_mut(&self.source) {
            queue.under_way -= 1;
        }
        queues.deal(&turns);
        // Only if it is not queued: a queued source is removed with its last waiter.
        queues.forget_idle(self.source);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    /// Waits for a turn.
    async fn wait(turns: &Arc<Turns>, source: Source) -> Result<Turn, NoTurn> {
        turns.enqueue(source)?.get(Duration::from_secs(60)).await
    }

    /// Takes as many permits as are available immediately.
    fn at_once(turns: &Arc<Turns>, source: Source, count: usize) -> Vec<Turn> {
        let turn = |_| wait(turns, source).now_or_never()?.ok();
        (0..count).filter_map(turn).collect()
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
        let turns = Arc::new(Turns::default());
        let mut held = at_once(&turns, source(1), 100);
        assert_eq!(held.len(), OF_ONE_SOURCE);
        let others = at_once(&turns, source(2), 100);
        assert_eq!(others.len(), UNDER_WAY - OF_ONE_SOURCE);
        assert!(at_once(&turns, source(3), 1).is_empty());
        held.pop();
        assert_eq!(at_once(&turns, source(3), 1).len(), 1);
        drop((held, others));
        let queues = turns.queues();
        assert_eq!((queues.under_way, queues.waiting, queues.sources.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn those_that_wait_take_turns() {
        let turns = Arc::new(Turns::default());
        let held = [at_once(&turns, source(1), 40), at_once(&turns, source(2), 40)];
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        let sources = std::iter::repeat_n(source(9), 100).chain([source(3), Source::KnownToken]);
        for source in sources {
            let (place, order) = (turns.enqueue(source).unwrap(), order.clone());
            waiting.spawn(async move {
                let turn = place.get(Duration::from_secs(60)).await.unwrap();
                order.lock().unwrap().push(source);
                drop(turn);
            });
        }
        // One permit is free, so that one waiter follows the other.
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
        let turns = Arc::new(Turns::default());
        let held = [at_once(&turns, source(1), 40), at_once(&turns, source(2), 40)];
        let mut waiting: Vec<Waiting> =
            (0..WAITING - 16).map(|_| turns.enqueue(source(9)).unwrap()).collect();
        // Those that were not had at once went away, and still have their places.
        assert_eq!(turns.enqueue(source(9)).map(drop), Err(NoTurn::Full));
        let other = turns.enqueue(source(3)).unwrap();
        let displaced = waiting.pop().unwrap().get(Duration::from_secs(60)).await;
        assert_eq!(displaced.map(drop), Err(NoTurn::Full));
        drop((waiting, held));
        assert!(other.get(Duration::from_secs(60)).await.is_ok(), "who went away is passed over");
        assert_eq!(turns.queues().sources.len(), 0);
    }

    #[tokio::test]
    async fn patience_ends() {
        let turns = Arc::new(Turns::default());
        let _held = at_once(&turns, source(1), 100);
        let late = turns.enqueue(source(1)).unwrap().get(Duration::from_millis(1)).await;
        assert_eq!(late.map(drop), Err(NoTurn::Late));
    }

    #[test]
    fn who_asks_in_vain_waits_but_known_tokens_do_not() {
        let turns = Arc::new(Turns::default());
        for _ in 0..IN_VAIN as usize + 200 {
            turns.asked_in_vain(source(1));
            turns.asked_in_vain(Source::KnownToken);
        }
        let now = Instant::now();
        assert!(turns.has_asked_in_vain(source(1), now));
        assert!(!turns.has_asked_in_vain(source(2), now));
        assert!(!turns.has_asked_in_vain(Source::KnownToken, now));
        assert!(!turns.has_asked_in_vain(source(1), now + Duration::from_secs(3)));
        for number in 0..2 * REMEMBERED as u32 {
            turns.asked_in_vain(IpAddr::from(number.to_be_bytes()).into());
        }
        assert!(turns.in_vain().len() <= REMEMBERED);
    }
}
