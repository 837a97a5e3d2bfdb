//! Events sent to a receiver over HTTP, as kube-apiserver's webhook backend does.
//!
//! [`Webhook::submit`] puts an event into a bounded queue. Batches of it become `EventList`s,
//! which are sent as they come, or (with a spool) written to files first and sent from there, so that
//! a receiver that is down costs disk and neither events nor memory. In the blocking modes each
//! event is a list of its own, whose answer the request waits for.

mod config;
mod health;
mod list;
mod sender;
mod spool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinHandle;

pub use self::config::{SpoolConfig, WebhookConfig, WebhookError};

use self::health::Health;
use self::sender::{Failure, Sender};
use self::spool::Spool;
use crate::metrics::{Plugin, SinkMetrics};
use crate::sink::{Ack, Bucket, Line, Losses, Mode, SinkState, Throttle, WriteError};
use crate::upstream::Upstream;

/// Batches that may be under way, retries included, where there is no spool. kube-apiserver knows
/// no limit, and grows.
const IN_FLIGHT: usize = 16;

/// Takes encoded events.
#[derive(Debug)]
pub struct Webhook {
    strict: bool,
    /// Events larger than this are not sent, in bytes with their newline.
    max_event_size: Option<usize>,
    too_large: Losses,
    lost: Arc<Losses>,
    metrics: Arc<SinkMetrics>,
    health: Arc<Health>,
    receiver: Upstream,
    route: Route,
}

#[derive(Debug)]
enum Route {
    /// Nobody waits.
    Queue {
        /// None: shut down.
        events: std::sync::Mutex<Option<mpsc::Sender<Line>>>,
        overflow: Losses,
        collector: Mutex<Option<JoinHandle<()>>>,
    },
    /// Each event is sent by itself.
    Direct { sender: Arc<Sender>, in_flight: Arc<Semaphore>, probing: Arc<AtomicBool> },
}

/// For what there are permits in [`Route::Direct`]: as many as requests may be under way.
const DIRECT: u32 = 1 << 20;

impl Webhook {
    /// Reads the configuration file and begins to send what is in the spool. Must be called
    /// within a tokio runtime. The receiver need not be there.
    ///
    /// # Errors
    /// The configuration or the spool's folder cannot be used.
    pub fn start(
        config: WebhookConfig,
        metrics: Arc<SinkMetrics>,
    ) -> Result<Webhook, WebhookError> {
        let sender = Arc::new(Sender::new(&config, metrics.clone())?);
        let lost = Arc::new(Losses::new(Plugin::Webhook, metrics.clone()));
        let strict = config.mode == Mode::BlockingStrict;
        let health = sender.health();
        let receiver = sender.receiver().clone();
        let route = match config.mode {
            Mode::Blocking | Mode::BlockingStrict => {
                let in_flight = Arc::new(Semaphore::new(DIRECT as usize));
                Route::Direct { sender, in_flight, probing: Arc::default() }
            }
            Mode::Batch { buffer_size, max_size, max_wait, throttle } => {
                let outlet = match &config.spool {
                    Some(spool) => {
                        let spool = Arc::new(Spool::open(spool, metrics.clone())?);
                        let draining = spool::drain(spool.clone(), sender.clone(), lost.clone());
                        Outlet::Spool(spool, tokio::spawn(draining))
                    }
                    None => Outlet::Direct(Arc::new(Semaphore::new(IN_FLIGHT))),
                };
                let (events, received) = mpsc::channel(buffer_size);
                let lost = lost.clone();
                let collector = Collector { sender, outlet, lost, max_size, max_wait, throttle };
                Route::Queue {
                    events: std::sync::Mutex::new(Some(events)),
                    overflow: Losses::new(Plugin::Buffered, metrics.clone()),
                    collector: Mutex::new(Some(tokio::spawn(collector.run(received)))),
                }
            }
        };
        let too_large = Losses::new(Plugin::Truncate, metrics.clone());
        let max_event_size = config.max_event_size;
        Ok(Webhook { strict, max_event_size, too_large, lost, metrics, health, receiver, route })
    }

    /// The webhook endpoint, whose settings may be replaced.
    pub fn receiver(&self) -> &Upstream {
        &self.receiver
    }

    /// The longest event that is sent, if events are truncated.
    pub fn max_event_size(&self) -> Option<usize> {
        self.max_event_size
    }

    /// Whether a request must be refused when its first event is not taken.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether requests wait for the receiver.
    pub fn is_awaited(&self) -> bool {
        matches!(self.route, Route::Direct { .. })
    }

    /// Whether the receiver takes events, as far as is known without sending one: for requests that
    /// must be refused before they have an event to send.
    pub async fn is_writable(&self) -> bool {
        self.health.takes_events().await
    }

    /// Whether the receiver took the last events.
    pub fn state(&self) -> SinkState {
        self.health.state()
    }

