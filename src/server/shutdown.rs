//! The phases of ending, and waiting for everything that is under way.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How far the process is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections and requests are accepted.
    Serving,
    /// They still are, but the process is not ready any more (`--shutdown-delay-duration`).
    Leaving,
    /// No connections are accepted any more, but requests on those that there are. Only if another
    /// process listens on the same port.
    Closing,
    /// Nothing new is accepted; what is under way may finish.
    Draining,
    /// What is still under way is dropped.
    Ending,
}

/// How the time of `--shutdown-timeout` is divided: first requests finish, then backends deliver
/// what waits, at last what is not delivered is counted and logged. A step that needs less leaves
/// its time to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timetable {
    /// Until when requests may finish.
    pub requests: Instant,
    /// Until when backends may deliver.
    pub backends: Instant,
    /// When the process has ended.
    pub end: Instant,
}

impl Timetable {
    /// Divides `timeout`, from `now` on: backends have a quarter for themselves, at most 3 s;
    /// counting has a tenth, at most 500 ms. However short it is, backends have 400 ms in all, to
    /// write what a healthy disk takes in that time.
    pub fn new(now: Instant, timeout: Duration) -> Timetable {
        const DELIVERY: Duration = Duration::from_secs(3);
        const COUNTING: Duration = Duration::from_millis(500);
        const LEAST: Duration = Duration::from_millis(400);
        // Longer than any process lives, and no clock ends before.
        let timeout = timeout.min(Duration::from_secs(1 << 32));
        let delivery = (timeout / 4).min(DELIVERY);
        let counting = (timeout / 10).min(COUNTING);
        Timetable {
            requests: now + (timeout - delivery),
            backends: now + (timeout - counting).max(LEAST),
            end: now + timeout.max(LEAST + LEAST / 2),
        }
    }

    /// What is left of it if the process is to end at once: `grace` from `now` on.
    #[must_use]
    pub fn hurried(self, now: Instant, grace: Duration) -> Timetable {
        let short = Timetable::new(now, grace);
        Timetable {
            requests: self.requests.min(now),
            backends: self.backends.min(short.backends),
            end: self.end.min(short.end),
        }
    }
}

/// The side that decides the phase.
#[derive(Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
}

/// The side that obeys. Each task that must have ended before the process does holds one.
#[derive(Debug, Clone)]
pub struct Running {
    phase: watch::Receiver<Phase>,
}

impl Shutdown {
    /// A process that serves.
    pub fn new() -> (Shutdown, Running) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        (Shutdown { phase: sender }, Running { phase: receiver })
    }

    /// Goes on accepting, but is not ready.
    pub fn leave(&self) {
        self.advance(Phase::Leaving);
    }

    /// Stops accepting connections.
    pub fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// Stops accepting; what is under way may finish.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Drops what is still under way.
    pub fn end(&self) {
        self.advance(Phase::Ending);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until each [`Running`] has been dropped.
    pub async fn all_ended(&self) {
        self.phase.closed().await;
    }

    fn advance(&self, to: Phase) {
        // `send` would return an error if there is no receiver left.
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }
}

impl Running {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until `phase` is reached.
    pub async fn reached(&mut self, phase: Phase) {
        // Fails where the deciding side is gone, which means the end too.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    /// Waits until the process has been draining for `grace`, or ends.
    pub async fn drained_for(&mut self, grace: Duration) {
        self.reached(Phase::Draining).await;
        let _ = tokio::time::timeout(grace, self.reached(Phase::Ending)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_advance_and_the_end_waits_for_everyone() {
        let (shutdown, running) = Shutdown::new();
        assert_eq!(running.phase(), Phase::Serving);
        shutdown.end();
        shutdown.drain();
        assert_eq!(shutdown.phase(), Phase::Ending);
        let mut task = running.clone();
        drop(running);
        let task = tokio::spawn(async move { task.reached(Phase::Draining).await });
        shutdown.all_ended().await;
        task.await.unwrap();
    }

    #[test]
    fn each_step_has_its_share_of_the_timeout() {
        let now = Instant::now();
        let shares = |timeout| {
            let Timetable { requests, backends, end } = Timetable::new(now, timeout);
            [requests, backends, end].map(|until| (until - now).as_millis())
        };
        assert_eq!(shares(Duration::from_secs(30)), [27_000, 29_500, 30_000]);
        assert_eq!(shares(Duration::from_secs(5)), [3_750, 4_500, 5_000]);
        assert_eq!(shares(Duration::ZERO), [0, 400, 600]);
        assert!(shares(Duration::MAX)[0] > 1 << 40);

        let later = now + Duration::from_secs(1);
        let hurried =
            Timetable::new(now, Duration::from_secs(30)).hurried(later, Duration::from_secs(1));
        assert_eq!((hurried.requests, hurried.end), (later, later + Duration::from_secs(1)));
        assert!(hurried.backends > later && hurried.backends < hurried.end);
    }

    #[tokio::test]
    async fn a_vanished_shutdown_ends_those_who_wait() {
        let (shutdown, mut running) = Shutdown::new();
        drop(shutdown);
        running.reached(Phase::Ending).await;
    }
}
