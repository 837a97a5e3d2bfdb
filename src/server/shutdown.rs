//! The phases of a shutdown, and waiting for tasks in progress.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections and requests are accepted.
    Serving,
    /// Connections and requests are still accepted, but the process is not ready
    /// (`--shutdown-delay-duration`).
    Leaving,
    /// No new connections are accepted, but requests on open ones are. Only used if another process
    /// listens on the same port.
    Closing,
    /// Nothing new is accepted; requests in flight may finish.
    Draining,
    /// Requests that are still in flight are dropped.
    Ending,
}

/// Divides the time of `--shutdown-timeout`: first requests finish, then backends deliver queued
/// events, and finally undelivered events are counted and logged. A step that needs less time
/// leaves the rest to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timetable {
    /// Until when requests may finish.
    pub requests: Instant,
    /// Until when backends may deliver events.
    pub backends: Instant,
    /// When the process must have ended.
    pub end: Instant,
}

impl Timetable {
    /// Divides `timeout`, starting at `now`: backends have a quarter of it for themselves, at most
    /// 3 s; counting has a tenth, at most 500 ms. However short the timeout is, backends have at
    /// least 400 ms in total, which is enough to write what a healthy disk accepts in that time.
    pub fn new(now: Instant, timeout: Duration) -> Timetable {
        const DELIVERY: Duration = Duration::from_secs(3);
        const COUNTING: Duration = Duration::from_millis(500);
        const LEAST: Duration = Duration::from_millis(400);
        // Longer than any process runs, and short enough for all clocks.
        let timeout = timeout.min(Duration::from_secs(1 << 32));
        let delivery = (timeout / 4).min(DELIVERY);
        let counting = (timeout / 10).min(COUNTING);
        Timetable {
            requests: now + (timeout - delivery),
            backends: now + (timeout - counting).max(LEAST),
            end: now + timeout.max(LEAST + LEAST / 2),
        }
    }

    /// Returns the rest of the timetable if the process must end immediately: `grace` from `now`
    /// on.
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

/// The sender: decides the phase.
#[derive(Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
}

/// The receiver: follows the phase. Each task that must end before the process holds a clone.
#[derive(Debug, Clone)]
pub struct Running {
    phase: watch::Receiver<Phase>,
}

impl Shutdown {
    /// Creates both sides, in the phase [`Phase::Serving`].
    pub fn new() -> (Shutdown, Running) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        (Shutdown { phase: sender }, Running { phase: receiver })
    }

    /// Enters [`Phase::Leaving`]: continues to accept, but is not ready.
    pub fn leave(&self) {
        self.advance(Phase::Leaving);
    }

    /// Enters [`Phase::Closing`]: accepts no new connections.
    pub fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// Enters [`Phase::Draining`]: accepts nothing new; requests in flight may finish.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Enters [`Phase::Ending`]: drops the requests still in flight.
    pub fn end(&self) {
        self.advance(Phase::Ending);
    }

    /// Returns the current phase.
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
    /// Returns the current phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until `phase` is reached.
    pub async fn reached(&mut self, phase: Phase) {
        // Fails if the sender has been dropped, which also means the end.
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