    /// Hands over one event as a line of JSON. Never waits. In batch mode the [`Ack`] is ready at
    /// once; else when the receiver has taken the event, or all attempts have failed.
    pub fn submit(&self, line: impl Into<Line>) -> Ack {
        let line = line.into();
        self.metrics.events.increment();
        if self.max_event_size.is_some_and(|limit| line.len() > limit) {
            // As with kube-apiserver that is no failure.
            self.too_large.add(1, &"event is too large even after truncating");
            return Ack::ready(Ok(()));
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
                Ack::ready(Ok(()))
            }
            Route::Direct { sender, in_flight, probing } => {
                let Ok(permit) = in_flight.clone().try_acquire_owned() else {
                    self.lost.add(1, &WriteError::ShutDown);
                    return Ack::ready(Err(WriteError::ShutDown));
                };
                let (answer, ack) = Ack::waiting();
                let (sender, lost) = (sender.clone(), self.lost.clone());
                let probing = self.strict.then(|| probing.clone());
                tokio::spawn(async move {
                    let list = list::encode(&[line]);
                    let sent = sender.send(&list, 1).await;
                    if let Err(failure) = &sent {
                        lost.add(1, failure);
                        if let Some(probing) = probing {
                            tokio::spawn(probe(sender, list, probing));
                        }
                    }
                    // Whoever asked may be gone.
                    let _ =
                        answer.send(sent.map_err(|Failure(reason)| WriteError::Webhook(reason)));
                    drop(permit);
                });
                ack
            }
        }
    }

    /// Returns when all events have been sent or lost, or are in the spool for the next start.
    pub async fn shutdown(&self) {
        match &self.route {
            Route::Queue { events, collector, overflow } => {
                drop(events.lock().expect("nothing panics while it holds the queue").take());
                if let Some(collector) = collector.lock().await.take() {
                    // A panic of it has been logged.
                    let _ = collector.await;
                }
                overflow.flush();
            }
            Route::Direct { in_flight, .. } => {
                if let Ok(all) = in_flight.acquire_many(DIRECT).await {
                    all.forget();
                }
                in_flight.close();
            }
        }
        self.too_large.flush();
        self.lost.flush();
    }
}

/// Sends a list, given up already, until the receiver answers: where requests are refused as long as
/// it does not, nobody else would find out. So that event may arrive after all.
async fn probe(sender: Arc<Sender>, list: Vec<u8>, probing: Arc<AtomicBool>) {
    let body = sender.body(&list);
    // Again, because it may fail anew while this one has just seen it well.
    while !sender.is_well() && !probing.swap(true, Ordering::SeqCst) {
        while !sender.is_well() {
            tokio::time::sleep(sender.pause(0, None)).await;
            let _ = sender.attempt(body.clone(), 1).await;
        }
        probing.store(false, Ordering::SeqCst);
    }
}

/// Makes batches of events.
struct Collector {
    sender: Arc<Sender>,
    outlet: Outlet,
    lost: Arc<Losses>,
    max_size: usize,
    max_wait: std::time::Duration,
    throttle: Option<Throttle>,
}

/// Where batches go.
enum Outlet {
    /// To the receiver, by a task each.
    Direct(Arc<Semaphore>),
    /// To the disk, from where one task sends them.
    Spool(Arc<Spool>, JoinHandle<()>),
}

impl Collector {
    async fn run(self, mut events: mpsc::Receiver<Line>) {
        let mut bucket = self.throttle.map(|throttle| Bucket::new(throttle, Instant::now()));
        while let Some(first) = events.recv().await {
            let batch = self.batch(first, &mut events).await;
            if let Some(bucket) = &mut bucket {
                while let Err(until) = bucket.take(Instant::now()) {
                    match until {
                        Some(until) => tokio::time::sleep_until(until.into()).await,
                        None => std::future::pending().await,
                    }
                }
            }
            self.pass(batch).await;
        }
        match self.outlet {
            Outlet::Direct(in_flight) => {
                // Each batch has one; all of them means that none is under way.
                let _ = in_flight.acquire_many(IN_FLIGHT as u32).await;
            }
            Outlet::Spool(spool, draining) => {
                spool.close();
                let _ = draining.await;
            }
        }
    }

    async fn batch(&self, first: Line, events: &mut mpsc::Receiver<Line>) -> Vec<Line> {
        let mut batch = vec![first];
        let full = async {
            while batch.len() < self.max_size {
                match events.recv().await {
                    Some(event) => batch.push(event),
                    None => break,
                }
            }
        };
        // Whether it is full, its time has come, or the end has: it goes.
        let _ = tokio::time::timeout(self.max_wait, full).await;
        batch
    }

    async fn pass(&self, batch: Vec<Line>) {
        let (count, body) = (batch.len() as u64, list::encode(&batch));
        match &self.outlet {
            Outlet::Spool(spool, _) => {
                if let Err(error) = spool.push(body, count).await {
                    self.lost.add(count, &error);
                }
            }
            Outlet::Direct(in_flight) => {
                let permit = in_flight.clone().acquire_owned().await;
                let (sender, lost) = (self.sender.clone(), self.lost.clone());
                tokio::spawn(async move {
                    if let Err(failure) = sender.send(&body, count).await {
                        lost.add(count, &failure);
                    }
                    drop(permit);
                });
            }
        }
    }
}
