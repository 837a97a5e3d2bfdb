//! The record of one request: its events, from the first to exactly one last.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

use super::body::{self, Capture, Cut, Recorded};
use super::event::{Event, ObjectMetadata, ObjectRef, UserAgent};
use super::object::{self, MediaType};
pub use super::recorder::{Format, Recorder};
use super::recording::{self, CapturedRequest, RequestBodyKind, RequestTap};
use super::response::Said;
use super::timestamp::Timestamp;
use crate::authn::UserInfo;
use crate::impersonation::{self, Granted};
use crate::policy::{Decision, Level, Stage};
use crate::request::RequestInfo;
use crate::request::accept::Accepted;
use crate::request::uri::request_uri;
use crate::sink::Ack;
use crate::status::Status;

/// Annotation of an answer that the API server did not bring to its end.
const INCOMPLETE: &str = "kube-audit-proxy/response-incomplete";

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
    /// What the client accepts as an answer, if kube-apiserver has it.
    pub accept: Option<Accepted>,
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
    request: Option<Request>,
    metadata: Option<ObjectMetadata>,
    request_object: Option<Vec<u8>>,
    response_object: Option<Vec<u8>>,
    /// The outcome, once it is known.
    status: Option<Status>,
    /// The Status of which kube-apiserver shows nothing but the code.
    hidden: Option<Status>,
    annotations: Vec<(&'static str, String)>,
    ended: bool,
}

/// A request's body that is being captured.
struct Request {
    kind: RequestBodyKind,
    media_type: MediaType,
    captured: CapturedRequest,
}

/// The annotations of one of the two bodies.
struct BodyAnnotations {
    note: &'static str,
    bytes: &'static str,
    sha256: &'static str,
}

const TRUNCATED: &str = "audit.k8s.io/truncated";
const REQUEST_OBJECT: BodyAnnotations = BodyAnnotations {
    note: "kube-audit-proxy/request-object",
    bytes: "kube-audit-proxy/request-object-bytes",
    sha256: "kube-audit-proxy/request-object-sha256",
};
const RESPONSE_OBJECT: BodyAnnotations = BodyAnnotations {
    note: "kube-audit-proxy/response-object",
    bytes: "kube-audit-proxy/response-object-bytes",
    sha256: "kube-audit-proxy/response-object-sha256",
};

