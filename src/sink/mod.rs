//! Where encoded events go: one queue, one writer at a time, one log.
//!
//! A request hands over a whole line ([`Sink::submit`]) and, by mode, waits for the [`Ack`] or does
//! not; then it may be the sockets that wait ([`Barrier`]). Whoever writes takes all lines that wait and
//! writes them together: a submitter where that is cheaper, else a thread. Lines of one submitter keep their order; those of different ones are mixed, but never within a line.
//!
//! As kube-apiserver's log backend, but: a deleted or moved log file is noticed; rotation overwrites
//! no older file; a line longer than `--audit-log-maxsize` is written, alone in its file; and a line
//! torn by a failed write is cut off again (or, where that cannot be, ended), so that the next
//! line can be read.

mod backups;
mod barrier;
mod batch;
mod clock;
mod config;
mod disk;
mod error;
mod file;
mod file_rotation;
mod file_seal;
mod gated;
mod line;
mod lock;
mod losses;
mod metrics;
mod open_file;
mod output;
mod queue;
mod rotate;
pub mod seal;
#[cfg(test)]
mod test_folder;
mod writer;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::barrier::Barrier;
pub use self::config::{Compress, LogPath, Mode, Rotation, SinkConfig, SyncMode, Throttle};
pub use self::error::{SinkError, WriteError};
pub use self::line::Line;
pub use self::metrics::{
    BackendFamilies, BackendLabel, BackendMetrics, LogFamilies, LogMetrics, Plugin,
};
pub use self::queue::Ack;
pub use self::writer::SinkState;

pub(crate) use self::barrier::Owed;
pub(crate) use self::batch::Bucket;
pub(crate) use self::gated::Gated;
pub(crate) use self::losses::Losses;

use self::batch::Batcher;
use self::clock::Clock;
use self::file::LogFile;
use self::output::{Output, Stdout};
use self::queue::{Pushed, Queue};
use self::seal::Chain;
use self::writer::Writer;

/// Takes encoded events. Clones share one log.
#[derive(Debug, Clone)]
pub struct Sink {
    /// None: there is no log.
    log: Option<Arc<Log>>,
    observer: Option<UnboundedSender<Vec<u8>>>,
}

#[derive(Debug)]
struct Log {
    queue: Arc<Queue>,
    mode: Mode,
    /// Sockets wait for the lines, and not the requests, as long as writes are quick.
    by_sockets: bool,
    metrics: Arc<LogMetrics>,
    /// Events that did not get into the queue.
    refused: Arc<Losses>,
    writer: Arc<Writer>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closed when the writer has ended.
    ended: watch::Receiver<()>,
}

impl Sink {
    /// Opens the log and starts its writer. Missing folders are made with mode 0700, a missing file
    /// with 0600; one that exists keeps its mode.
    ///
    /// # Errors
    /// The log cannot be opened, or a batch setting is out of range.
    pub fn open(config: SinkConfig, metrics: Arc<LogMetrics>) -> Result<Sink, SinkError> {
        validate(&config.mode)?;
        let mut chain = None;
        let output: Box<dyn Output> = match &config.path {
            LogPath::Stdout if config.seal.is_some() => {
                return Err(SinkError::NotSealable { what: config.path.to_string() });
            }
            LogPath::Stdout => Box::new(Stdout::open()?),
            LogPath::File(path) => {
                let rotation = config.rotation;
                let (clock, sealed) = (Clock::system(), config.seal.is_some());
                let mut log = LogFile::open_as(path, rotation, clock, metrics.clone(), sealed)?;
                if config.sync == SyncMode::Off {
                    log = log.never_synced();
                }
                if let Some(seal) = &config.seal {
                    let strict = config.mode == Mode::BlockingStrict;
                    chain = Some(log.seal(seal, strict, metrics.clone())?);
                }
                log.start_cleaner()?;
                Box::new(log)
            }
        };
        Sink::start(output, &config.path.to_string(), config.mode, config.sync, chain, metrics)
    }

