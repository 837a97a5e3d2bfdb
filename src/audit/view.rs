//! What some sinks are shown of a request: those that agree on level and redaction share a view, so
//! that a body is captured, and an event encoded, once for all of them.

use std::borrow::Cow;

use audit_body::decode::{self, DecodeError, Decoded};
use audit_body::{Capture, Cut, Recorded, RequestBodyKind};

use super::metrics::BodyMetrics;
use super::recorder::SinkSet;
use super::recording::CapturedRequest;
use crate::policy::{Decision, Level, Stage};
use crate::status::Status;

/// One or more of something, where one is the usual case and costs no allocation.
#[derive(Debug, Clone)]
pub(super) struct Each<T> {
    first: T,
    others: Vec<T>,
}

impl<T> Each<T> {
    pub(super) fn one(first: T) -> Each<T> {
        Each { first, others: Vec::new() }
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

    pub(super) fn map<U>(&self, each: impl Fn(&T) -> U) -> Each<U> {
        Each { first: each(&self.first), others: self.others.iter().map(each).collect() }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = T> {
        std::iter::once(self.first).chain(self.others)
    }
}

/// An answer's body on its way into the record: for each view that shows it, a capture.
pub struct ResponseCaptures(pub(super) Each<Option<Capture>>);

impl ResponseCaptures {
    /// Whether converting them takes long.
    pub(super) fn is_heavy(&mut self) -> bool {
        self.0.iter_mut().flatten().any(Capture::is_heavy)
    }

    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.iter_mut().flatten().for_each(|capture| capture.push(bytes));
    }
}

/// What some sinks are shown.
pub(super) struct View {
    pub(super) level: Level,
    pub(super) omit_managed_fields: bool,
    /// The first of its sinks, whose settings for bodies hold for all of them.
    pub(super) sink: usize,
    /// The number of the policy by which it is shown.
    pub(super) policy: usize,
    /// Only sinks with this policy have it.
    pub(super) is_of_one_policy: bool,
    /// By stage, the sinks that get its event.
    takers: [SinkSet; Stage::ALL.len()],
    pub(super) request: Option<Request>,
    pub(super) request_object: Option<Vec<u8>>,
    pub(super) response_object: Option<Vec<u8>>,
    pub(super) annotations: Annotations,
}

/// Key and value, sorted by key.
pub(super) type Annotations = Vec<(&'static str, String)>;

/// A request's body that is being captured.
pub(super) struct Request {
    pub(super) kind: RequestBodyKind,
    pub(super) format: decode::Format,
    pub(super) captured: CapturedRequest,
}

/// A request's body on its way into the event.
pub(super) struct TakenRequest {
    pub(super) capture: Capture,
    /// All of it; `None` if only a part was kept.
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

impl View {
    /// The view of a sink whose policy says `decision`; not yet one that it takes events of.
    pub(super) fn new(sink: usize, policy: usize, decision: &Decision) -> View {
        View {
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

    /// A view of nothing that no sink has.
    pub(super) fn none() -> View {
        View {
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

    /// Shows it to one more sink, in the stages that its policy does not omit.
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

    /// Keeps the last event from all sinks that have not got an earlier one of the request. Returns
    /// them.
    pub(super) fn withhold(&mut self, long_running: bool) -> SinkSet {
        let withheld = self.without_earlier(long_running);
        let last = &mut self.takers[Stage::ResponseComplete as usize];
        *last = last.without(withheld);
        withheld
    }

    /// Whether there are such sinks.
    pub(super) fn can_withhold(&self, long_running: bool) -> bool {
        !self.without_earlier(long_running).is_empty()
    }

    /// The sinks that get the last event and no other.
    fn without_earlier(&self, long_running: bool) -> SinkSet {
        let received = self.takers(Stage::RequestReceived);
        let started = self.takers(Stage::ResponseStarted);
        let begun = if long_running { received.or(started) } else { received };
        self.takers(Stage::ResponseComplete).without(begun)
    }

    /// The sinks that get the event of this stage.
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

    /// Whether decoding the request's body would take long.
    pub(super) fn is_heavy(&self, answer: &Status) -> bool {
        let to_come = self.request.as_ref().filter(|request| request.kind.was_read(answer));
        to_come.is_some_and(|request| request.captured.is_heavy())
    }

    /// Takes the request's body as it came: the proxy has refused it for its meaning.
    pub(super) fn refuse_request(&mut self, metrics: &BodyMetrics) {
        let captured = self.request.take().and_then(|request| request.captured.take());
        if let Some(capture) = captured.filter(|_| self.level >= Level::Request) {
            let recorded = capture.finish_raw();
            self.request_object = Some(self.annotated(recorded, &REQUEST_OBJECT, metrics));
        }
    }

    /// The answer's body has been captured.
    pub(super) fn response_captured(&mut self, recorded: Recorded, metrics: &BodyMetrics) {
        self.response_object = Some(self.annotated(recorded, &RESPONSE_OBJECT, metrics));
    }

    /// The JSON of a body, after what else there is to say of it went into annotations.
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

    /// All of it.
    pub(super) fn shown(&self) -> Shown<'_> {
        Shown {
            request: self.request_object.as_deref(),
            response: self.response_object.as_deref(),
            annotations: Cow::Borrowed(&self.annotations),
        }
    }
}

/// The part of an event that is removed if the event is too long, and the annotation for it.
pub(super) struct Shown<'v> {
    pub(super) request: Option<&'v [u8]>,
    pub(super) response: Option<&'v [u8]>,
    pub(super) annotations: Cow<'v, [(&'static str, String)]>,
}

impl Shown<'_> {
    /// The bytes of both bodies.
    pub(super) fn bodies(&self) -> usize {
        let [request, response] = self.lengths();
        request + response
    }

    fn lengths(&self) -> [usize; 2] {
        [self.request, self.response].map(|body| body.map_or(0, <[u8]>::len))
    }

    /// Leaves out the larger body. `false`: there is none. kube-apiserver leaves out both at once.
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

/// Adds an annotation, unless there is one of that key.
pub(super) fn annotate(annotations: &mut Annotations, key: &'static str, value: String) {
    let at = annotations.partition_point(|(known, _)| *known < key);
    if annotations.get(at).is_none_or(|(known, _)| *known != key) {
        annotations.insert(at, (key, value));
    }
}
