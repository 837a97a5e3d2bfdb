//! A backend that receives audit events: a log, a webhook or a stream.

use tokio_util::sync::CancellationToken;

use audit_log::stream::StreamBackend;
use audit_log::webhook::WebhookBackend;
use audit_log::{BackendState, Commit, CommitSequence, Line, LogBackend};

/// Takes events.
#[derive(Debug)]
pub enum Backend {
    /// A file or standard output.
    Log(LogBackend),
    /// A receiver over HTTP.
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

    /// Whether a request must be refused when its first event is not stored.
    pub fn is_strict(&self) -> bool {
        match self {
            Backend::Log(log) => log.is_strict(),
            Backend::Webhook(webhook) => webhook.is_strict(),
            Backend::Stream(stream) => stream.is_strict(),
        }
    }

    /// Whether requests wait for their events to be stored.
    pub fn is_awaited(&self) -> bool {
        match self {
            Backend::Log(log) => log.is_awaited(),
            Backend::Webhook(webhook) => webhook.is_awaited(),
            Backend::Stream(stream) => stream.is_awaited(),
        }
    }

    /// The log, if it is one.
    pub(super) fn log(&self) -> Option<&LogBackend> {
        match self {
            Backend::Log(log) => Some(log),
            Backend::Webhook(_) | Backend::Stream(_) => None,
        }
    }

    /// Whether an event could be stored now, as far as is known without one.
    pub(super) async fn is_writable(&self) -> bool {
        match self {
            Backend::Log(log) => log.is_writable(),
            Backend::Webhook(webhook) => webhook.is_writable().await,
            Backend::Stream(stream) => stream.is_writable(),
        }
    }

    /// Whether it accepts events now.
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
    /// What is wrong.
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

    /// Logs losses that were held back; to be called about once a second.
    pub fn tick(&self) {
        match self {
            Backend::Log(log) => log.tick(),
            Backend::Webhook(webhook) => webhook.tick(),
            Backend::Stream(stream) => stream.tick(),
        }
    }

    /// Opens a log file again.
    pub fn reopen(&self) {
        if let Backend::Log(log) = self {
            log.reopen();
        }
    }

    /// Logs all losses that were held back, now.
    pub fn flush_losses(&self) {
        match self {
            Backend::Log(log) => log.flush_losses(),
            Backend::Webhook(webhook) => webhook.flush_losses(),
            Backend::Stream(stream) => stream.flush_losses(),
        }
    }

    /// Stores what waits, until `give_up` is cancelled. Returns when all events are stored, or
    /// counted as lost and logged.
    pub async fn shutdown(&self, give_up: &CancellationToken) {
        match self {
            Backend::Log(log) => log.shutdown_until(give_up).await,
            Backend::Webhook(webhook) => webhook.shutdown(give_up).await,
            Backend::Stream(stream) => stream.shutdown(give_up).await,
        }
    }
}
