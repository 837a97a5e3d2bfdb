//! Stream backends send events to a [`Destination`], such as object storage, from a spool on disk.
//!
//! [`StreamBackend::submit`] puts an event into a bounded queue. A writer appends the queued events
//! to the open segment of the spool. A segment is closed when it is large or old enough
//! ([`StreamConfig`]), and at shutdown. Closed segments are sent one at a time, the oldest first,
//! until the destination has accepted them; then they are deleted. Each event therefore arrives at
//! least once and in order, even if the process is killed, and an outage of the destination costs
//! disk space and neither events nor memory.
//!
//! # Modes
//! In `batch` no request waits. In the blocking modes a request waits until its event is in the
//! spool, not until the destination has it: events of completed requests survive `kill -9`. They
//! are synced to the disk within a second, and when the segment is closed.
//!
//! # When something fails
//! - Queue full: the event is lost and counted under `plugin="buffered"`.
//! - Spool full: new events are lost and counted under `plugin="stream"`.
//! - Disk of the spool failing: in `batch` the events wait in memory until they can be written, and
//!   the queue fills. In the blocking modes they are lost and counted under `plugin="stream"`;
//!   [`WhenFailed`] decides whether their requests fail.
//! - Destination failing: events wait in the spool. If it rejects a segment permanently, the
//!   segment is kept as `*.rejected` and counted under `plugin="stream"`.

mod courier;
mod lines;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as SyncMutex};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::courier::StreamCourier;
use self::writer::{Item, Writer};
use crate::delivery::spool::{self, Spool, SpoolKind};
use crate::delivery::{DeliveryMetrics, Health, SpoolConfig, UNAWAITED};
use crate::{
    BackendState, Commit, Destination, DroppedEvents, Line, Plugin, WhenFailed, WriteError,
};

/// Properties of the spool of a stream backend.
const SPOOL: SpoolKind =
    SpoolKind { name: "the spool", size_flag: "spool-max-size", format: &lines::FORMAT };

/// Time for counting lost events after the shutdown has timed out.
const COUNTING: Duration = Duration::from_millis(200);

/// Settings of a stream backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// Whether requests wait.
    pub mode: StreamMode,
    /// `batch-buffer-size`: capacity of the queue in events; at least 1.
    pub buffer_size: usize,
    /// `segment-max-size`: a segment is closed before it grows beyond this many bytes. A longer
    /// event gets a segment of its own.
    pub segment_max_size: u64,
    /// `segment-max-age`: a segment is also closed when its first event is this old.
    pub segment_max_age: Duration,
    /// `spool-dir` and `spool-max-size`
    pub spool: SpoolConfig,
}

/// Whether a request waits until its event is in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMode {
    /// Requests do not wait.
    Batch,
    /// Requests wait, and continue if the event could not be written.
    Blocking,
    /// Requests wait, and are rejected if the first event could not be written.
    BlockingStrict,
}

impl StreamMode {
    fn when_failed(self) -> WhenFailed {
        match self {
            StreamMode::BlockingStrict => WhenFailed::Refuse,
            StreamMode::Batch | StreamMode::Blocking => WhenFailed::Continue,
        }
    }
}

/// The stream backend cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The spool directory cannot be used.
    #[error(
        "cannot use {}: {source}; let this user write there, or name another directory",
        path.display()
    )]
    Spool {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process or backend uses the spool directory.
    #[error("{} is in use: {source}; give each proxy and each backend its own \
             directory", path.display())]
    SpoolInUse {
        /// The directory.
        path: PathBuf,
        /// The error of the lock.
        source: io::Error,
    },
}

impl StreamError {
    /// Returns the key to change.
    pub fn setting(&self) -> &'static str {
        match self {
            StreamError::Spool { .. } | StreamError::SpoolInUse { .. } => "spool-dir",
        }
    }
}

/// Accepts encoded events and sends them to a [`Destination`].
#[derive(Debug)]
pub struct StreamBackend {
    mode: StreamMode,
    /// `None` after the shutdown.
    events: SyncMutex<Option<mpsc::Sender<Item>>>,
    overflow: DroppedEvents,
    lost: Arc<DroppedEvents>,
    metrics: Arc<DeliveryMetrics>,
    health: Arc<Health>,
    spool: Arc<Spool>,
    give_up: CancellationToken,
    writing: Mutex<Option<JoinHandle<()>>>,
    sending: Mutex<Option<JoinHandle<()>>>,
}

