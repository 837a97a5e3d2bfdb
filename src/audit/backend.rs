//! A backend that receives audit events: a log, a webhook or a stream.

use tokio_util::sync::CancellationToken;

use audit_log::stream::StreamBackend;
use audit_log::webhook::WebhookBackend;
use audit_log::{BackendState, Commit, CommitSequence, Line, LogBackend};

/// Receives events.
#[derive(Debug)]
pub enum Backend {
    /// A file or standard output.
    Log(LogBackend),
    /// A webhook endpoint.
    Webhook(Box<WebhookBackend>),
    /// Another system, from a spool on disk.
    Stream(Box<StreamBackend>),
}

impl Backend {
    /// Submits one event, in the sequence of the worker that serves the request.
    pub(super) fn submit(&self, line: Line, sequence: &CommitSequence) -> Commit {
        match self {
            Backend::Log(log) => log.submit(line, sequence),
            Backend::Webhook(webhook) => webhook.submit(line),
            Backend::Stream(stream) => stream.submit(line),
        }
    }

    /// Returns whether a request must be refused if its first event is not stored.
    pub fn is_strict(&self) -> bool {
        match self {
            Backend::Log(log) => log.is_strict(),
            Backend::Webhook(webhook) => webhook.is_strict(),
            Backend::Stream(stream) => stream.is_strict(),
        }
    }

    /// Returns whether requests wait for their events to be stored.
    pub fn is_awaited(&self) -> bool {
        match self {
            Backend::Log(log) => log.is_awaited(),
            Backend::Webhook(webhook) => webhook.is_awaited(),
            Backend::Stream(stream) => stream.is_awaited(),
        }
    }

    /// Returns the log, if the backend is one.
    pub(super) fn log(&self) -> Option<&LogBackend> {
        match self {
            Backend::Log(log) => Some(log),
            Backend::Webhook(_) | Backend::Stream(_) => None,
        }
    }

    /// Returns whether an event could be stored now, without storing one.
    pub(super) async fn is_writable(&self) -> bool {
        match self {
            Backend::Log(log) => log.is_writable(),
            Backend::Webhook(webhook) => webhook.is_writable().await,
            Backend::Stream(stream) => stream.is_writable(),
        }
    }

    /// Returns the health of the backend.
    pub fn state(&self) -> BackendState {
        match self {
            Backend::Log(log) => log.state(),
            Backend::Webhook(webhook) => webhook.state(),
            Backend::Stream(stream) => stream.state(),
        }
    }

    /// Like [`Self::state`], but probes the backend if requests wait for it.
    ///
    /// # Errors
    /// Returns the fault.
    pub async fn check(&self) -> Result<(), String> {
        match self {
            Backend::Log(log) => match log.state() {
                BackendState::Ok => Ok(()),
                BackendState::Failing(reason) => Err(reason),
            },
            Backend::Webhook(webhook) => webhook.check().await,
            Backend::Stream(stream) => stream.check(),
        }
    }

    /// Logs dropped events that have not been reported; must be called about once a second.
    pub fn tick(&self) {
        match self {
            Backend::Log(log) => log.tick(),
            Backend::Webhook(webhook) => webhook.tick(),
            Backend::Stream(stream) => stream.tick(),
        }
    }

    /// Reopens a log file.
    pub fn reopen(&self) {
        if let Backend::Log(log) = self {
            log.reopen();
        }
    }

    /// Logs all dropped events that have not been reported.
    pub fn flush_losses(&self) {
        match self {
            Backend::Log(log) => log.flush_losses(),
            Backend::Webhook(webhook) => webhook.flush_losses(),
            Backend::Stream(stream) => stream.flush_losses(),
        }
    }

    /// Stores the queued events until `give_up` is cancelled. Returns when all events are stored,
    /// or counted as lost and logged.
    pub async fn shutdown(&self, give_up: &CancellationToken) {
        match self {
            Backend::Log(log) => log.shutdown_until(give_up).await,
            Backend::Webhook(webhook) => webhook.shutdown(give_up).await,
            Backend::Stream(stream) => stream.shutdown(give_up).await,
        }
    }
}
