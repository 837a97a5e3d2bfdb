//! The record of one request: its events, from the first to exactly one last.

mod ambiguous;
mod end;
mod extension;
mod name;
mod request_body;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use audit_body::{Account, Answered, Capture, MediaType, RequestBodyKind, Said, decode};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use session_recording::Outcome;

pub use super::backend::Backend;
use super::event::{Event, ObjectMetadata, ObjectRef, UserAgent};
use super::recorder::Decided;
pub use super::recorder::{AmbiguousBodies, AuditSink, Encoding, Format, MAX_SINKS, Recorder};
use super::recording::{self, RequestTap};
use super::timestamp::Timestamp;
pub use super::view::ResponseCaptures;
use super::view::{Each, Request, Shown, View, annotate};
use crate::authn::{User, UserInfo};
use crate::authorization::Review;
use crate::body::Tap;
use crate::impersonation::{self, Granted};
use crate::policy::{Level, Stage};
use crate::request::RequestInfo;
use crate::request::accept::Accepted;
use crate::request::uri::request_uri;
use crate::status::Status;
use audit_log::{Commit, CommitSequence};
use request_body::Held;

/// Annotation of an answer that the API server did not bring to its end.
const INCOMPLETE: &str = "kube-audit-proxy/response-incomplete";
/// Annotation of a request whose body does not mean the same to every decoder: why.
const AMBIGUOUS: &str = "kube-audit-proxy/request-ambiguous";
/// Annotation of a request whose processing is unknown: the event's code is the proxy's own.
const OUTCOME_UNKNOWN: &str = "kube-audit-proxy/outcome-unknown";
/// Annotation of a request that failed because the API server denied the proxy's own access.
const ACCESS_DENIED: &str = "kube-audit-proxy/upstream-access-denied";
/// Annotation of a session: the file of its recording.
const SESSION_RECORDING: &str = "kube-audit-proxy/session-recording";
/// Annotation of a session: SHA-256 of the recording.
const SESSION_SHA256: &str = "kube-audit-proxy/session-sha256";
/// Annotation of a session: bytes from the client.
const SESSION_BYTES_IN: &str = "kube-audit-proxy/session-bytes-in";
/// Annotation of a session: bytes to the client.
const SESSION_BYTES_OUT: &str = "kube-audit-proxy/session-bytes-out";
/// Annotation of a session: the exit code of the command.
const SESSION_EXIT_CODE: &str = "kube-audit-proxy/session-exit-code";
/// Annotation of a session that is not recorded, or only in part: why.
const SESSION_ERROR: &str = "kube-audit-proxy/session-recording-error";
/// Annotation of all events with `--audit-node-name`.
const NODE: &str = "kube-audit-proxy/node";

/// What is known of a request from its head and its connection.
#[derive(Clone)]
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

/// The record of one request. It ends exactly once: by [`Record::complete`], or when it is dropped,
/// because the client disconnected or the handler panicked.
pub struct Record {
    recorder: Arc<Recorder>,
    facts: RequestFacts,
    user: Option<Arc<User>>,
    /// What the sinks are shown of it.
    views: Each<View>,
    /// By policy, what decided that.
    decided: Each<Decided>,
    /// Whether one of the policies has an extension.
    is_extended: bool,
    /// The version of the object in the response, if an extension asks for it.
    response_version: Option<String>,
    long_running: bool,
    impersonated: Option<Impersonated>,
    /// Why the API server allows the request, until its response is known.
    authorization: Option<Box<Review>>,
    metadata: Option<ObjectMetadata>,
    /// The number of the client's connection.
    connection: u64,
    /// Of the worker that serves the connection.
    sequence: CommitSequence,
    /// The answer's body, until it is converted; and whether all of it came.
    response: Option<(ResponseCaptures, bool)>,
    /// The object that was created, by the answer.
    created: Option<Answered>,
    /// Whether there is a body that is an object.
    has_object: bool,
    /// Whether the body was too long to be kept, so that its name is not known.
    in_part: bool,
    /// The body as it was decoded before it was forwarded.
    held: Option<Held>,
    /// The last stage, if it is known before the record ends.
    last: Option<Stage>,
    /// The outcome, once it is known.
    status: Option<Status>,
    /// The Status of which kube-apiserver shows nothing but the code.
    hidden: Option<Status>,
    ended: bool,
}

struct Impersonated {
    user: UserInfo,
    /// The verb by which it was allowed, if that was a constrained one.
    constraint: Option<&'static str>,
    /// Whether it is the API server that allows it, whose answer is to be looked at.
    judged_upstream: bool,
}

