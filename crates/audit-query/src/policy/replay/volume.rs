//! Computes how much is written for a request under a decision.
//!
//! It is the size of the recorded event, without bodies that the level omits. If the level includes
//! a body that the log does not contain, its size is estimated: with the average of recorded bodies
//! for the same verb and resource, otherwise with [`REQUEST_BODY`], [`RESPONSE_BODY`] and
//! [`LIST_BODY`]. `RequestReceived` and `ResponseStarted` events count with the size of the last
//! event, as far as they contain its members.

use crate::event::Event;
use hashbrown::HashMap;

use crate::policy::event::EventRequest;
use k8s_audit::policy::{Attributes, Decision, Level, Stage};

/// Bytes of a request body if the log has none for the verb and resource.
pub const REQUEST_BODY: u64 = 2_000;
/// Bytes of a response body if the log has none for the verb and resource.
pub const RESPONSE_BODY: u64 = 3_000;
/// Bytes of the response to a list if the log has none for the resource.
pub const LIST_BODY: u64 = 50_000;
/// Bytes of the Status in the response to a failed request.
const STATUS_BODY: u64 = 300;

const REQUEST_MEMBER: u64 = ",\"requestObject\":".len() as u64;
const RESPONSE_MEMBER: u64 = ",\"responseObject\":".len() as u64;
const STATUS_MEMBER: u64 = ",\"responseStatus\":{\"metadata\":{},\"code\":200}".len() as u64;

/// Whether and how a body is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// The request has no such body.
    None,
    /// This many bytes.
    Recorded(u64),
    /// The level of the event omits it.
    Unknown,
    /// The level of the event omits it, but it is the Status of a failed request, whose size is
    /// roughly known.
    Status,
}

/// The sizes of an event's parts, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Without bodies, including the newline.
    metadata: u64,
    request: Body,
    response: Body,
    /// The stages for which kube-apiserver has an event of the request.
    stages: [Option<Stage>; 3],
}

impl Sizes {
    /// Measures the last event of a request.
    pub fn of(event: &Event<'_>, request: &EventRequest<'_>) -> Sizes {
        let length = |body: Option<&[u8]>| body.map(|body| body.len() as u64);
        let (request_body, response_body) =
            (length(event.request_object), length(event.response_object));
        let bodies = request_body.map_or(0, |length| length + REQUEST_MEMBER)
            + response_body.map_or(0, |length| length + RESPONSE_MEMBER);
        let whole = event.raw.len() as u64 + 1;
        let level = event.level.escaped();
        let is_object = request.is_resource();
        let has_request = is_object
            && matches!(request.verb(), b"create" | b"update" | b"patch")
            && !matches!(request.subresource(), b"exec" | b"attach" | b"portforward" | b"proxy");
        let has_response = is_object && !request.is_long_running();
        let failed = event.status.code.is_some_and(|code| code >= 400);
        Sizes {
            metadata: whole.saturating_sub(bodies + level.len() as u64),
            request: match request_body {
                Some(length) => Body::Recorded(length),
                None if level == b"Metadata" && has_request => Body::Unknown,
                None => Body::None,
            },
            response: match response_body {
                Some(length) => Body::Recorded(length),
                None if level == b"RequestResponse" || !has_response => Body::None,
                None if failed => Body::Status,
                None => Body::Unknown,
            },
            stages: stages(event, request),
        }
    }
}

/// Returns the stages of a request that ended with this event.
fn stages(event: &Event<'_>, request: &EventRequest<'_>) -> [Option<Stage>; 3] {
    let received = Some(Stage::RequestReceived);
    let started = Some(Stage::ResponseStarted);
    match event.stage.escaped() {
        b"RequestReceived" => [received, None, None],
        // An unauthenticated request has no other event.
        b"ResponseStarted" if request.user().is_none() => [started, None, None],
        b"ResponseStarted" => [received, started, None],
        b"Panic" => [received, Some(Stage::Panic), None],
        _ => {
            [received, started.filter(|_| request.is_long_running()), Some(Stage::ResponseComplete)]
        }
    }
}

