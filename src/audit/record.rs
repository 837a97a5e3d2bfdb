//! The record of one request: all its events, with exactly one last event.

mod ambiguous;
mod annotations;
mod encode;
mod end;
mod extension;
mod name;
mod request_body;
mod response;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use audit_body::{Account, CreatedResponse, ParsedStatus, RequestBodyKind, decode};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

pub use super::backend::Backend;
use super::recorder::PolicyDecision;
pub use super::recorder::{AmbiguousBodies, AuditPipeline, AuditSink, Encoding, Format, MAX_SINKS};
use super::recording::{self, RequestTap};
pub use super::view::ResponseCaptures;
use super::view::{EventVariant, OneOrMore, Request};
use crate::authorization::Review;
use crate::body::Tap;
use crate::impersonation::ImpersonatedUser;
use crate::policy::{Level, Stage};
use annotations::NODE;
use audit_log::{Commit, CommitSequence};
use k8s_audit::event::{ObjectMetadata, UserAgent};
use k8s_audit::request::RequestInfo;
use k8s_audit::request::accept::Accepted;
use k8s_audit::status::Status;
use k8s_audit::timestamp::Timestamp;
use kube_authn::{User, UserInfo};
use request_body::DecodedBody;

/// The properties of a request that its head and its connection determine.
#[derive(Clone)]
pub struct RequestContext {
    /// When the head was complete.
    pub received: Timestamp,
    /// `Audit-ID`
    pub audit_id: HeaderValue,
    /// Path and query as they were received.
    pub target: PathAndQuery,
    /// Verb and object.
    pub info: RequestInfo,
    /// The client's addresses.
    pub source_ips: Vec<IpAddr>,
    /// `User-Agent`
    pub user_agent: UserAgent,
    /// The negotiated response format, if kube-apiserver supports it.
    pub accept: Option<Accepted>,
}

/// The record of one request. It ends exactly once: by [`AuditContext::complete`], or when it is
/// dropped, because the client disconnected or the handler panicked.
pub struct AuditContext {
    recorder: Arc<AuditPipeline>,
    facts: RequestContext,
    user: Option<Arc<User>>,
    /// The parts of the request that each group of sinks records.
    views: OneOrMore<EventVariant>,
    /// The decision of each policy.
    decided: OneOrMore<PolicyDecision>,
    /// Whether one of the policies has an extension.
    is_extended: bool,
    /// The version of the object in the response, if an extension needs it.
    response_version: Option<String>,
    long_running: bool,
    impersonated: Option<Impersonated>,
    /// The review that shows why the API server allows the request, until the response is known.
    authorization: Option<Box<Review>>,
    metadata: Option<ObjectMetadata>,
    /// The number of the client's connection.
    connection: u64,
    /// The commit sequence of the worker that serves the connection.
    sequence: CommitSequence,
    /// The response's body until it is converted, and whether it is complete.
    response: Option<(ResponseCaptures, bool)>,
    /// The created object, by the response.
    created: Option<CreatedResponse>,
    /// Whether the request's body is an object.
    has_object: bool,
    /// Whether the body was too long to be kept, so that its name is unknown.
    in_part: bool,
    /// The result of decoding the body before it was forwarded.
    held: Option<DecodedBody>,
    /// The last stage, if it is decided before the record ends.
    last: Option<Stage>,
    /// The outcome, when known.
    status: Option<Status>,
    /// The Status of which kube-apiserver records only the code.
    hidden: Option<Status>,
    ended: bool,
}

struct Impersonated {
    user: UserInfo,
    /// The verb that allowed it, if that was a constrained one.
    constraint: Option<&'static str>,
    /// Whether the API server authorizes it, so that its response shows the result.
    authorized_upstream: bool,
}

