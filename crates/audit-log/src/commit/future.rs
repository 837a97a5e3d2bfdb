//! The outcome of a commit, from the request's point of view.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::super::error::WriteError;
use super::strategy::WhenFailed;

/// Resolves when the request may continue: to `Err` only if the request must fail because the log
/// is in `blocking-strict` mode and an event of the request could not be written. In other modes,
/// failures have been counted and logged, and resolve to `Ok`. Dropping a commit does not affect
/// its event.
#[derive(Debug)]
#[must_use = "in the blocking modes a request goes on only when its event is committed"]
pub struct Commit(State);

#[derive(Debug)]
enum State {
    Done(Result<(), WriteError>),
    Waiting {
        outcome: oneshot::Receiver<Result<(), WriteError>>,
        when_failed: WhenFailed,
    },
    /// The result of the first is kept while the second is pending.
    Both {
        commits: Box<[Commit; 2]>,
        first: Option<Result<(), WriteError>>,
    },
}

/// Resolves a [`Commit`]. Dropping it fails the commit.
pub(crate) type CommitSender = oneshot::Sender<Result<(), WriteError>>;

impl Commit {
    /// A commit that is already done.
    pub const DONE: Commit = Commit(State::Done(Ok(())));

    /// Returns a commit whose outcome is already known.
    pub(crate) fn known(outcome: Result<(), WriteError>, when_failed: WhenFailed) -> Commit {
        Commit(State::Done(when_failed.apply(outcome)))
    }

    /// Returns a pending commit and the sender of its outcome.
    pub(crate) fn waiting(when_failed: WhenFailed) -> (CommitSender, Commit) {
        let (sender, outcome) = oneshot::channel();
        (sender, Commit(State::Waiting { outcome, when_failed }))
    }

    /// Waits for both commits. Resolves to the first error.
    pub fn and(self, other: Commit) -> Commit {
        match (self, other) {
            (Commit(State::Done(Ok(()))), other) => other,
            (one, Commit(State::Done(Ok(())))) => one,
            (one, other) => Commit(State::Both { commits: Box::new([one, other]), first: None }),
        }
    }
}

impl WhenFailed {
    /// Applies the outcome of a write to the request. This is the only place that decides whether a
    /// request fails because its event could not be written.
    fn apply(self, outcome: Result<(), WriteError>) -> Result<(), WriteError> {
        match self {
            WhenFailed::Refuse => outcome,
            WhenFailed::Continue => Ok(()),
        }
    }
}

impl Future for Commit {
    type Output = Result<(), WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Done(outcome) => Poll::Ready(outcome.clone()),
            State::Waiting { outcome, when_failed } => {
                // The writer has panicked and dropped the sender.
                let outcome = ready!(Pin::new(outcome).poll(context));
                Poll::Ready(when_failed.apply(outcome.unwrap_or(Err(WriteError::Panicked))))
            }
            State::Both { commits, first } => {
                let [one, other] = &mut **commits;
                if first.is_none() {
                    *first = Some(ready!(Pin::new(one).poll(context)));
                }
                let second = ready!(Pin::new(other).poll(context));
                Poll::Ready(first.take().unwrap_or(Ok(())).and(second))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(commit: &mut Commit) -> Poll<Result<(), WriteError>> {
        Pin::new(commit).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_a_strict_failure_is_an_error() {
        let failed = || Err(WriteError::ShutDown);
        let mut ignored = Commit::known(failed(), WhenFailed::Continue);
        assert!(matches!(poll(&mut ignored), Poll::Ready(Ok(()))));
        let mut refused = Commit::known(failed(), WhenFailed::Refuse);
        assert!(matches!(poll(&mut refused), Poll::Ready(Err(WriteError::ShutDown))));
        for when_failed in [WhenFailed::Continue, WhenFailed::Refuse] {
            let (sender, mut commit) = Commit::waiting(when_failed);
            assert!(poll(&mut commit).is_pending(), "it waits all the same");
            sender.send(failed()).unwrap();
            let Poll::Ready(outcome) = poll(&mut commit) else { panic!("it was sent") };
            assert_eq!(outcome.is_err(), when_failed == WhenFailed::Refuse);
        }
        let (sender, mut commit) = Commit::waiting(WhenFailed::Refuse);
        drop(sender);
        assert!(matches!(poll(&mut commit), Poll::Ready(Err(WriteError::Panicked))));
    }

    #[test]
    fn both_are_awaited_and_the_first_error_counts() {
        let (first, one) = Commit::waiting(WhenFailed::Refuse);
        let (second, other) = Commit::waiting(WhenFailed::Refuse);
        let mut both = one.and(Commit::DONE).and(other);
        first.send(Err(WriteError::ShutDown)).unwrap();
        assert!(poll(&mut both).is_pending());
        second.send(Err(WriteError::Panicked)).unwrap();
        assert!(matches!(poll(&mut both), Poll::Ready(Err(WriteError::ShutDown))));
    }
}