impl Record {
    /// Begins the record of a request by `user`, with what the policies say of it now.
    pub fn begin(
        recorder: Arc<Recorder>,
        facts: RequestFacts,
        user: Option<Arc<User>>,
    ) -> Box<Record> {
        let long_running = facts.info.is_long_running();
        let (views, decided, is_extended) =
            recorder.views(user.as_deref().map(|user| &**user), &facts.info);
        let mut record = Box::new(Record {
            recorder,
            facts,
            user,
            views,
            decided,
            is_extended,
            response_version: None,
            long_running,
            impersonated: None,
            authorization: None,
            metadata: None,
            connection: 0,
            sequence: CommitSequence::detached(),
            response: None,
            created: None,
            has_object: false,
            in_part: false,
            held: None,
            last: None,
            status: None,
            hidden: None,
            ended: false,
        });
        record.recorder.metrics.policy_evaluated(record.level());
        if let Some(node) = record.recorder.node_name.clone() {
            record.annotate(NODE, &node);
        }
        record.under_way(1);
        record
    }

    /// Notes on which connection the request came, whose share of the memory for bodies it uses,
    /// and in whose worker's sequence its events are committed.
    pub fn on_connection(&mut self, number: u64, sequence: &CommitSequence) {
        self.connection = number;
        self.sequence = sequence.clone();
    }

    fn account(&self) -> Account {
        Account { user: self.user.clone(), connection: self.connection }
    }

    /// The highest level that any sink's policy asks for.
    fn level(&self) -> Level {
        self.views.iter().map(|view| view.level).max().unwrap_or(Level::None)
    }

