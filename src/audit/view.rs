//! The parts of a request that a group of sinks records: sinks with the same level and redaction
//! share a view, so that a body is captured, and an event encoded, once for all of them.

use std::borrow::Cow;

use audit_body::decode::{self, DecodeError, Decoded};
use audit_body::{Capture, Cut, Recorded, RequestBodyKind};

use super::metrics::BodyMetrics;
use super::recorder::SinkSet;
use super::recording::CapturedRequest;
use crate::policy::{Decision, Level, Stage};
use k8s_audit::status::Status;

/// One or more values; the usual single value needs no allocation.
#[derive(Debug, Clone)]
pub(super) struct OneOrMore<T> {
    first: T,
    others: Vec<T>,
}

impl<T> OneOrMore<T> {
    pub(super) fn one(first: T) -> OneOrMore<T> {
        OneOrMore { first, others: Vec::new() }
    }

    pub(super) fn push(&mut self, other: T) {
        self.others.push(other);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    pub(super) fn map<U>(&self, each: impl Fn(&T) -> U) -> OneOrMore<U> {
        OneOrMore { first: each(&self.first), others: self.others.iter().map(each).collect() }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = T> {
        std::iter::once(self.first).chain(self.others)
    }
}

/// The captures of a response's body: one for each view that records it.
pub struct ResponseCaptures(pub(super) OneOrMore<Option<Capture>>);

impl ResponseCaptures {
    /// Returns whether converting them takes long.
    pub(super) fn is_heavy(&mut self) -> bool {
        self.0.iter_mut().flatten().any(Capture::is_heavy)
    }

    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.iter_mut().flatten().for_each(|capture| capture.push(bytes));
    }
}

/// The parts of a request that a group of sinks records.
pub(super) struct EventVariant {
    pub(super) level: Level,
    pub(super) omit_managed_fields: bool,
    /// The first of its sinks; its settings for bodies apply to all of them.
    pub(super) sink: usize,
    /// The index of the policy that selects the view.
    pub(super) policy: usize,
    /// Whether all its sinks use the same policy.
    pub(super) is_of_one_policy: bool,
    /// For each stage, the sinks that receive its event.
    takers: [SinkSet; Stage::ALL.len()],
    pub(super) request: Option<Request>,
    pub(super) request_object: Option<Vec<u8>>,
    pub(super) response_object: Option<Vec<u8>>,
    pub(super) annotations: Annotations,
}

/// Key and value, sorted by key.
pub(super) type Annotations = Vec<(&'static str, String)>;

/// A request's body while it is captured.
pub(super) struct Request {
    pub(super) kind: RequestBodyKind,
    pub(super) format: decode::Format,
    pub(super) captured: CapturedRequest,
}

/// A request's body after it was captured.
pub(super) struct TakenRequest {
    pub(super) capture: Capture,
    /// The complete body; `None` if only a part was kept.
    pub(super) body: Option<Vec<u8>>,
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

impl EventVariant {
    /// Creates the view of a sink whose policy has made `decision`, without events yet.
    pub(super) fn new(sink: usize, policy: usize, decision: &Decision) -> EventVariant {
        EventVariant {
            level: decision.level,
            omit_managed_fields: decision.omit_managed_fields,
            sink,
            policy,
            is_of_one_policy: false,
            takers: Default::default(),
            request: None,
            request_object: None,
            response_object: None,
            annotations: Vec::new(),
        }
    }

    /// Creates an empty view of no sink.
    pub(super) fn none() -> EventVariant {
        EventVariant {
            level: Level::None,
            omit_managed_fields: false,
            sink: 0,
            policy: 0,
            is_of_one_policy: false,
            takers: Default::default(),
            request: None,
            request_object: None,
            response_object: None,
            annotations: Vec::new(),
        }
    }

    /// Adds a sink for the stages that its policy does not omit.
    pub(super) fn show(&mut self, sink: usize, decision: &Decision) {
        if decision.level == Level::None {
            return;
        }
        for stage in Stage::ALL {
            if !decision.omit_stages.contains(stage) {
                self.takers[stage as usize].insert(sink);
            }
        }
    }

    /// Withholds the last event from all sinks that have received no other event of the request.
    /// Returns these sinks.
    pub(super) fn withhold(&mut self, long_running: bool) -> SinkSet {
        let withheld = self.without_earlier(long_running);
        let last = &mut self.takers[Stage::ResponseComplete as usize];
        *last = last.without(withheld);
        withheld
    }

    /// Returns whether there are such sinks.
    pub(super) fn can_withhold(&self, long_running: bool) -> bool {
        !self.without_earlier(long_running).is_empty()
    }

    /// Returns the sinks that receive the last event and no other.
    fn without_earlier(&self, long_running: bool) -> SinkSet {
        let received = self.takers(Stage::RequestReceived);
        let started = self.takers(Stage::ResponseStarted);
        let begun = if long_running { received.or(started) } else { received };
        self.takers(Stage::ResponseComplete).without(begun)
    }

    /// Returns the sinks that receive the event of this stage.
    pub(super) fn takers(&self, stage: Stage) -> SinkSet {
        self.takers[stage as usize]
    }

    /// Takes the captured body of the request, if kube-apiserver read it before it gave this
    /// response.
    pub(super) fn take_request(&mut self, answer: &Status) -> Option<TakenRequest> {
        let Request { kind, captured, .. } = self.request.as_ref()?;
        if !kind.was_read(answer) {
            return None;
        }
        let mut capture = captured.take()?;
        self.request = None;
        let body = capture.take_whole();
        Some(TakenRequest { capture, body })
    }

    /// Records a request body of which only a part was kept.
    pub(super) fn request_in_part(&mut self, capture: Capture, metrics: &BodyMetrics) {
        if self.level >= Level::Request {
            let recorded = capture.finish(true);
            self.request_object = Some(self.annotated(recorded, &REQUEST_OBJECT, metrics));
        }
    }

    /// Records a request body, which has been decoded.
    pub(super) fn request_decoded(
        &mut self,
        kind: RequestBodyKind,
        (capture, body): (Capture, &[u8]),
        decoded: &Result<Decoded<'_>, DecodeError>,
        metrics: &BodyMetrics,
    ) {
        if self.level >= Level::Request {
            let mut recorded = capture.finish_decoded(body, decoded);
            if kind == RequestBodyKind::DeleteOptions
                && let Some(options) = audit_body::delete_options(&recorded.json)
            {
                recorded.json = options;
            }
            self.request_object = Some(self.annotated(recorded, &REQUEST_OBJECT, metrics));
        } else if let Err(error) = decoded {
            annotate(&mut self.annotations, REQUEST_OBJECT.note, error.message.clone());
        }
    }

    /// Returns whether decoding the request's body would take long.
    pub(super) fn is_heavy(&self, answer: &Status) -> bool {
        let to_come = self.request.as_ref().filter(|request| request.kind.was_read(answer));
        to_come.is_some_and(|request| request.captured.is_heavy())
    }

    /// Takes the request's body as received: the proxy has refused it as ambiguous.
    pub(super) fn refuse_request(&mut self, metrics: &BodyMetrics) {
        let captured = self.request.take().and_then(|request| request.captured.take());
        if let Some(capture) = captured.filter(|_| self.level >= Level::Request) {
            let recorded = capture.finish_raw();
            self.request_object = Some(self.annotated(recorded, &REQUEST_OBJECT, metrics));
        }
    }

    /// Records the captured body of the response.
    pub(super) fn response_captured(&mut self, recorded: Recorded, metrics: &BodyMetrics) {
        self.response_object = Some(self.annotated(recorded, &RESPONSE_OBJECT, metrics));
    }

    /// Returns the JSON of a body, and adds annotations for what it lacks.
    fn annotated(
        &mut self,
        recorded: Recorded,
        names: &BodyAnnotations,
        metrics: &BodyMetrics,
    ) -> Vec<u8> {
        let Recorded { json, cut, note } = recorded;
        if let Some(note) = note {
            if json.starts_with(b"\"") {
                metrics.unreadable.inc();
            }
            annotate(&mut self.annotations, names.note, note);
        }
        if let Some(Cut { bytes, sha256 }) = cut {
            metrics.truncated.inc();
            annotate(&mut self.annotations, TRUNCATED, "true".to_owned());
            annotate(&mut self.annotations, names.bytes, bytes.to_string());
            if let Some(sha256) = sha256 {
                annotate(&mut self.annotations, names.sha256, sha256);
            }
        }
        json
    }

    /// Returns the complete contents.
    pub(super) fn bodies(&self) -> EventBodies<'_> {
        EventBodies {
            request: self.request_object.as_deref(),
            response: self.response_object.as_deref(),
            annotations: Cow::Borrowed(&self.annotations),
        }
    }
}

/// The contents of an event that can be left out if the event is too long, and the annotation for
/// it.
pub(super) struct EventBodies<'v> {
    pub(super) request: Option<&'v [u8]>,
    pub(super) response: Option<&'v [u8]>,
    pub(super) annotations: Cow<'v, [(&'static str, String)]>,
}

