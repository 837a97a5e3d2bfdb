//! Collects events into batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::list;
use super::sender::{Ending, GAVE_UP, Sender};
use crate::delivery::spool::{self, Spool};
use crate::{Bucket, DroppedEvents, Line, Throttle};

/// Maximum number of batches in flight without a spool, including retries. kube-apiserver has no
/// limit, so its memory usage grows.
const IN_FLIGHT: usize = 16;

/// Collects events from the queue into batches and passes them on.
pub(super) struct Collector {
    pub(super) sender: Arc<Sender>,
    pub(super) outlet: Outlet,
    pub(super) lost: Arc<DroppedEvents>,
    pub(super) ending: Ending,
    pub(super) max_size: usize,
    pub(super) max_wait: Duration,
    pub(super) throttle: Option<Throttle>,
}

/// Where batches go.
pub(super) enum Outlet {
    /// To the endpoint. Each batch is sent by a task of its own; the semaphore limits their number.
    Direct(Arc<Semaphore>, TaskTracker),
    /// To the spool on disk, from which one task sends them.
    Spool(Arc<Spool>, JoinHandle<()>),
}

impl Outlet {
    /// Creates a collector that passes batches to the spool, if there is one, and starts sending
    /// from it.
    pub(super) fn new(
        spool: Option<Arc<Spool>>,
        sender: &Arc<Sender>,
        lost: &Arc<DroppedEvents>,
    ) -> Outlet {
        match spool {
            Some(spool) => {
                let draining = spool::drain(spool.clone(), sender.clone(), lost.clone());
                Outlet::Spool(spool, tokio::spawn(draining))
            }
            None => Outlet::Direct(Arc::new(Semaphore::new(IN_FLIGHT)), TaskTracker::new()),
        }
    }
}

impl Collector {
    /// Runs until the queue is closed and all batches are delivered, in the spool, or lost.
    pub(super) async fn run(self, mut events: mpsc::Receiver<Line>) {
        let mut bucket = self.throttle.map(|throttle| Bucket::new(throttle, Instant::now()));
        while let Some(first) = events.recv().await {
            let batch = self.batch(first, &mut events).await;
            if let Some(bucket) = &mut bucket {
                self.throttle(bucket).await;
            }
            let count = batch.len() as u64;
            tokio::select! {
                biased;
                () = self.pass(batch) => {}
                () = self.ending.give_up.cancelled() => self.lost.add(count, &GAVE_UP),
            }
        }
        match self.outlet {
            Outlet::Direct(_, sending) => {
                sending.close();
                sending.wait().await;
            }
            Outlet::Spool(spool, draining) => {
                spool.close();
                let draining = std::pin::pin!(draining);
                tokio::select! {
                    _ = draining => {}
                    // The batch is in the spool.
                    () = self.ending.give_up.cancelled() => {}
                }
            }
        }
    }

    /// Waits until the throttle allows a batch. Does not wait while the process shuts down.
    async fn throttle(&self, bucket: &mut Bucket) {
        while let Err(until) = bucket.take(Instant::now()) {
            let token = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token => {}
                () = self.ending.closing.cancelled() => return,
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
        // The batch is sent when it is full, its maximum wait has passed, or the queue is closed.
        let _ = tokio::time::timeout(self.max_wait, full).await;
        batch
    }

    async fn pass(&self, batch: Vec<Line>) {
        let (count, body) = (batch.len() as u64, list::encode(&batch));
        match &self.outlet {
            Outlet::Spool(spool, _) => {
                if let Err(error) = spool.push(body, count, &self.ending.give_up).await {
                    self.lost.add(count, &error);
                }
            }
            Outlet::Direct(in_flight, sending) => {
                let permit = in_flight.clone().acquire_owned().await;
                let (sender, lost) = (self.sender.clone(), self.lost.clone());
                sending.spawn(async move {
                    if let Err((count, failure)) = sender.send(&body, count).await {
                        lost.add(count, &failure);
                    }
                    drop(permit);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