struct Impersonated {
    user: UserInfo,
    /// The verb by which it was allowed, if that was a constrained one.
    constraint: Option<&'static str>,
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
            request: None,
            metadata: None,
            request_object: None,
            response_object: None,
            status: None,
            hidden: None,
            annotations: Vec::new(),
            ended: false,
        };
        record.under_way(1);
        record
    }

    /// Notes what authentication found, in all events; to be called before the first.
    pub fn annotate_all(&mut self, annotations: &[(&'static str, String)]) {
        for (key, value) in annotations {
            self.annotate(key, value.clone());
        }
    }

    /// What is known of the request.
    pub fn facts(&self) -> &RequestFacts {
        &self.facts
    }

    /// Whether it is a watch, an upgrade or the like.
    pub fn is_long_running(&self) -> bool {
        self.long_running
    }

    /// Writes `RequestReceived`.
    pub fn received(&mut self) -> Option<Ack> {
        self.emit(Stage::RequestReceived, self.facts.received)
    }

    /// Whether the request must be refused now because its record cannot be written: in
    /// `blocking-strict`, where no `RequestReceived` is written that would tell, but other events are
    /// to come.
    pub fn is_unwritable(&self) -> bool {
        let omitted = |stage| self.decision.omit_stages.contains(stage);
        let to_come = self.decision.level > Level::None
            && (!omitted(Stage::ResponseComplete)
                || self.long_running && !omitted(Stage::ResponseStarted));
        let sink = &self.recorder.sink;
        to_come && sink.is_strict() && !sink.is_writable()
    }

    /// Whether nothing may pass whose event could not be stored.
    pub fn is_strict(&self) -> bool {
        let strict_webhook =
            self.recorder.webhook.as_ref().is_some_and(|webhook| webhook.is_strict());
        self.recorder.sink.is_strict() || strict_webhook
    }

    /// The proxy has found that the request may be done as somebody else.
    pub fn impersonation_granted(&mut self, granted: Granted) {
        let Granted { user, constraint } = granted;
        self.impersonated = Some(Impersonated { user, constraint, judged_upstream: false });
    }

    /// The API server is asked to do the request as `user`; whether it does shows in its answer.
    pub fn impersonation_asked(&mut self, user: UserInfo) {
        self.impersonated = Some(Impersonated { user, constraint: None, judged_upstream: true });
    }

    /// What is to look at the request's body in passing, if any of it is recorded. Its object's
    /// name is, at every level.
    pub fn tap_request(&mut self, headers: &HeaderMap) -> Option<RequestTap> {
        let level = self.decision.level;
        let kind = RequestBodyKind::of(&self.facts.info).filter(|_| level > Level::None)?;
        if level == Level::Metadata && kind != RequestBodyKind::Object {
            return None;
        }
        let settings = &self.recorder.bodies;
        let media_type = MediaType::of(headers);
        let mut plan = recording::plan(headers, media_type, settings.max_request);
        plan.keep_whole = true;
        plan.omit_managed_fields =
            self.decision.omit_managed_fields && kind == RequestBodyKind::Object;
        plan.redact = self.redacted_paths();
        let (tap, captured) = RequestTap::new(plan, &settings.budget);
        self.request = Some(Request { kind, media_type, captured });
        Some(tap)
    }

    /// What is to capture the answer's body, if it is recorded.
    pub fn capture_response(&self, code: u16, headers: &HeaderMap) -> Option<Capture> {
        let recorded = self.decision.level == Level::RequestResponse
            && headers.contains_key(http::header::CONTENT_TYPE)
            && recording::records_response(&self.facts.info, code);
        let media_type = MediaType::of(headers);
        if !recorded || media_type == MediaType::Other {
            return None;
        }
        let settings = &self.recorder.bodies;
        let mut plan = recording::plan(headers, media_type, settings.max_response);
        plan.omit_managed_fields = self.decision.omit_managed_fields;
        plan.redact = self.redacted_paths();
        Some(Capture::new(plan, &settings.budget))
    }

    fn redacted_paths(&self) -> Option<Arc<body::CompiledPaths>> {
        let info = &self.facts.info;
        let redaction = self.recorder.bodies.redaction.as_ref()?;
        redaction.for_request(info.group(), info.resource(), info.subresource()).cloned()
    }

    /// The answer's body has been captured.
    pub fn response_captured(&mut self, recorded: Recorded) {
        self.response_object = Some(self.annotated(recorded, &RESPONSE_OBJECT));
    }

    /// The proxy itself answers with `status`, which is shown as kube-apiserver would show it.
    pub fn answered_here(&mut self, status: Status) {
        let recorded = self.facts.accept.is_some();
        self.refused(Said { status, recorded });
    }

    fn refused(&mut self, said: Said) {
        let status = &said.status;
        if said.recorded
            && self.decision.level == Level::RequestResponse
            && !status.status.is_empty()
        {
            self.response_object = Some(status.to_json().trim_ascii_end().to_vec());
        }
        self.answered(said.status.code, Some(said));
    }

    /// The answer's code, with what its Status says, if it has one.
    pub fn answered(&mut self, code: u16, said: Option<Said>) {
        let (status, hidden) = match said {
            Some(Said { status, recorded: true }) => (Status { code, ..status }, None),
            Some(Said { status, .. }) => (Status::of_code(code), Some(status)),
            None => (Status::of_code(code), None),
        };
        let told = hidden.as_ref().unwrap_or(&status);
        let refused = |user: &Arc<UserInfo>| impersonation::was_refused(told, user);
        let judged = self.impersonated.as_ref().is_some_and(|i| i.judged_upstream);
        if judged && self.user.as_ref().is_some_and(refused) {
            self.impersonated = None;
        }
        (self.status, self.hidden) = (Some(status), hidden);
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
        self.read_request();
        self.emit(Stage::ResponseStarted, Timestamp::now())
    }

    /// The API server broke off its answer.
    pub fn response_incomplete(&mut self) {
        let why = "the API server closed the connection before the end of its answer";
        self.annotate(INCOMPLETE, why.to_owned());
    }

    /// Ends the record with `ResponseComplete`.
    pub fn complete(mut self) -> Option<Ack> {
        self.end()
    }

    /// Ends the record of a request that was refused before anybody was known to have sent it:
    /// one event, `ResponseStarted`.
    pub fn refused_unauthenticated(mut self, status: Status) -> Option<Ack> {
        self.refused(Said { status, recorded: true });
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
        self.read_request();
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

    /// Takes what is recorded of the request's body, if kube-apiserver got as far as reading it.
    fn read_request(&mut self) {
        let told = self.hidden.as_ref().or(self.status.as_ref());
        let (Some(request), Some(status)) = (&self.request, told) else { return };
        let Request { kind, media_type, .. } = *request;
        if !kind.was_read(status) {
            return;
        }
        let Some(mut capture) = request.captured.take() else { return };
        self.request = None;
        if kind == RequestBodyKind::Object {
            let whole = capture.whole();
            self.metadata = whole.and_then(|body| object::metadata(media_type, body));
        }
        if self.decision.level >= Level::Request {
            let mut recorded = capture.finish(true);
            if kind == RequestBodyKind::DeleteOptions
                && let Some(options) = body::delete_options(&recorded.json)
            {
                recorded.json = options;
            }
            self.request_object = Some(self.annotated(recorded, &REQUEST_OBJECT));
        }
    }

    /// The JSON of a body, after what else there is to say of it went into annotations.
    fn annotated(&mut self, recorded: Recorded, names: &BodyAnnotations) -> Vec<u8> {
        let Recorded { json, cut, note } = recorded;
        if let Some(note) = note {
            self.recorder.metrics.bodies_unreadable.increment();
            self.annotate(names.note, note);
        }
        if let Some(Cut { bytes, sha256 }) = cut {
            self.recorder.metrics.bodies_cut.increment();
            self.annotate(TRUNCATED, "true".to_owned());
            self.annotate(names.bytes, bytes.to_string());
            if let Some(sha256) = sha256 {
                self.annotate(names.sha256, sha256);
            }
        }
        json
    }

    fn annotate(&mut self, key: &'static str, value: String) {
        let at = self.annotations.partition_point(|(known, _)| *known < key);
        if self.annotations.get(at).is_none_or(|(known, _)| *known != key) {
            self.annotations.insert(at, (key, value));
        }
    }

    fn emit(&mut self, stage: Stage, at: Timestamp) -> Option<Ack> {
        let skipped = self.decision.level == Level::None
            || self.decision.omit_stages.contains(stage)
            || !(self.recorder.sink.is_enabled() || self.recorder.webhook.is_some());
        if skipped {
            return None;
        }
        let most = self.recorder.bodies.max_event;
        let line = self.encode_within(stage, at, self.recorder.format, most);
        // The webhook has a limit of its own.
        let webhook = self.recorder.webhook.as_ref().map(|webhook| webhook.max_event_size());
        let json = webhook.map(|limit| match self.recorder.format {
            Format::Json if limit == most => line.clone(),
            _ => self.encode_within(stage, at, Format::Json, limit),
        });
        Some(self.recorder.store(line, json))
    }

    /// The event in at most `most` bytes, if leaving out its bodies, the larger one first, can do
    /// that. kube-apiserver leaves out both at once.
    fn encode_within(
        &mut self,
        stage: Stage,
        at: Timestamp,
        format: Format,
        most: Option<usize>,
    ) -> Vec<u8> {
        let length = |body: &Option<Vec<u8>>| body.as_ref().map_or(0, Vec::len);
        let bodies = length(&self.request_object) + length(&self.response_object);
        let mut line = Vec::with_capacity(1536 + bodies);
        self.encode(stage, at, format, &mut line);
        let Some(most) = most.filter(|most| bodies > 0 && line.len() > *most) else {
            return line;
        };
        let annotations = self.annotations.clone();
        let (mut request, mut response) = (None, None);
        while line.len() > most && length(&self.request_object) + length(&self.response_object) > 0
        {
            let larger_is_request = length(&self.request_object) > length(&self.response_object);
            let (body, kept, names) = if larger_is_request {
                (&mut self.request_object, &mut request, &REQUEST_OBJECT)
            } else {
                (&mut self.response_object, &mut response, &RESPONSE_OBJECT)
            };
            *kept = body.take();
            let bytes = length(kept);
            self.recorder.metrics.bodies_cut.increment();
            self.annotate(TRUNCATED, "true".to_owned());
            self.annotate(names.bytes, bytes.to_string());
            line.clear();
            self.encode(stage, at, format, &mut line);
        }
        // Others, and later stages, may have room for what this one has not.
        self.request_object = request.or(self.request_object.take());
        self.response_object = response.or(self.response_object.take());
        self.annotations = annotations;
        line
    }

    fn encode(&self, stage: Stage, at: Timestamp, format: Format, line: &mut Vec<u8>) {
        let received = stage == Stage::RequestReceived;
        let mut uri = request_uri(&self.facts.target);
        if self.recorder.bodies.redaction.is_some()
            && let Cow::Owned(redacted) = body::redact_query(&uri)
        {
            uri = Cow::Owned(redacted);
        }
        let impersonated = self.impersonated.as_ref().filter(|_| !received);
        let event = Event {
            level: self.decision.level,
            audit_id: self.facts.audit_id.as_bytes(),
            stage,
            request_uri: &uri,
            verb: self.facts.info.verb(),
            user: self.user.as_deref(),
            impersonated_user: impersonated.map(|impersonated| &impersonated.user),
            impersonation_constraint: impersonated.and_then(|impersonated| impersonated.constraint),
            source_ips: &self.facts.source_ips,
            user_agent: &self.facts.user_agent,
            object_ref: self
                .facts
                .info
                .is_resource()
                .then_some(ObjectRef { info: &self.facts.info, metadata: self.metadata.as_ref() }),
            response_status: self.status.as_ref().filter(|_| !received),
            request_object: self.request_object.as_deref(),
            response_object: self.response_object.as_deref(),
            request_received: self.facts.received,
            stage_timestamp: at,
            annotations: &self.annotations,
        };
        match format {
            Format::Json => event.push_json(line),
            Format::Legacy => event.push_legacy(line),
        }
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
