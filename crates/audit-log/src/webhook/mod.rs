//! Webhook backends: events are sent to an endpoint over HTTP, like kube-apiserver's webhook
//! backend does.
//!
//! In `batch`, [`WebhookBackend::submit`] puts an event into a bounded queue. Batches become
//! `EventList`s, which are sent immediately, or (with a spool) written to files first and sent from
//! there, so that an outage of the endpoint costs disk space and neither events nor memory. In the
//! blocking modes each event is sent in a list of its own, and the request waits for the response.
//!
//! # When the queue is full, the endpoint slow or failing
//!
//! - Queue full (`batch`): [`WhenFull::DropNewest`](crate::WhenFull); the event is counted under
//!   `apiserver_audit_error_total{plugin="buffered"}`.
//! - Spool full, or no spool and the endpoint does not accept a batch in five attempts: the batch
//!   is dropped and counted under `plugin="webhook"`.
//! - Disk of the spool failing: the batch waits in memory until it can be written; the queue fills.
//! - Endpoint slow: at most 16 batches are sent at a time without a spool, one with a spool; events
//!   wait in the queue. In the blocking modes the request waits, for up to five attempts of 30 s
//!   each.
//! - Endpoint failing in a blocking mode: the event is counted under `plugin="webhook"`;
//!   [`WhenFailed`](crate::WhenFailed) decides whether the request fails. The list is sent again
//!   until the endpoint accepts it, which is how the recovery of the endpoint is detected.

mod client;
mod collector;
mod config;
#[cfg(test)]
mod fake_client;
pub(crate) mod list;
mod response;
mod sender;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::client::{ClientError, PostRequest, PostResponse, WebhookClient};
pub use self::config::{WebhookConfig, WebhookError};
pub use crate::delivery::SpoolConfig;

use self::collector::{Collector, Outlet};
use self::sender::{Ending, Sender};
use crate::delivery::spool::{Spool, SpoolKind};
use crate::delivery::{DeliveryMetrics, Health};
use crate::{BackendState, Commit, DroppedEvents, Line, Mode, Plugin, WhenFailed, WriteError};

/// Properties of the spool of a webhook backend.
pub(crate) const SPOOL: SpoolKind = SpoolKind {
    name: "the webhook's spool",
    size_flag: "--audit-webhook-spool-max-size",
    format: &list::FORMAT,
};
/// Time for counting lost events after the shutdown has timed out.
const COUNTING: Duration = Duration::from_millis(200);

/// Accepts encoded events and sends them to a webhook endpoint.
#[derive(Debug)]
pub struct WebhookBackend {
    when_failed: WhenFailed,
    /// Events longer than this many bytes, including the newline, are not sent.
    max_event_size: Option<usize>,
    too_large: DroppedEvents,
    lost: Arc<DroppedEvents>,
    metrics: Arc<DeliveryMetrics>,
    health: Arc<Health>,
    ending: Ending,
    route: Route,
}

#[derive(Debug)]
enum Route {
    /// Requests do not wait.
    Queue {
        /// `None` after the shutdown.
        events: std::sync::Mutex<Option<mpsc::Sender<Line>>>,
        overflow: DroppedEvents,
        collector: Mutex<Option<JoinHandle<()>>>,
        spool: Option<Arc<Spool>>,
    },
    /// Each event is sent in a list of its own.
    Direct {
        sender: Arc<Sender>,
        sending: TaskTracker,
        probing: Arc<AtomicBool>,
        /// The runtime that sends events. The thread of the request may end before the event is
        /// sent.
        runtime: Handle,
    },
}