impl AuditContext {
    /// Begins the record of a request by `user`, with the current decisions of the policies.
    pub fn begin(
        recorder: Arc<AuditPipeline>,
        facts: RequestContext,
        user: Option<Arc<User>>,
    ) -> Box<AuditContext> {
        let long_running = facts.info.is_long_running();
        let (views, decided, is_extended) =
            recorder.views(user.as_deref().map(|user| &**user), &facts.info);
        let mut record = Box::new(AuditContext {
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

    /// Sets the connection of the request, whose share of the memory for bodies it uses, and the
    /// commit sequence of its worker, in which its events are committed.
    pub fn on_connection(&mut self, number: u64, sequence: &CommitSequence) {
        self.connection = number;
        self.sequence = sequence.clone();
    }

    fn account(&self) -> Account {
        Account { user: self.user.clone(), connection: self.connection }
    }

    /// Returns the highest level that any policy requires.
    fn level(&self) -> Level {
        self.views.iter().map(|view| view.level).max().unwrap_or(Level::None)
    }

    /// Returns the properties of the request.
    pub fn facts(&self) -> &RequestContext {
        &self.facts
    }

    /// Returns whether the request is long-running, such as a watch or an upgrade.
    pub fn is_long_running(&self) -> bool {
        self.long_running
    }

    /// Submits `RequestReceived`.
    pub fn received(&mut self) -> Commit {
        self.emit(Stage::RequestReceived, self.facts.received)
    }

    /// Returns whether the record is expected to be writable. In `blocking-strict`, the result of
    /// `RequestReceived` shows this; sinks that receive only other events must be healthy.
    pub async fn is_writable(&self) -> bool {
        if !self.recorder.is_strict() {
            return true;
        }
        let takers = |stage| AuditPipeline::takers(&self.views, |view| view.takers(stage));
        let mut to_come = takers(Stage::ResponseComplete);
        if self.long_running {
            to_come = to_come.or(takers(Stage::ResponseStarted));
        }
        self.recorder.is_writable(to_come, takers(Stage::RequestReceived)).await
    }

    /// Records that the impersonation was authorized.
    pub fn impersonation_allowed(&mut self, impersonated: ImpersonatedUser) {
        let ImpersonatedUser { user, constraint } = impersonated;
        self.impersonated = Some(Impersonated { user, constraint, authorized_upstream: false });
    }

    /// Records that the API server was asked to impersonate `user`; its response shows whether it
    /// did.
    pub fn impersonation_requested(&mut self, user: UserInfo) {
        self.impersonated =
            Some(Impersonated { user, constraint: None, authorized_upstream: true });
    }

    /// Returns a tap that captures the request's body, if any of it is recorded. The name of its
    /// object is recorded at every level.
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

    /// Returns the user that the request is made as.
    pub fn effective_user(&self) -> Option<&UserInfo> {
        let user = self.user.as_deref().map(|user| &**user);
        self.impersonated.as_ref().map(|impersonated| &impersonated.user).or(user)
    }

    /// Returns the code of the response; 0 before there is one.
    pub fn code(&self) -> u16 {
        self.status.as_ref().map_or(0, |status| status.code)
    }

    /// Submits `ResponseStarted`, if the request is long-running.
    pub fn response_started(&mut self) -> Commit {
        if !self.long_running {
            return Commit::DONE;
        }
        self.digest();
        self.emit(Stage::ResponseStarted, Timestamp::now())
    }

    /// Returns the impersonated user, if there is one.
    pub fn impersonated_user(&self) -> Option<&UserInfo> {
        self.impersonated.as_ref().map(|impersonated| &impersonated.user)
    }

    /// Ends the record with `ResponseComplete`.
    pub fn complete(mut self: Box<Self>) -> Commit {
        self.end()
    }

    /// Ends the record of a request that was refused before it was authenticated: one event,
    /// `ResponseStarted`.
    pub fn refused_unauthenticated(mut self: Box<Self>, status: Status) -> Commit {
        self.refused(ParsedStatus { status, recorded: true });
        let now = Timestamp::now();
        let commit = self.emit(Stage::ResponseStarted, now);
        self.count_end(now);
        commit
    }

    /// Ends the record without another event, because the first one could not be stored.
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
}

fn redacted_paths(
    recorder: &AuditPipeline,
    view: &EventVariant,
    info: &RequestInfo,
) -> Option<Arc<audit_body::CompiledPaths>> {
    let redaction = recorder.bodies(view).redaction.as_ref()?;
    redaction.for_request(info.group(), info.resource(), info.subresource()).cloned()
}

#[cfg(test)]
mod tests;
