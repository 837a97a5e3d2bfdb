//! The record of one request: its events, from the first to exactly one last.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::event::{Event, ObjectMetadata, ObjectRef, UserAgent};
use super::object::{self, CapturedObject, MediaType};
use super::timestamp::Timestamp;
use crate::authn::UserInfo;
use crate::impersonation;
use crate::metrics::Metrics;
use crate::policy::{Decision, Level, Stage};
use crate::request::RequestInfo;
use crate::request::uri::request_uri;
use crate::sink::{Ack, Sink};
use crate::status::Status;

/// Annotation of an answer that the API server did not bring to its end.
const INCOMPLETE: &str = "kube-audit-proxy/response-incomplete";

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
    /// Where events go.
    pub sink: Sink,
    /// How they are written.
    pub format: Format,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What is known of a request from its head and its connection.
pub struct RequestFacts {
    /// When its head was complete.
    pub received: Timestamp,
    /// `Audit-ID`
    pub audit_id: HeaderValue,
    /// Path and query as they came.
    pub target: PathAndQuery,
    /// Verb and object.
    pub info: RequestInfo,
    /// The client's addresses.
    pub source_ips: Vec<IpAddr>,
    /// `User-Agent`
    pub user_agent: UserAgent,
}

/// One request's record. It ends exactly once: by [`Record::complete`], or when it is dropped,
/// be it because the client went away or because the handler panicked.
pub struct Record {
    recorder: Arc<Recorder>,
    facts: RequestFacts,
    user: Option<Arc<UserInfo>>,
    decision: Decision,
    long_running: bool,
    impersonated: Option<Impersonated>,
    object: Option<(CapturedObject, MediaType)>,
    metadata: Option<ObjectMetadata>,
    /// The outcome, once it is known.
    status: Option<Status>,
    annotations: Vec<(&'static str, String)>,
    ended: bool,
}

struct Impersonated {
    user: UserInfo,
    /// Whether it is the API server that allows it, whose answer is to be looked at.
    judged_upstream: bool,
}

impl Record {
    /// Begins the record of a request by `user`, of which the policy said `decision`.
    pub fn begin(
        recorder: Arc<Recorder>,
        facts: RequestFacts,
        user: Option<Arc<UserInfo>>,
        decision: Decision,
    ) -> Record {
        let long_running = facts.info.is_long_running();
        recorder.metrics.policy_evaluated(decision.level);
        let record = Record {
            recorder,
            facts,
            user,
            decision,
            long_running,
            impersonated: None,
            object: None,
            metadata: None,
            status: None,
            annotations: Vec::new(),
            ended: false,
        };
        record.under_way(1);
        record
    }