impl WebhookBackend {
    /// Starts sending with `client`, beginning with the batches in the spool. Must be called within
    /// a tokio runtime. The endpoint need not be reachable yet.
    ///
    /// # Errors
    /// Returns an error if the spool directory cannot be used.
    pub fn start(
        config: WebhookConfig,
        client: Arc<dyn WebhookClient>,
        metrics: Arc<DeliveryMetrics>,
    ) -> Result<WebhookBackend, WebhookError> {
        let ending = Ending::default();
        let sender = Arc::new(Sender::new(&config, client, metrics.clone(), ending.clone()));
        let lost = Arc::new(DroppedEvents::new(Plugin::Webhook, metrics.backend.clone()));
        let when_failed = config.mode.when_failed();
        let health = sender.health();
        let route = match config.mode {
            Mode::Blocking | Mode::BlockingStrict => {
                let (probing, runtime) = (Arc::default(), Handle::current());
                Route::Direct { sender, sending: TaskTracker::new(), probing, runtime }
            }
            Mode::Batch { buffer_size, max_size, max_wait, throttle } => {
                let spool = match &config.spool {
                    Some(spool) => {
                        let opened = Spool::open(spool, &SPOOL, metrics.clone());
                        let wrong = |error| WebhookError::spool(spool.dir.clone(), error);
                        Some(Arc::new(opened.map_err(wrong)?))
                    }
                    None => None,
                };
                let outlet = Outlet::new(spool.clone(), &sender, &lost);
                let (events, received) = mpsc::channel(buffer_size);
                let (lost, ending) = (lost.clone(), ending.clone());
                let collector =
                    Collector { sender, outlet, lost, ending, max_size, max_wait, throttle };
                Route::Queue {
                    events: std::sync::Mutex::new(Some(events)),
                    overflow: DroppedEvents::new(Plugin::Buffered, metrics.backend.clone()),
                    collector: Mutex::new(Some(tokio::spawn(collector.run(received)))),
                    spool,
                }
            }
        };
        let too_large = DroppedEvents::new(Plugin::Truncate, metrics.backend.clone());
        let max_event_size = config.max_event_size;
        Ok(WebhookBackend {
            when_failed,
            max_event_size,
            too_large,
            lost,
            metrics,
            health,
            ending,
            route,
        })
    }

    /// Returns the maximum length of an event that is sent, if events are truncated.
    pub fn max_event_size(&self) -> Option<usize> {
        self.max_event_size
    }

    /// Returns whether a request must be rejected when its first event is not accepted.
    pub fn is_strict(&self) -> bool {
        self.when_failed == WhenFailed::Refuse
    }

    /// Returns whether requests wait for the endpoint.
    pub fn is_awaited(&self) -> bool {
        matches!(self.route, Route::Direct { .. })
    }

    /// Returns whether the endpoint is expected to accept an event. Used for requests that must be
    /// rejected before they have an event to send. If the last attempt failed, waits for the
    /// attempts in progress.
    pub async fn is_writable(&self) -> bool {
        self.health.accepts_events().await
    }

    /// Returns whether the endpoint accepted the last events, and the spool works.
    pub fn state(&self) -> BackendState {
        if let Route::Queue { spool: Some(spool), .. } = &self.route
            && let failing @ BackendState::Failing(_) = spool.state()
        {
            return failing;
        }
        self.health.state()
    }

    /// Returns whether the endpoint accepts events: like [`Self::state`], but probes the endpoint
    /// if requests wait for it.
    ///
    /// # Errors
    /// Returns the reason if the endpoint does not accept events.
    pub async fn check(&self) -> Result<(), String> {
        match &self.route {
            Route::Direct { sender, .. } => {
                self.health.check().await?;
                let connected = sender.connect().await;
                connected.map_err(|reason| format!("the webhook cannot be reached: {reason}"))
            }
            Route::Queue { .. } => match self.state() {
                BackendState::Ok => Ok(()),
                BackendState::Failing(reason) => Err(reason),
            },
        }
    }

    /// Logs pending counts of lost events. Must be called about once a second.
    pub fn tick(&self) {
        self.too_large.tick();
        self.lost.tick();
        if let Route::Queue { overflow, .. } = &self.route {
            overflow.tick();
        }
    }