impl StreamBackend {
    /// Starts sending to `destination`, beginning with the segments in the spool. Must be called
    /// within a tokio runtime. The destination need not be reachable yet.
    ///
    /// # Errors
    /// Returns an error if the spool directory cannot be used.
    pub fn start(
        config: StreamConfig,
        destination: Arc<dyn Destination>,
        metrics: Arc<DeliveryMetrics>,
    ) -> Result<StreamBackend, StreamError> {
        let path = config.spool.dir.clone();
        let wrong = |source: io::Error| match source.kind() {
            io::ErrorKind::ResourceBusy => StreamError::SpoolInUse { path: path.clone(), source },
            _ => StreamError::Spool { path: path.clone(), source },
        };
        let lost = Arc::new(DroppedEvents::new(Plugin::Stream, metrics.backend.clone()));
        let spool = Spool::open(&config.spool, &SPOOL, metrics.clone()).map_err(wrong)?;
        let recovered = spool.recover().map_err(wrong)?;
        if recovered.torn > 0 {
            lost.add(recovered.torn, &"the proxy was killed while it wrote them to the spool");
        }
        if recovered.segments > 0 {
            tracing::info!(
                sink = metrics.backend.name(),
                "recovered {} segments that a killed process had left open in {}",
                recovered.segments,
                config.spool.dir.display()
            );
        }
        let spool = Arc::new(spool);
        let health = Arc::new(Health::new("the destination", UNAWAITED, metrics.clone()));
        let courier = StreamCourier::new(destination, health.clone(), metrics.clone());
        let sending = tokio::spawn(spool::drain(spool.clone(), Arc::new(courier), lost.clone()));
        let (events, received) = mpsc::channel(config.buffer_size);
        let give_up = CancellationToken::new();
        let writer = Writer {
            spool: spool.clone(),
            lost: lost.clone(),
            give_up: give_up.clone(),
            is_awaited: config.mode != StreamMode::Batch,
            max_size: config.segment_max_size,
            max_age: config.segment_max_age,
        };
        Ok(StreamBackend {
            mode: config.mode,
            events: SyncMutex::new(Some(events)),
            overflow: DroppedEvents::new(Plugin::Buffered, metrics.backend.clone()),
            lost,
            metrics,
            health,
            spool,
            give_up,
            writing: Mutex::new(Some(tokio::spawn(writer.run(received)))),
            sending: Mutex::new(Some(sending)),
        })
    }

    /// Returns whether a request must be rejected when its first event cannot be written to the
    /// spool.
    pub fn is_strict(&self) -> bool {
        self.mode == StreamMode::BlockingStrict
    }

    /// Returns whether requests wait for the spool.
    pub fn is_awaited(&self) -> bool {
        self.mode != StreamMode::Batch
    }

    /// Returns whether the next event is expected to be written to the spool.
    pub fn is_writable(&self) -> bool {
        self.spool.state() == BackendState::Ok && !self.spool.is_full()
    }

    /// Returns whether the destination accepted the last segment, and the spool works.
    pub fn state(&self) -> BackendState {
        match self.spool_state() {
            BackendState::Ok => self.health.state(),
            failing => failing,
        }
    }

    fn spool_state(&self) -> BackendState {
        match self.spool.state() {
            BackendState::Ok if self.spool.is_full() => {
                BackendState::Failing(self.spool.full().to_string())
            }
            state => state,
        }
    }

    /// Returns whether the backend accepts events. In the blocking modes only the spool matters,
    /// because requests do not wait for the destination.
    ///
    /// # Errors
    /// Returns the reason if the backend does not accept events.
    pub fn check(&self) -> Result<(), String> {
        let state = if self.is_awaited() { self.spool_state() } else { self.state() };
        match state {
            BackendState::Ok => Ok(()),
            BackendState::Failing(reason) => Err(reason),
        }
    }

    /// Submits one event, a line of JSON that ends with a newline. Never waits. In batch mode the
    /// [`Commit`] is ready at once, otherwise when the event is in the spool or lost.
    pub fn submit(&self, line: impl Into<Line>) -> Commit {
        let line = line.into();
        debug_assert!(line.ends_with(b"\n"), "a line ends with a newline");
        self.metrics.backend.events.inc();
        let when_failed = self.mode.when_failed();
        let (outcome, commit) = match self.is_awaited() {
            true => {
                let (outcome, commit) = Commit::waiting(when_failed);
                (Some(outcome), commit)
            }
            false => (None, Commit::DONE),
        };
        let events = self.events.lock().expect("nothing panics while it holds the queue");
        let error = match events.as_ref().map(|events| events.try_send((line, outcome))) {
            Some(Ok(())) => return commit,
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                WriteError::Spool("audit buffer queue blocked".into())
            }
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => WriteError::ShutDown,
        };
        drop(events);
        self.overflow.add(1, &error);
        Commit::known(Err(error), when_failed)
    }

    /// Logs pending counts of lost events. Must be called about once a second.
    pub fn tick(&self) {
        self.lost.tick();
        self.overflow.tick();
    }

    /// Logs all pending counts of lost events now.
    pub fn flush_losses(&self) {
        self.lost.flush();
        self.overflow.flush();
    }

    /// Writes the queue to the spool, closes the segment, and sends the batches in the spool, until
    /// `give_up` is cancelled or the destination does not accept a segment. The remaining batches
    /// are sent after the next start.
    pub async fn shutdown(&self, give_up: &CancellationToken) {
        drop(self.events.lock().expect("nothing panics while it holds the queue").take());
        let written = async {
            if let Some(writing) = &mut *self.writing.lock().await {
                // A panic of the task has been logged.
                let _ = writing.await;
            }
        };
        let mut written = std::pin::pin!(written);
        tokio::select! {
            () = &mut written => {}
            () = give_up.cancelled() => {
                self.give_up.cancel();
                let _ = tokio::time::timeout(COUNTING, written).await;
            }
        }
        self.spool.close();
        let sent = async {
            if let Some(sending) = &mut *self.sending.lock().await {
                let _ = sending.await;
            }
        };
        tokio::select! {
            () = sent => {}
            // The events are in the spool.
            () = give_up.cancelled() => {}
        }
        self.flush_losses();
    }
}

#[cfg(test)]
mod tests;