impl EventBodies<'_> {
    /// Returns the bytes of both bodies.
    pub(super) fn len(&self) -> usize {
        let [request, response] = self.lengths();
        request + response
    }

    fn lengths(&self) -> [usize; 2] {
        [self.request, self.response].map(|body| body.map_or(0, <[u8]>::len))
    }

    /// Leaves out the larger body; returns `false` if there is none. kube-apiserver leaves out both
    /// at once.
    pub(super) fn leave_out_larger(&mut self) -> bool {
        let [request, response] = self.lengths();
        let (bytes, names) = if request + response == 0 {
            return false;
        } else if request > response {
            self.request = None;
            (request, &REQUEST_OBJECT)
        } else {
            self.response = None;
            (response, &RESPONSE_OBJECT)
        };
        let annotations = self.annotations.to_mut();
        annotate(annotations, TRUNCATED, "true".to_owned());
        annotate(annotations, names.bytes, bytes.to_string());
        true
    }
}

/// Adds an annotation, unless there is one with that key.
pub(super) fn annotate(annotations: &mut Annotations, key: &'static str, value: String) {
    let at = annotations.partition_point(|(known, _)| *known < key);
    if annotations.get(at).is_none_or(|(known, _)| *known != key) {
        annotations.insert(at, (key, value));
    }
}