    /// Notes what authentication found, in all events; to be called before the first.
    pub fn annotate_all(&mut self, annotations: &[(&'static str, String)]) {
        for (key, value) in annotations {
            self.annotate(key, value);
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

    /// Submits `RequestReceived`.
    pub fn received(&mut self) -> Commit {
        self.emit(Stage::RequestReceived, self.facts.received)
    }

    /// Whether the record can be written, as far as is known: in `blocking-strict`, a sink that has
    /// got no `RequestReceived`, which would tell, but is to get other events, must be well.
    pub async fn is_writable(&self) -> bool {
        if !self.recorder.is_strict() {
            return true;
        }
        let takers = |stage| Recorder::takers(&self.views, |view| view.takers(stage));
        let mut to_come = takers(Stage::ResponseComplete);
        if self.long_running {
            to_come = to_come.or(takers(Stage::ResponseStarted));
        }
        self.recorder.is_writable(to_come, takers(Stage::RequestReceived)).await
    }

    /// The impersonation was authorized.
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
    pub fn tap_request(&mut self, headers: &HeaderMap) -> Option<Box<dyn Tap>> {
        let level = self.level();
        let kind = RequestBodyKind::of(&self.facts.info).filter(|_| level > Level::None)?;
        if level == Level::Metadata && kind != RequestBodyKind::Object {
            return None;
        }
        self.has_object = kind == RequestBodyKind::Object;
        let format = decode::Format::of_request(headers, kind);
        let account = self.account();
        let mut first: Option<RequestTap> = None;
        let mut others = Vec::new();
        for view in self.views.iter_mut() {
            // The object's name is the same for all.
            if view.level < Level::Request && (level >= Level::Request || first.is_some()) {
                continue;
            }
            let settings = self.recorder.bodies(view);
            let mut plan = recording::request_plan(headers, settings.max_request);
            plan.omit_managed_fields = view.omit_managed_fields && kind == RequestBodyKind::Object;
            plan.redact = redacted_paths(&self.recorder, view, &self.facts.info);
            let (tap, captured) = RequestTap::new(plan, &settings.budget, account.clone());
            view.request = Some(Request { kind, format, captured });
            match &first {
                None => first = Some(tap),
                Some(_) => others.push(tap),
            }
        }
        let first = first?;
        if others.is_empty() {
            return Some(Box::new(first));
        }
        others.push(first);
        Some(Box::new(others))
    }

    /// What is to capture the answer's body, if it is recorded.
    pub fn capture_response(&self, code: u16, headers: &HeaderMap) -> Option<ResponseCaptures> {
        let compares = self.compares_versions();
        let recorded = (self.level() == Level::RequestResponse || compares)
            && headers.contains_key(http::header::CONTENT_TYPE)
            && recording::records_response(&self.facts.info, code);
        let media_type = MediaType::of(headers);
        if !recorded || media_type == MediaType::Other {
            return None;
        }
        let capture = |view: &View| {
            let settings = self.recorder.bodies(view);
            let mut plan = recording::plan(headers, media_type, settings.max_response);
            plan.omit_managed_fields = view.omit_managed_fields;
            plan.redact = redacted_paths(&self.recorder, view, &self.facts.info);
            Capture::new(plan, &settings.budget, self.account())
        };
        let is_shown = |view: &View| {
            view.level == Level::RequestResponse || compares && view.level > Level::None
        };
        Some(ResponseCaptures(self.views.map(|view| is_shown(view).then(|| capture(view)))))
    }

    /// The answer's body has been captured; `all` of it, or a part.
    pub fn response_captured(&mut self, captures: ResponseCaptures, all: bool) {
        self.response = Some((captures, all));
    }

    fn read_response(&mut self, captures: ResponseCaptures, all: bool) {
        let mut unrecorded = None;
        for (view, capture) in self.views.iter_mut().zip(captures.0.into_iter()) {
            // If the client did not wait for the response, the capture may be empty, which is not
            // an object.
            let Some(capture) = capture.filter(|capture| all || !capture.is_empty()) else {
                continue;
            };
            let recorded = capture.finish(all);
            match view.level == Level::RequestResponse {
                true => view.response_captured(recorded, &self.recorder.metrics.bodies),
                false => unrecorded = Some(recorded.json),
            }
        }
        if self.is_extended {
            let shown = self.views.iter_mut().find_map(|view| view.response_object.clone());
            if let Some(object) = unrecorded.or(shown) {
                self.response_versioned(&object);
            }
        }
    }

    /// The proxy itself answers with `status`, which is shown as kube-apiserver would show it.
    pub fn answered_here(&mut self, status: Status) {
        let recorded = self.facts.accept.is_some();
        self.refused(Said { status, recorded });
    }

    /// Records the Status that the API server sent no body for, since the method is HEAD. Returns
    /// `false` if it is not certain which one that was; then nothing is recorded.
    pub fn answered_to_head(&mut self, code: u16, answer: &HeaderMap, pretty: bool) -> bool {
        let user = self.user.as_deref().map(|user| &**user);
        let other = self.impersonated.as_ref().map(|impersonated| &impersonated.user);
        let status = super::head::status(code, answer, pretty, &self.facts.info, user, other);
        let known = status.is_some();
        if let Some(status) = status {
            self.answered_here(status);
        }
        known
    }

    fn refused(&mut self, said: Said) {
        let status = &said.status;
        let shown = self.views.iter_mut().filter(|view| view.level == Level::RequestResponse);
        for view in shown.filter(|_| said.recorded && !status.status.is_empty()) {
            view.response_object = Some(status.to_json().trim_ascii_end().to_vec());
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
        let refused = |user: &Arc<User>| impersonation::was_refused(told, user);
        let judged = self.impersonated.as_ref().is_some_and(|i| i.judged_upstream);
        if judged && self.user.as_ref().is_some_and(refused) {
            self.impersonated = None;
        }
        (self.status, self.hidden) = (Some(status), hidden);
        self.annotate_authorization();
    }

    /// Adds what the review returned, now that the response is known.
    fn annotate_authorization(&mut self) {
        let Some(review) = self.authorization.take() else { return };
        let Some(status) = self.hidden.as_ref().or(self.status.as_ref()) else { return };
        let caller = self.user.as_deref().map(|user| &**user);
        for (key, value) in review.annotations(status, caller) {
            self.annotate(key, &value);
        }
    }

    /// The API server has responded: the review says why it allowed the request.
    pub fn reviewed(&mut self, review: Box<Review>) {
        self.authorization = Some(review);
    }

    /// The user that the request is made as.
    pub fn effective_user(&self) -> Option<&UserInfo> {
        let user = self.user.as_deref().map(|user| &**user);
        self.impersonated.as_ref().map(|impersonated| &impersonated.user).or(user)
    }

    /// The code of the answer; 0 before there is one.
    pub fn code(&self) -> u16 {
        self.status.as_ref().map_or(0, |status| status.code)
    }

    /// Submits `ResponseStarted`, if the request is one that has it.
    pub fn response_started(&mut self) -> Commit {
        if !self.long_running {
            return Commit::DONE;
        }
        self.digest();
        self.emit(Stage::ResponseStarted, Timestamp::now())
    }

    /// The response broke off, for this reason.
    pub fn response_incomplete(&mut self, why: &str) {
        self.annotate(INCOMPLETE, why);
    }

    /// The API server may have processed the request, although the client gets an error of the
    /// proxy's own.
    pub fn outcome_unknown(&mut self, why: &str) {
        self.annotate(OUTCOME_UNKNOWN, why);
    }

    /// The client gets an error because the API server denied the proxy's own access.
    pub fn access_denied(&mut self, why: &str) {
        self.annotate(ACCESS_DENIED, why);
    }

    /// Returns the user that the request is made as, if that is another one.
    pub fn impersonated_user(&self) -> Option<&UserInfo> {
        self.impersonated.as_ref().map(|impersonated| &impersonated.user)
    }

    /// The session is recorded in `file`.
    pub fn session_begun(&mut self, file: &str) {
        self.annotate(SESSION_RECORDING, file);
    }

    /// The session cannot be recorded.
    pub fn session_unrecorded(&mut self, why: &str) {
        self.annotate(SESSION_ERROR, why);
    }

    /// The session has ended.
    pub fn session_ended(&mut self, outcome: &Outcome) {
        if let Some(sha256) = &outcome.sha256 {
            self.annotate(SESSION_SHA256, sha256);
        }
        self.annotate(SESSION_BYTES_IN, &outcome.bytes_in.to_string());
        self.annotate(SESSION_BYTES_OUT, &outcome.bytes_out.to_string());
        if let Some(code) = outcome.exit_code {
            self.annotate(SESSION_EXIT_CODE, &code.to_string());
        }
        if let Some(error) = &outcome.error {
            self.annotate(SESSION_ERROR, error);
        }
    }

    /// Ends the record with `ResponseComplete`.
    pub fn complete(mut self: Box<Self>) -> Commit {
        self.end()
    }

    /// Ends the record of a request that was refused before anybody was known to have sent it:
    /// one event, `ResponseStarted`.
    pub fn refused_unauthenticated(mut self: Box<Self>, status: Status) -> Commit {
        self.refused(Said { status, recorded: true });
        let now = Timestamp::now();
        let commit = self.emit(Stage::ResponseStarted, now);
        self.count_end(now);
        commit
    }

    /// Ends the record without a further event: its first one could not be stored.
    pub fn rejected(mut self: Box<Self>, code: u16) {
        self.answered(code, None);
        self.recorder.metrics.requests_rejected.inc();
        self.count_end(Timestamp::now());
    }

    fn count_end(&mut self, now: Timestamp) {
        self.ended = true;
        let nanos = now.nanos().saturating_sub(self.facts.received.nanos());
        let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        let took = (!self.long_running).then_some(took);
        self.recorder.metrics.requests.done(self.facts.info.verb(), self.code(), took);
        self.under_way(-1);
    }

    fn under_way(&self, change: i64) {
        let metrics = &self.recorder.metrics.requests;
        if self.long_running { &metrics.long_running } else { &metrics.in_flight }.inc_by(change);
    }

    fn annotate(&mut self, key: &'static str, value: &str) {
        for view in self.views.iter_mut() {
            annotate(&mut view.annotations, key, value.to_owned());
        }
    }

    fn emit(&self, stage: Stage, at: Timestamp) -> Commit {
        let (mut commit, mut is_taken) = (Commit::DONE, false);
        for view in self.views.iter() {
            let takers = view.takers(stage);
            is_taken |= !takers.is_empty();
            let encode = |encoding| self.encode_within(view, stage, at, encoding);
            commit = self.recorder.store(takers, &self.decided, encode, &self.sequence, commit);
        }
        if is_taken {
            self.recorder.count_event();
        }
        commit
    }

    /// The event in at most `max_event` bytes, if leaving out its bodies, the larger one first, can
    /// do that.
    fn encode_within(
        &self,
        view: &View,
        stage: Stage,
        at: Timestamp,
        Encoding { format, max_event }: Encoding,
    ) -> Vec<u8> {
        let mut shown = view.shown();
        let mut line = Vec::with_capacity(1536 + shown.bodies());
        self.encode(view, &shown, (stage, at), format, &mut line);
        let Some(most) = max_event else { return line };
        while line.len() > most && shown.leave_out_larger() {
            self.recorder.metrics.bodies.truncated.inc();
            line.clear();
            self.encode(view, &shown, (stage, at), format, &mut line);
        }
        line
    }

    fn encode(
        &self,
        view: &View,
        shown: &Shown<'_>,
        (stage, at): (Stage, Timestamp),
        format: Format,
        line: &mut Vec<u8>,
    ) {
        let received = stage == Stage::RequestReceived;
        let mut uri = request_uri(&self.facts.target);
        if self.recorder.bodies(view).redaction.is_some()
            && let Cow::Owned(redacted) = audit_body::redact_query(&uri)
        {
            uri = Cow::Owned(redacted);
        }
        let impersonated = self.impersonated.as_ref().filter(|_| !received);
        let event = Event {
            level: view.level,
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
            request_object: shown.request,
            response_object: shown.response,
            request_received: self.facts.received,
            stage_timestamp: at,
            annotations: &shown.annotations,
        };
        match format {
            Format::Json => event.push_json(line),
            Format::Legacy => {
                event.push_legacy(&super::legacy::local_time(event.request_received), line);
            }
        }
    }
}

fn redacted_paths(
    recorder: &Recorder,
    view: &View,
    info: &RequestInfo,
) -> Option<Arc<audit_body::CompiledPaths>> {
    let redaction = recorder.bodies(view).redaction.as_ref()?;
    redaction.for_request(info.group(), info.resource(), info.subresource()).cloned()
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
