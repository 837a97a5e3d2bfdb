//! Log backends write events to a file or to standard output.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::commit::{BackendState, Commit, CommitLog, CommitSequence, Progress, WhenFailed};
use super::config::{LogConfig, LogPath, Mode, SyncMode};
use super::error::LogError;
use super::file::LogFile;
use super::line::Line;
use super::metrics::LogMetrics;
use super::output::{Output, Stdout};

/// Accepts encoded events. Clones share one log.
#[derive(Debug, Clone)]
pub struct LogBackend {
    /// `None` if there is no log.
    log: Option<Arc<CommitLog>>,
    observer: Option<UnboundedSender<Vec<u8>>>,
}

impl LogBackend {
    /// Opens the log and starts its writer. Missing directories are created with mode 0700, a
    /// missing file with 0600; an existing file keeps its mode.
    ///
    /// # Errors
    /// Returns an error if the log cannot be opened or a batch setting is out of range.
    pub fn open(config: LogConfig, metrics: Arc<LogMetrics>) -> Result<LogBackend, LogError> {
        validate(&config.mode)?;
        let mut chain = None;
        let output: Box<dyn Output> = match &config.path {
            LogPath::Stdout if config.seal.is_some() => {
                return Err(LogError::NotSealable { what: config.path.to_string() });
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
        let (name, LogConfig { mode, sync, .. }) = (config.path.to_string(), &config);
        let log = CommitLog::start(output, &name, mode, *sync, chain, metrics)?;
        Ok(LogBackend::writing(log))
    }

    /// Creates a backend without a log. Events are not even counted.
    pub fn discard() -> LogBackend {
        LogBackend { log: None, observer: None }
    }

    /// Creates a backend without a log that sends events to an observer. Nothing is counted.
    pub fn channel(observer: UnboundedSender<Vec<u8>>) -> LogBackend {
        LogBackend::discard().with_observer(observer)
    }

    /// Also sends each line to `observer` when it is submitted. A closed channel is ignored; a slow
    /// observer costs memory.
    pub fn with_observer(self, observer: UnboundedSender<Vec<u8>>) -> LogBackend {
        LogBackend { observer: Some(observer), ..self }
    }

    fn writing(log: CommitLog) -> LogBackend {
        LogBackend { log: Some(Arc::new(log)), observer: None }
    }

    /// Returns whether requests, or the bytes that they send, wait for their events to be written.
    pub fn is_awaited(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_awaited())
    }

    /// Returns whether a request must be rejected when its first event cannot be written.
    pub fn is_strict(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.when_failed() == WhenFailed::Refuse)
    }

    /// Submits one encoded event, which must end with a newline and contain no other. `sequence` is
    /// that of the worker that serves the request.
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

    /// Returns the progress of the events that sockets wait for, if they do.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.log.as_ref()?.progress().cloned()
    }

    /// Returns whether the next write is expected to succeed. Used for requests that must be
    /// rejected before they have an event to write. While the log is failing and only a write can
    /// show its recovery, periodically returns `true` to one caller so that it probes the log.
    pub fn is_writable(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.writer().is_writable())
    }

    /// Returns whether the last write succeeded and no write hangs.
    pub fn state(&self) -> BackendState {
        self.log.as_ref().map_or(BackendState::Ok, |log| log.writer().state())
    }

    /// Makes the writer reopen the log file, such as after another program has rotated it. Returns
    /// at once.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.writer().reopen();
        }
    }

    /// Returns when all events are written and synced and the writer has ended. Later events are
    /// rejected and counted. There is no time limit.
    pub async fn shutdown(&self) {
        if let Some(log) = &self.log {
            log.shutdown().await;
        }
    }

    /// Like [`LogBackend::shutdown`], but only until `give_up` is cancelled. Events that are not
    /// written by then are counted as lost and logged. If a write hangs, that includes all events
    /// of this write.
    pub async fn shutdown_until(&self, give_up: &CancellationToken) {
        if let Some(log) = &self.log {
            log.shutdown_until(give_up).await;
        }
    }

    /// Logs dropped events that have not been reported. The writer does this itself unless it
    /// hangs.
    pub fn tick(&self) {
        if let Some(log) = &self.log {
            log.tick();
        }
    }

    /// Logs all pending counts of lost events now.
    pub fn flush_losses(&self) {
        if let Some(log) = &self.log {
            log.writer().flush_losses();
        }
    }
}

fn validate(mode: &Mode) -> Result<(), LogError> {
    let Mode::Batch { buffer_size, max_size, throttle, .. } = mode else {
        return Ok(());
    };
    let checks = [
        (*buffer_size > 0, "batch-buffer-size"),
        (*max_size > 0, "batch-max-size"),
        (throttle.is_none_or(|throttle| throttle.qps > 0.0), "batch-throttle-qps"),
        (throttle.is_none_or(|throttle| throttle.burst > 0), "batch-throttle-burst"),
    ];
    match checks.into_iter().find(|(valid, _)| !valid) {
        Some((_, setting)) => Err(LogError::NotPositive { setting }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
