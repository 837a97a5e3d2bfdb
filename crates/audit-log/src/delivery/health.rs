//! Tracks whether the destination accepts events.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::DeliveryMetrics;
use crate::BackendState;

/// An endpoint that requests wait for is unhealthy after this time without a response. Shorter than
/// the timeout of a check by `/readyz`.
pub(crate) const AWAITED: Duration = Duration::from_millis(1500);
/// The same for an endpoint that no request waits for.
pub(crate) const UNAWAITED: Duration = Duration::from_secs(10);

/// The health of a destination.
#[derive(Debug)]
pub(crate) struct Health {
    condition: watch::Sender<Condition>,
    waiting: Mutex<Waiting>,
    /// The time without a response after which the destination is unhealthy.
    hangs: Duration,
    /// The number of completed attempts.
    ended: watch::Sender<u64>,
    /// The name of the destination in messages, such as `the webhook`.
    name: &'static str,
    metrics: Arc<DeliveryMetrics>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// The destination accepted the last list, or there was none.
    Healthy,
    /// The destination did not accept the last list, which will be sent again. Contains the reason.
    InDoubt(Arc<str>),
    /// All attempts to send the last list have failed. Contains the reason.
    Failing(Arc<str>),
}

/// Attempts that have no response yet.
#[derive(Debug, Default)]
struct Waiting {
    attempts: usize,
    /// When the first of them began, or another attempt ended.
    since: Option<Instant>,
}

impl Health {
    /// Creates the health of a new destination. `name` is used in messages, such as `the webhook`.
    pub(crate) fn new(
        name: &'static str,
        hangs: Duration,
        metrics: Arc<DeliveryMetrics>,
    ) -> Health {
        Health {
            condition: watch::Sender::new(Condition::Healthy),
            waiting: Mutex::default(),
            hangs,
            ended: watch::Sender::new(0),
            name,
            metrics,
        }
    }

    /// Awaits an attempt that may hang.
    pub(crate) async fn watched<T>(&self, attempt: impl Future<Output = T>) -> T {
        // Also dropped if the attempt is cancelled.
        let _attempt = AttemptInProgress::new(self);
        attempt.await
    }

    /// Notes a response, even one that rejects the list.
    pub(crate) fn responded(&self) {
        if *self.condition.borrow() != Condition::Healthy {
            self.metrics.healthy.set(1);
            self.condition.send_replace(Condition::Healthy);
            tracing::info!(sink = self.metrics.backend.name(), "{} responds again", self.name);
        }
    }

    /// Notes that an attempt has failed.
    pub(crate) fn attempt_failed(&self, reason: &Arc<str>) {
        self.metrics.healthy.set(0);
        self.condition.send_if_modified(|condition| {
            let was_healthy = *condition == Condition::Healthy;
            if was_healthy {
                *condition = Condition::InDoubt(reason.clone());
            }
            was_healthy
        });
    }

    /// Notes that all attempts have failed.
    pub(crate) fn all_attempts_failed(&self, reason: &Arc<str>) {
        self.metrics.healthy.set(0);
        self.condition.send_replace(Condition::Failing(reason.clone()));
    }

    /// Returns whether the destination accepts events. If the last attempt failed, waits for the
    /// outcome of the attempts in progress, like an event would.
    pub(crate) async fn accepts_events(&self) -> bool {
        let mut condition = self.condition.subscribe();
        let known = condition.wait_for(|now| !matches!(now, Condition::InDoubt(_))).await;
        known.is_ok_and(|condition| *condition == Condition::Healthy)
    }

