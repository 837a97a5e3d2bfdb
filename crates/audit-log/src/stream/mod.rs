//! Stream backends: events are sent to a [`Destination`], such as object storage, from a spool on
//! disk.
//!
//! [`StreamBackend::submit`] puts an event into a bounded queue. A writer appends the events of the
//! queue to the open segment of the spool. A segment is closed when it is large or old enough
//! ([`StreamConfig`]), and at the shutdown. Closed segments are sent one at a time, the oldest
//! first, until the destination has accepted them; then they are deleted. Each event therefore
//! arrives at least once and in order, also if the process is killed, and an outage of the
//! destination costs disk space and neither events nor memory.
//!
//! # Modes
//! In `batch` no request waits. In the blocking modes a request waits until its event is in the
//! spool, not until the destination has it: events of completed requests survive `kill -9`. The
//! operating system writes them to the disk itself within a second, or when the segment is closed.
//!
//! # When something fails
//! - Queue full: the event is lost, and counted under `plugin="buffered"`.
//! - Spool full: the newest events are lost, and counted under `plugin="stream"`.
//! - The disk of the spool fails: in `batch` the events wait in memory until they can be written;
//!   the queue fills. In the blocking modes they are lost and counted under `plugin="stream"`;
//!   [`WhenFailed`] decides whether their requests fail.
//! - The destination does not accept events: they wait in the spool. If it rejects a segment for
//!   good, the segment is kept as `*.rejected` and counted under `plugin="stream"`.

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
use crate::delivery::spool::{self, About, Spool};
use crate::delivery::{DeliveryMetrics, Health, SpoolConfig, UNAWAITED};
use crate::{
    BackendState, Commit, Destination, DroppedEvents, Line, Plugin, WhenFailed, WriteError,
};

/// What is particular to the spool of a stream.
const SPOOL: About =
    About { name: "the spool", size_flag: "spool-max-size", format: &lines::FORMAT };

/// Time to count what is lost, once the shutdown gives up.
const COUNTING: Duration = Duration::from_millis(200);

/// Settings of a stream backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// What a request does.
    pub mode: StreamMode,
    /// `batch-buffer-size`: the number of events that may wait to be written to the spool; at
    /// least 1.
    pub buffer_size: usize,
    /// `segment-max-size`: a segment is closed before it grows beyond this many bytes. A longer
    /// event has a segment of its own.
    pub segment_max_size: u64,
    /// `segment-max-age`: or when its first event has waited this long.
    pub segment_max_age: Duration,
    /// `spool-dir` and `spool-max-size`
    pub spool: SpoolConfig,
}

/// Whether a request waits until its event is in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMode {
    /// It does not wait.
    Batch,
    /// It waits, and goes on if the event could not be written.
    Blocking,
    /// It waits, and is refused if its first event could not be written.
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

/// A stream backend cannot be used; a reason not to start.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The spool's directory cannot be used.
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
    /// The spool's directory belongs to another process or backend.
    #[error("{} is in use: {source}; give each proxy and each backend its own \
             directory", path.display())]
    SpoolInUse {
        /// The directory.
        path: PathBuf,
        /// How that is known.
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

/// Takes encoded events.
#[derive(Debug)]
pub struct StreamBackend {
    mode: StreamMode,
    /// `None`: shut down.
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
    /// Starts to send to `destination`, first what is in the spool. Must be called within a tokio
    /// runtime. The destination need not be reachable yet.
    ///
    /// # Errors
    /// The spool's directory cannot be used.
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

    /// Returns whether a request must be refused when its first event is not in the spool.
    pub fn is_strict(&self) -> bool {
        self.mode == StreamMode::BlockingStrict
    }

    /// Returns whether requests wait for the spool.
    pub fn is_awaited(&self) -> bool {
        self.mode != StreamMode::Batch
    }

    /// Returns whether an event is expected to be written to the spool.
    pub fn is_writable(&self) -> bool {
        self.spool.state() == BackendState::Ok && !self.spool.is_full()
    }

    /// Returns whether the destination accepted the last segment, and the spool can be used.
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

    /// Returns whether it accepts events: in the blocking modes, whether the spool does, as
    /// requests do not wait for the destination.
    ///
    /// # Errors
    /// What is wrong.
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

    /// Logs losses that were held back; to be called about once a second.
    pub fn tick(&self) {
        self.lost.tick();
        self.overflow.tick();
    }

    /// Logs all losses that were held back, now.
    pub fn flush_losses(&self) {
        self.lost.flush();
        self.overflow.flush();
    }

    /// Writes the queue to the spool, closes the segment, and sends what is in the spool, until
    /// `give_up` is cancelled or the destination does not accept a segment. What is in the spool
    /// then is sent after the next start.
    pub async fn shutdown(&self, give_up: &CancellationToken) {
        drop(self.events.lock().expect("nothing panics while it holds the queue").take());
        let written = async {
            if let Some(writing) = &mut *self.writing.lock().await {
                // A panic of it has been logged.
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
            // It is in the spool.
            () = give_up.cancelled() => {}
        }
        self.flush_losses();
    }
}

#[cfg(test)]
mod tests;