    /// Submits one event as a line of JSON. Never waits. In batch mode the [`Commit`] is ready at
    /// once, otherwise when the endpoint has accepted the event or all attempts have failed.
    pub fn submit(&self, line: impl Into<Line>) -> Commit {
        let line = line.into();
        self.metrics.backend.events.inc();
        if self.max_event_size.is_some_and(|limit| line.len() > limit) {
            // Like in kube-apiserver, this does not fail the request.
            self.too_large.add(1, &"event is too large even after truncating");
            return Commit::DONE;
        }
        match &self.route {
            Route::Queue { events, overflow, .. } => {
                let events = events.lock().expect("nothing panics while it holds the queue");
                match events.as_ref().map(|events| events.try_send(line)) {
                    Some(Ok(())) => {}
                    Some(Err(mpsc::error::TrySendError::Full(_))) => {
                        overflow.add(1, &"audit buffer queue blocked");
                    }
                    Some(Err(mpsc::error::TrySendError::Closed(_))) | None => {
                        overflow.add(1, &WriteError::ShutDown);
                    }
                }
                Commit::DONE
            }
            Route::Direct { sender, sending, probing, runtime } => {
                // Taken first, so that the shutdown either waits for this event or has already
                // begun.
                let tracked = sending.token();
                if self.ending.closing.is_cancelled() {
                    self.lost.add(1, &WriteError::ShutDown);
                    return Commit::known(Err(WriteError::ShutDown), self.when_failed);
                }
                let (outcome, commit) = Commit::waiting(self.when_failed);
                let (sender, lost) = (sender.clone(), self.lost.clone());
                let probing = probing.clone();
                runtime.spawn(async move {
                    let list = list::encode(&[line]);
                    let sent = sender.send(&list, 1).await;
                    if let Err((_, failure)) = &sent {
                        lost.add(1, failure);
                        tokio::spawn(probe(sender, list, probing));
                    }
                    // The request may have been dropped.
                    let _ =
                        outcome.send(sent.map_err(|(_, failure)| WriteError::Webhook(failure.0)));
                    drop(tracked);
                });
                commit
            }
        }
    }

    /// Delivers the queued events until `give_up` is cancelled. Returns when all events are
    /// delivered, in the spool, or counted as lost and logged.
    pub async fn shutdown(&self, give_up: &CancellationToken) {
        self.ending.closing.cancel();
        let delivered = async {
            match &self.route {
                Route::Queue { events, collector, .. } => {
                    drop(events.lock().expect("nothing panics while it holds the queue").take());
                    if let Some(collector) = &mut *collector.lock().await {
                        // A panic of the task has been logged.
                        let _ = collector.await;
                    }
                }
                Route::Direct { sending, .. } => {
                    sending.close();
                    sending.wait().await;
                }
            }
        };
        let mut delivered = std::pin::pin!(delivered);
        tokio::select! {
            () = &mut delivered => {}
            () = give_up.cancelled() => {
                self.ending.give_up.cancel();
                let _ = tokio::time::timeout(COUNTING, delivered).await;
            }
        }
        self.flush_losses();
    }

    /// Logs all pending counts of lost events now.
    pub fn flush_losses(&self) {
        if let Route::Queue { overflow, .. } = &self.route {
            overflow.flush();
        }
        self.too_large.flush();
        self.lost.flush();
    }
}

/// Sends a list that is already counted as lost until the endpoint responds. While requests are
/// rejected, or clients are routed to another proxy, nothing else would detect the recovery. A lost
/// event may therefore still be delivered.
async fn probe(sender: Arc<Sender>, list: Vec<u8>, probing: Arc<AtomicBool>) {
    let (body, health) = (sender.body(&list), sender.health());
    // In a loop, because the endpoint may fail again right after this attempt has seen it healthy.
    while health.is_given_up() && !probing.swap(true, Ordering::SeqCst) {
        while health.is_given_up() {
            tokio::time::sleep(sender.delay(0, None)).await;
            let _ = sender.attempt(body.clone(), 1).await;
        }
        probing.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