    /// Notes what authentication found, in all events; to be called before the first.
    pub fn annotate(&mut self, annotations: &[(&'static str, String)]) {
        self.annotations.extend_from_slice(annotations);
    }

    /// What is known of the request.
    pub fn facts(&self) -> &RequestFacts {
        &self.facts
    }

    /// How much is recorded.
    pub fn level(&self) -> Level {
        self.decision.level
    }

    /// Whether it is a watch, an upgrade or the like.
    pub fn is_long_running(&self) -> bool {
        self.long_running
    }

    /// Writes `RequestReceived`.
    pub fn received(&self) -> Option<Ack> {
        self.emit(Stage::RequestReceived, self.facts.received)
    }

    /// The proxy has found that the request may be done as `user`.
    pub fn impersonation_granted(&mut self, user: UserInfo) {
        self.impersonated = Some(Impersonated { user, judged_upstream: false });
    }

    /// The API server is asked to do the request as `user`; whether it does shows in its answer.
    pub fn impersonation_asked(&mut self, user: UserInfo) {
        self.impersonated = Some(Impersonated { user, judged_upstream: true });
    }

    /// The request's object passes through `captured`.
    pub fn capture_object(&mut self, captured: CapturedObject, media_type: MediaType) {
        self.object = Some((captured, media_type));
    }

    /// The answer's code, with what its Status says, if it has one.
    pub fn answered(&mut self, code: u16, status: Option<Status>) {
        self.status = Some(Status { code, ..status.unwrap_or_default() });
        if let Some(status) = &self.status {
            let refused = |user: &Arc<UserInfo>| impersonation::was_refused(status, user);
            let judged = self.impersonated.as_ref().is_some_and(|i| i.judged_upstream);
            if judged && self.user.as_ref().is_some_and(refused) {
                self.impersonated = None;
            }
        }
    }

    /// The code of the answer; 0 before there is one.
    pub fn code(&self) -> u16 {
        self.status.as_ref().map_or(0, |status| status.code)
    }

    /// Writes `ResponseStarted`, if the request is one that has it.
    pub fn response_started(&mut self) -> Option<Ack> {
        if !self.long_running {
            return None;
        }
        self.read_object();
        self.emit(Stage::ResponseStarted, Timestamp::now())
    }

    /// The API server broke off its answer.
    pub fn response_incomplete(&mut self) {
        let why = "the API server closed the connection before the end of its answer";
        self.annotations.push((INCOMPLETE, why.to_owned()));
    }

    /// Ends the record with `ResponseComplete`.
    pub fn complete(mut self) -> Option<Ack> {
        self.end()
    }

    /// Ends the record of a request that was refused before anybody was known to have sent it:
    /// one event, `ResponseStarted`.
    pub fn refused_unauthenticated(mut self, status: Status) -> Option<Ack> {
        self.status = Some(status);
        let now = Timestamp::now();
        let ack = self.emit(Stage::ResponseStarted, now);
        self.count_end(now);
        ack
    }

    /// Ends the record without a further event: its first one could not be stored.
    pub fn rejected(mut self, code: u16) {
        self.answered(code, None);
        self.recorder.metrics.requests_rejected.increment();
        self.count_end(Timestamp::now());
    }

    fn end(&mut self) -> Option<Ack> {
        let now = Timestamp::now();
        self.read_object();
        let stage = if std::thread::panicking() { Stage::Panic } else { Stage::ResponseComplete };
        match stage {
            Stage::Panic => self.status = Some(panic_status()),
            _ if self.status.is_none() => self.status = Some(Status::client_gone()),
            _ => {}
        }
        let ack = self.emit(stage, now);
        self.count_end(now);
        ack
    }

    fn count_end(&mut self, now: Timestamp) {
        self.ended = true;
        let nanos = now.nanos().saturating_sub(self.facts.received.nanos());
        let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        let took = (!self.long_running).then_some(took);
        self.recorder.metrics.request_done(self.facts.info.verb(), self.code(), took);
        self.under_way(-1);
    }

    fn under_way(&self, change: i64) {
        let metrics = &self.recorder.metrics;
        if self.long_running { &metrics.long_running } else { &metrics.in_flight }.add(change);
    }

    /// Takes the identity of the request's object, if kube-apiserver got as far as reading it.
    fn read_object(&mut self) {
        let Some(status) = &self.status else { return };
        if let Some((captured, media_type)) = &self.object
            && object::was_read(status)
            && let Some(metadata) = captured.metadata(*media_type)
        {
            self.metadata = Some(metadata);
            self.object = None;
        }
    }

    fn emit(&self, stage: Stage, at: Timestamp) -> Option<Ack> {
        let skipped = self.decision.level == Level::None
            || self.decision.omit_stages.contains(stage)
            || !self.recorder.sink.is_enabled();
        if skipped {
            return None;
        }
        let event = Event {
            level: self.decision.level,
            audit_id: self.facts.audit_id.as_bytes(),
            stage,
            request_uri: &request_uri(&self.facts.target),
            verb: self.facts.info.verb(),
            user: self.user.as_deref(),
            impersonated_user: match stage {
                Stage::RequestReceived => None,
                _ => self.impersonated.as_ref().map(|impersonated| &impersonated.user),
            },
            source_ips: &self.facts.source_ips,
            user_agent: &self.facts.user_agent,
            object_ref: self
                .facts
                .info
                .is_resource()
                .then_some(ObjectRef { info: &self.facts.info, metadata: self.metadata.as_ref() }),
            response_status: match stage {
                Stage::RequestReceived => None,
                _ => self.status.as_ref(),
            },
            request_received: self.facts.received,
            stage_timestamp: at,
            annotations: &self.annotations,
        };
        let mut line = Vec::with_capacity(1536);
        match self.recorder.format {
            Format::Json => event.push_json(&mut line),
            Format::Legacy => event.push_legacy(&mut line),
        }
        Some(self.recorder.sink.submit(line))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            // Nobody is left to wait for the event; the sink writes it all the same.
            drop(self.end());
        }
    }
}

fn panic_status() -> Status {
    let message = super::panic_message::last();
    Status::internal_error(format!("APIServer panic'd: {message}"))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