    /// No log: events are not even counted.
    pub fn discard() -> Sink {
        Sink { log: None, observer: None }
    }

    /// No log, but an observer. Without a log, nothing is counted.
    pub fn channel(observer: UnboundedSender<Vec<u8>>) -> Sink {
        Sink::discard().with_observer(observer)
    }

    /// Sends each line to `observer` too, when it is submitted. An observer that is gone does not
    /// matter; one that is slow costs memory.
    pub fn with_observer(self, observer: UnboundedSender<Vec<u8>>) -> Sink {
        Sink { observer: Some(observer), ..self }
    }

    /// Whether requests wait for their events to be written.
    pub fn is_awaited(&self) -> bool {
        self.log.as_ref().is_some_and(|log| !matches!(log.mode, Mode::Batch { .. }))
    }

    /// Whether a request must be refused when its first event cannot be written.
    pub fn is_strict(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.mode == Mode::BlockingStrict)
    }

    /// Hands over one encoded event, which must end with its only newline. Waits for no other
    /// submitter, and needs no runtime; in the blocking modes it may do the write. In batch mode the
    /// [`Ack`] is ready at once, and an event that finds the queue full is lost, counted and logged, but
    /// `Ok`. In the blocking modes it is ready when the write has returned; no event is refused, since
    /// each request in flight has but a few. In `blocking`, as long as writes are quick, it is ready at
    /// once, too, and whatever is said to others then waits for the write at the [`Barrier`].
    pub fn submit(&self, line: impl Into<Line>) -> Ack {
        let line = line.into();
        debug_assert!(line.ends_with(b"\n"), "a line ends with a newline");
        if let Some(observer) = &self.observer {
            let _ = observer.send(line.to_vec());
        }
        let Some(log) = &self.log else {
            return Ack::ready(Ok(()));
        };
        log.metrics.backend.events.inc();
        let pushed = if log.by_sockets && !log.writer.is_slow() {
            log.queue.accept(line)
        } else {
            match log.writer.write_now(line) {
                Ok(result) => return Ack::ready(result),
                Err(line) => log.queue.push(line),
            }
        };
        match pushed {
            Pushed::Accepted { first } => {
                if first {
                    log.writer.flush_soon();
                }
                Ack::ready(Ok(()))
            }
            Pushed::Queued(ack) => {
                log.writer.submitted();
                ack
            }
            Pushed::Full => {
                log.refused.add(1, &"audit buffer queue blocked");
                Ack::ready(Ok(()))
            }
            Pushed::Closed => {
                log.refused.add(1, &WriteError::ShutDown);
                Ack::ready(Err(WriteError::ShutDown))
            }
        }
    }

    /// What sockets wait for, if they do.
    pub(crate) fn owed(&self) -> Option<Arc<Owed>> {
        let log = self.log.as_ref().filter(|log| log.by_sockets)?;
        Some(log.queue.owed().clone())
    }

    /// Whether an event could be written now, as far as is known without one: for requests that
    /// must be refused before they have an event to write. A log that failed and that cannot be
    /// asked, such as a pipe, is said to be writable to one caller now and then, whose events tell.
    pub fn is_writable(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.writer.is_writable())
    }

    /// Whether the last write went well.
    pub fn state(&self) -> SinkState {
        match &self.log {
            Some(log) => log.writer.state(),
            None => SinkState::Ok,
        }
    }

    /// Has the writer open the log file again, for one that was rotated by somebody else. Returns
    /// at once.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.writer.reopen();
        }
    }

    /// Returns when all events are written and on the disk and the writer has ended. Later events
    /// are refused and counted. There is no time limit.
    pub async fn shutdown(&self) {
        let Some(log) = &self.log else {
            return;
        };
        log.queue.close();
        // The only sender is the writer's, which sends nothing: an error means that it has ended.
        let _ = log.ended.clone().changed().await;
        let thread = log.thread.lock().expect("nothing panics while it holds the thread").take();
        if let Some(thread) = thread {
            // It has nothing left to do but to return; a panic of it has been logged.
            let _ = thread.join();
        }
    }

    /// Like [`Sink::shutdown`], but only until `give_up` is cancelled. What is not written then is counted
    /// as lost and logged; of a write that hangs, all lines.
    pub async fn shutdown_until(&self, give_up: &CancellationToken) {
        tokio::select! {
            biased;
            () = self.shutdown() => {}
            () = give_up.cancelled() => {
                let Some(log) = &self.log else { return };
                log.writer.abandon();
            }
        }
    }

    /// Logs losses that were held back, which the writer does itself unless it hangs.
    pub fn tick(&self) {
        if let Some(log) = &self.log {
            log.refused.tick();
            log.writer.tick();
        }
    }

    /// Logs all losses that were held back, now.
    pub fn flush_losses(&self) {
        if let Some(log) = &self.log {
            log.writer.flush_losses();
        }
    }

    fn start(
        output: Box<dyn Output>,
        name: &str,
        mode: Mode,
        sync: SyncMode,
        chain: Option<Chain>,
        metrics: Arc<LogMetrics>,
    ) -> Result<Sink, SinkError> {
        let (capacity, refused) = match mode {
            Mode::Batch { buffer_size, .. } => (Some(buffer_size), Plugin::Buffered),
            Mode::Blocking | Mode::BlockingStrict => (None, Plugin::Log),
        };
        // A sync is not quick, and the more lines share one the better.
        let quick = output.is_quick() && sync != SyncMode::Always;
        let by_submitters = capacity.is_none() && quick;
        let by_sockets = by_submitters && mode == Mode::Blocking;
        let queue = Arc::new(Queue::new(capacity, by_submitters, metrics.clone()));
        let refused = Arc::new(Losses::new(refused, metrics.backend.clone()));
        let (own_queue, own_refused) = (queue.clone(), refused.clone());
        let writer =
            Writer::new(own_queue, output, by_submitters, sync, name, own_refused, metrics.clone());
        let sealing = chain.is_some();
        let writer = Arc::new(match chain {
            Some(chain) => writer.sealing(chain),
            None => writer,
        });
        let batcher = Batcher::new(&mode, Instant::now());
        let (end, ended) = watch::channel(());
        if sealing {
            // It ends when the writer thread has sealed the last lines.
            let sealer = writer.clone();
            std::thread::Builder::new()
                .name("audit-seal".to_owned())
                .spawn(move || sealer.run_sealing())
                .map_err(SinkError::Thread)?;
        }
        let threads_own = writer.clone();
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || {
                let _end = end;
                threads_own.run(batcher);
            })
            .map_err(SinkError::Thread)?;
        let thread = Mutex::new(Some(thread));
        let log = Log { queue, mode, by_sockets, metrics, refused, writer, thread, ended };
        Ok(Sink { log: Some(Arc::new(log)), observer: None })
    }
}

impl Drop for Log {
    /// The writer ends when it has written what is there; nobody waits for it.
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn validate(mode: &Mode) -> Result<(), SinkError> {
    let Mode::Batch { buffer_size, max_size, throttle, .. } = mode else {
        return Ok(());
    };
    let checks = [
        (*buffer_size > 0, "--audit-log-batch-buffer-size"),
        (*max_size > 0, "--audit-log-batch-max-size"),
        (throttle.is_none_or(|throttle| throttle.qps > 0.0), "--audit-log-batch-throttle-qps"),
        (throttle.is_none_or(|throttle| throttle.burst > 0), "--audit-log-batch-throttle-burst"),
    ];
    match checks.into_iter().find(|(valid, _)| !valid) {
        Some((_, flag)) => Err(SinkError::NotPositive { flag }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
