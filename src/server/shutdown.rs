//! The phases of ending, and waiting for everything that is under way.

use tokio::sync::watch;

/// How far the process is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections and requests are accepted.
    Serving,
    /// They still are, but the process is not ready any more (`--shutdown-delay-duration`).
    Leaving,
    /// Nothing new is accepted; what is under way may finish.
    Draining,
    /// What is still under way is dropped.
    Ending,
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
        // There may be nobody left to tell, which `send` would call an error.
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

    #[tokio::test]
    async fn a_vanished_shutdown_ends_those_who_wait() {
        let (shutdown, mut running) = Shutdown::new();
        drop(shutdown);
        running.reached(Phase::Ending).await;
    }
}