/// The number and size of the events that are written.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    /// Events.
    pub events: u64,
    /// The known bytes.
    bytes: u64,
    /// The number of request and response bodies of unknown size, by verb and resource.
    unknown: HashMap<Vec<u8>, (u64, u64)>,
}

impl Volume {
    /// Adds what is written for a request.
    pub fn count(&mut self, sizes: &Sizes, decision: Decision, asked: &[u8]) {
        if decision.level == Level::None {
            return;
        }
        let (mut requests, mut responses) = (0, 0);
        let stages = sizes.stages.into_iter().flatten();
        for stage in stages.filter(|stage| !decision.omit_stages.contains(*stage)) {
            self.events += 1;
            let metadata = sizes.metadata + decision.level.as_str().len() as u64;
            if stage == Stage::RequestReceived {
                self.bytes += metadata.saturating_sub(STATUS_MEMBER);
                continue;
            }
            self.bytes += metadata;
            if decision.level >= Level::Request {
                match sizes.request {
                    Body::Recorded(length) => self.bytes += length + REQUEST_MEMBER,
                    Body::Unknown => requests += 1,
                    Body::None | Body::Status => {}
                }
            }
            if decision.level == Level::RequestResponse && stage == Stage::ResponseComplete {
                match sizes.response {
                    Body::Recorded(length) => self.bytes += length + RESPONSE_MEMBER,
                    Body::Status => self.bytes += STATUS_BODY + RESPONSE_MEMBER,
                    Body::Unknown => responses += 1,
                    Body::None => {}
                }
            }
        }
        if requests + responses > 0 {
            let unknown = self.unknown.entry_ref(asked).or_default();
            *unknown = (unknown.0 + requests, unknown.1 + responses);
        }
    }

    /// Adds another volume.
    pub fn add(&mut self, other: Volume) {
        self.events += other.events;
        self.bytes += other.bytes;
        for (asked, (requests, responses)) in other.unknown {
            let unknown = self.unknown.entry(asked).or_default();
            *unknown = (unknown.0 + requests, unknown.1 + responses);
        }
    }

    /// Returns whether the size includes estimates.
    pub fn is_estimate(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Returns the bytes, with estimates for bodies that the log does not contain.
    pub fn bytes(&self, bodies: &BodySizes) -> u64 {
        let estimates = self.unknown.iter().map(|(asked, (requests, responses))| {
            let (request, response) = bodies.estimate(asked);
            requests * (request + REQUEST_MEMBER) + responses * (response + RESPONSE_MEMBER)
        });
        self.bytes + estimates.sum::<u64>()
    }
}

/// The sizes of recorded bodies, by verb and resource.
#[derive(Debug, Clone, Default)]
pub struct BodySizes(HashMap<Vec<u8>, [Average; 2]>);

#[derive(Debug, Clone, Copy, Default)]
struct Average {
    sum: u64,
    count: u64,
}

impl Average {
    fn add(&mut self, other: Average) {
        self.sum += other.sum;
        self.count += other.count;
    }

    fn get(self) -> Option<u64> {
        self.sum.checked_div(self.count)
    }
}

impl BodySizes {
    /// Adds the sizes of recorded bodies.
    pub fn learn(&mut self, sizes: &Sizes, asked: &[u8]) {
        let of = |body| match body {
            Body::Recorded(sum) => Average { sum, count: 1 },
            _ => Average::default(),
        };
        let found = [of(sizes.request), of(sizes.response)];
        if found.iter().any(|average| average.count > 0) {
            let averages = self.0.entry_ref(asked).or_default();
            averages.iter_mut().zip(found).for_each(|(average, found)| average.add(found));
        }
    }

    /// Adds the sizes of another thread.
    pub fn add(&mut self, other: BodySizes) {
        for (asked, found) in other.0 {
            let averages = self.0.entry(asked).or_default();
            averages.iter_mut().zip(found).for_each(|(average, found)| average.add(found));
        }
    }

    fn estimate(&self, asked: &[u8]) -> (u64, u64) {
        let [request, response] = self.0.get(asked).copied().unwrap_or_default();
        let other = if asked.starts_with(b"list ") { LIST_BODY } else { RESPONSE_BODY };
        (request.get().unwrap_or(REQUEST_BODY), response.get().unwrap_or(other))
    }
}
