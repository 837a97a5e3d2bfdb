//! Whether the receiver takes events, as far as its answers tell.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics::SinkMetrics;
use crate::sink::SinkState;

/// What is known of the receiver.
#[derive(Debug)]
pub(super) struct Health {
    condition: watch::Sender<Condition>,
    metrics: Arc<SinkMetrics>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// It took the last list, or there was none.
    Well,
    /// It did not, and is asked again.
    InDoubt,
    /// It has not taken a list in all attempts; with the reason.
    Failing(Arc<str>),
}

impl Health {
    pub(super) fn new(metrics: Arc<SinkMetrics>) -> Health {
        Health { condition: watch::Sender::new(Condition::Well), metrics }
    }

    /// It has answered, be it that it does not want this list.
    pub(super) fn is_well(&self) {
        if *self.condition.borrow() != Condition::Well {
            self.metrics.webhook_failing.set(0);
            self.condition.send_replace(Condition::Well);
            tracing::info!("the webhook answers again");
        }
    }

    /// An attempt has failed.
    pub(super) fn doubt(&self) {
        self.metrics.webhook_failing.set(1);
        self.condition.send_if_modified(|condition| {
            let was_well = *condition == Condition::Well;
            if was_well {
                *condition = Condition::InDoubt;
            }
            was_well
        });
    }

    /// All attempts have failed.
    pub(super) fn fails(&self, reason: &Arc<str>) {
        self.metrics.webhook_failing.set(1);
        self.condition.send_replace(Condition::Failing(reason.clone()));
    }

    /// Whether it takes events. While that is in doubt, waits for the outcome of the attempts that
    /// are under way, as an event would.
    pub(super) async fn takes_events(&self) -> bool {
        let mut condition = self.condition.subscribe();
        let known = condition.wait_for(|condition| *condition != Condition::InDoubt).await;
        known.is_ok_and(|condition| *condition == Condition::Well)
    }

    pub(super) fn state(&self) -> SinkState {
        match &*self.condition.borrow() {
            Condition::Well | Condition::InDoubt => SinkState::Ok,
            Condition::Failing(reason) => {
                SinkState::Failing(format!("the webhook does not take events: {reason}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_in_doubt_waits_for_the_outcome() {
        let metrics = Arc::new(SinkMetrics::default());
        let health = Arc::new(Health::new(metrics.clone()));
        assert!(health.takes_events().await);
        let ask = || {
            let health = health.clone();
            tokio::spawn(async move { health.takes_events().await })
        };
        health.doubt();
        let asked = ask();
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        assert_eq!((health.state(), metrics.webhook_failing.value()), (SinkState::Ok, 1));
        health.is_well();
        assert!(asked.await.unwrap());
        assert_eq!(metrics.webhook_failing.value(), 0);

        health.doubt();
        let asked = ask();
        tokio::task::yield_now().await;
        health.fails(&"it answered 500".into());
        assert!(!asked.await.unwrap());
        health.doubt();
        assert!(!health.takes_events().await, "a further failure is no better");
        let reason = "the webhook does not take events: it answered 500".to_owned();
        assert_eq!(health.state(), SinkState::Failing(reason));
    }
}
