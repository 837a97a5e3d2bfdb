//! Log backends: where encoded events are written, to a file or to standard output.
//!
//! [`commit`] is the way from an accepted event to the disk. The other modules are the file: opening,
//! rotating, sealing, and keeping rotated files.
//!
//! Like kube-apiserver's log backend, but: a deleted or moved log file is noticed; rotation overwrites
//! no older file; a line longer than `--audit-log-maxsize` is written, alone in its file; and a partial
//! line of a failed write is removed again, or ended where it cannot be, so that the next line can be
//! read.

mod backoff;
mod backups;
mod clock;
pub(crate) mod commit;
mod config;
mod disk;
mod error;
mod file;
mod file_rotation;
mod file_seal;
mod files;
mod line;
mod lock;
mod losses;
mod metrics;
mod open_file;
mod output;
mod rotate;
pub mod seal;
#[cfg(test)]
mod test_folder;

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

pub use self::commit::{
    Commit, CommitSequence, CommitStrategy, GatedIo, SinkState, WhenFailed, WhenFull,
};
pub use self::config::{LogPath, Mode, Rotation, SinkConfig, SyncMode, Throttle};
pub use self::error::{SinkError, WriteError};
pub use self::line::Line;
pub use self::metrics::{
    BackendFamilies, BackendLabel, BackendMetrics, LogFamilies, LogMetrics, Plugin,
};

pub(crate) use self::backoff::ExponentialBackoff;
pub(crate) use self::commit::Bucket;
pub(crate) use self::files::{FileId, Lock, create_private_dir, try_lock};
pub(crate) use self::losses::Losses;

use self::clock::Clock;
use self::commit::{CommitLog, Progress};
use self::file::LogFile;
use self::output::{Output, Stdout};

/// Takes encoded events. Clones share one log.
#[derive(Debug, Clone)]
pub struct Sink {
    /// `None`: there is no log.
    log: Option<Arc<CommitLog>>,
    observer: Option<UnboundedSender<Vec<u8>>>,
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
        let (name, SinkConfig { mode, sync, .. }) = (config.path.to_string(), &config);
        let log = CommitLog::start(output, &name, mode, *sync, chain, metrics)?;
        Ok(Sink::writing(log))
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

    fn writing(log: CommitLog) -> Sink {
        Sink { log: Some(Arc::new(log)), observer: None }
    }

    /// Returns whether requests, or the bytes that they send, wait for their events to be written.
    pub fn is_awaited(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_awaited())
    }

    /// Returns whether a request must be refused when its first event cannot be written.
    pub fn is_strict(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.when_failed() == WhenFailed::Refuse)
    }

    /// Submits one encoded event, which must end with its only newline, in the sequence of the worker
    /// that serves the request.
    pub fn submit(&self, line: impl Into<Line>, sequence: &CommitSequence) -> Commit {
        let line = line.into();
        debug_assert!(line.ends_with(b"\n"), "a line ends with a newline");
        if let Some(observer) = &self.observer {
            let _ = observer.send(line.to_vec());
        }
        match &self.log {
            Some(log) => log.submit(line, sequence),
            None => Commit::DONE,
        }
    }

    /// How far the events are committed that sockets wait for, if they do.
    fn progress(&self) -> Option<Arc<Progress>> {
        self.log.as_ref()?.progress().cloned()
    }

    /// Returns whether the next write is expected to succeed: for requests that must be refused before
    /// they have an event to write. While the log is failing and only a write can tell whether it still
    /// does, periodically returns `true` to one caller so that it probes the log.
    pub fn is_writable(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.is_writable())
    }

    /// Returns whether the last write succeeded, and the one in progress does not hang.
    pub fn state(&self) -> SinkState {
        self.log.as_ref().map_or(SinkState::Ok, |log| log.state())
    }

    /// Has the writer open the log file again, for one that another program has rotated. Returns at
    /// once.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// Returns when all events are written and synced and the writer has ended. Later events are
    /// refused and counted. There is no time limit.
    pub async fn shutdown(&self) {
        if let Some(log) = &self.log {
            log.shutdown().await;
        }
    }

    /// Like [`Sink::shutdown`], but only until `give_up` is cancelled. What is not written then is
    /// counted as lost and logged; if a write hangs, all events of that write.
    pub async fn shutdown_until(&self, give_up: &CancellationToken) {
        if let Some(log) = &self.log {
            log.shutdown_until(give_up).await;
        }
    }

    /// Logs losses that were held back, which the writer does itself unless it hangs.
    pub fn tick(&self) {
        if let Some(log) = &self.log {
            log.tick();
        }
    }

    /// Logs all losses that were held back, now.
    pub fn flush_losses(&self) {
        if let Some(log) = &self.log {
            log.flush_losses();
        }
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
mod tests;
