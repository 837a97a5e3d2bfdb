//! What all records share: where their events go, and how.

use std::sync::Arc;

use super::recording::BodySettings;
use crate::metrics::Metrics;
use crate::sink::{Ack, Sink};
use crate::webhook::Webhook;

/// How events are written (`--audit-log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// kube-apiserver's older text line.
    Legacy,
}

/// What all records share.
pub struct Recorder {
    /// The log.
    pub sink: Sink,
    /// Where events go besides.
    pub webhook: Option<Webhook>,
    /// How they are written to the log.
    pub format: Format,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How bodies are recorded.
    pub bodies: BodySettings,
}

impl Recorder {
    /// Hands the event to the log, and then, as JSON, to the webhook.
    pub(super) fn store(&self, line: Vec<u8>, json: Option<Vec<u8>>) -> Ack {
        let (Some(webhook), Some(json)) = (&self.webhook, json) else {
            return self.sink.submit(line);
        };
        if !self.sink.has_log() {
            // A log counts its events, and each counts once.
            self.metrics.events.increment();
        }
        let logged = self.sink.submit(line);
        let sent = webhook.submit(json);
        // Each is as strict as its own mode.
        let logged = if self.sink.is_strict() { logged } else { logged.lenient() };
        logged.and(if webhook.is_strict() { sent } else { sent.lenient() })
    }
}