    /// Returns whether all attempts to deliver the last list have failed.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(*self.condition.borrow(), Condition::Failing(_))
    }

    /// Returns whether the destination accepted the last list and does not hang.
    pub(crate) fn state(&self) -> BackendState {
        match &*self.condition.borrow() {
            Condition::InDoubt(reason) | Condition::Failing(reason) => {
                BackendState::Failing(format!("{} does not accept events: {reason}", self.name))
            }
            Condition::Healthy => match self.hanging() {
                Some(time) => BackendState::Failing(silent(self.name, time)),
                None => BackendState::Ok,
            },
        }
    }

    /// Like [`Self::state`], but if an attempt is in progress, waits for its outcome, or until it
    /// hangs.
    ///
    /// # Errors
    /// Returns the reason if the destination is unhealthy.
    /// Returns what is wrong.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut ended = self.ended.subscribe();
        let since = self.waiting().since;
        if self.state() == BackendState::Ok
            && let Some(since) = since
        {
            // An attempt that ends updates the state; if none ends, the endpoint hangs.
            let _ = tokio::time::timeout_at(since + self.hangs, ended.changed()).await;
        }
        match self.state() {
            BackendState::Ok => Ok(()),
            BackendState::Failing(reason) => Err(reason),
        }
    }

    /// Returns the time without a response, if it is too long.
    fn hanging(&self) -> Option<Duration> {
        self.waiting().since.map(|since| since.elapsed()).filter(|time| *time >= self.hangs)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds this")
    }
}

fn silent(name: &str, time: Duration) -> String {
    format!("{name} has not responded for {:.1} s", time.as_secs_f64())
}

/// An attempt in progress.
struct AttemptInProgress<'a>(&'a Health);

impl<'a> AttemptInProgress<'a> {
    fn new(health: &'a Health) -> AttemptInProgress<'a> {
        let mut waiting = health.waiting();
        waiting.attempts += 1;
        waiting.since.get_or_insert_with(Instant::now);
        AttemptInProgress(health)
    }
}

impl Drop for AttemptInProgress<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.attempts -= 1;
        waiting.since = (waiting.attempts > 0).then(Instant::now);
        drop(waiting);
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> (Arc<Health>, Arc<DeliveryMetrics>) {
        let metrics = Arc::new(DeliveryMetrics::default());
        (Arc::new(Health::new("the webhook", AWAITED, metrics.clone())), metrics)
    }

    #[tokio::test]
    async fn a_check_waits_for_the_outcome_of_a_pending_attempt() {
        let (health, metrics) = health();
        assert!(health.accepts_events().await);
        let ask = || {
            let health = health.clone();
            tokio::spawn(async move { health.accepts_events().await })
        };
        let refused: Arc<str> = "it responded with 500".into();
        let reason = "the webhook does not accept events: it responded with 500".to_owned();
        health.attempt_failed(&refused);
        let asked = ask();
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        assert_eq!(
            health.state(),
            BackendState::Failing(reason.clone()),
            "the last attempt failed"
        );
        assert_eq!(metrics.healthy.get(), 0);
        health.responded();
        assert!(asked.await.unwrap());
        assert_eq!((metrics.healthy.get(), health.state()), (1, BackendState::Ok));

        health.attempt_failed(&refused);
        let asked = ask();
        tokio::task::yield_now().await;
        health.all_attempts_failed(&refused);
        assert!(!asked.await.unwrap());
        health.attempt_failed(&refused);
        assert!(!health.accepts_events().await, "a further failure is no better");
        assert_eq!(health.state(), BackendState::Failing(reason));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_detects_a_hanging_endpoint() {
        let (health, _) = health();
        assert_eq!(health.check().await, Ok(()), "nothing is under way");
        let hanging = health.clone();
        let hanging =
            tokio::spawn(async move { hanging.watched(std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        let started = Instant::now();
        let reason = health.check().await.unwrap_err();
        assert_eq!(reason, "the webhook has not responded for 1.5 s");
        assert_eq!(started.elapsed(), AWAITED);
        // Another attempt ends, so the endpoint responds.
        health.watched(async {}).await;
        assert_eq!(health.state(), BackendState::Ok);
        hanging.abort();
        let _ = hanging.await;
        tokio::time::sleep(AWAITED * 2).await;
        assert_eq!(health.check().await, Ok(()));

        let slow = health.clone();
        tokio::spawn(async move { slow.watched(tokio::time::sleep(AWAITED / 2)).await });
        tokio::task::yield_now().await;
        let started = Instant::now();
        assert_eq!(health.check().await, Ok(()), "it waits for the outcome");
        assert_eq!(started.elapsed(), AWAITED / 2);
    }
}
