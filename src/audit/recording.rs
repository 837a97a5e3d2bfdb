//! Decides which bodies are recorded: exactly those that kube-apiserver records in `requestObject`
//! and `responseObject`.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use crate::body::{Deadline, Tap};
use audit_body::{Account, Budget, Capture, Encoding, MediaType, Plan, Redaction};
use k8s_audit::request::RequestInfo;

/// How bodies are recorded, for all requests.
#[derive(Debug, Clone)]
pub struct BodySettings {
    /// Maximum number of recorded bytes of a request's body.
    pub max_request: usize,
    /// Maximum number of recorded bytes of a response's body.
    pub max_response: usize,
    /// The memory for all bodies that are being captured.
    pub budget: Arc<Budget>,
    /// What is redacted; `None` for nothing, like in kube-apiserver.
    pub redaction: Option<Arc<Redaction>>,
}

impl BodySettings {
    /// Returns whether `other` records the same of every body.
    pub fn records_as(&self, other: &BodySettings) -> bool {
        let redaction = |settings: &BodySettings| settings.redaction.as_ref().map(Arc::as_ptr);
        self.max_request == other.max_request
            && self.max_response == other.max_response
            && redaction(self) == redaction(other)
    }
}

/// Returns whether a response's body is recorded; with a code of 400 or more only if it is a
/// Status.
pub fn records_response(info: &RequestInfo, code: u16) -> bool {
    if code >= 400 {
        return true;
    }
    if code == 101 || code == 304 || info.is_long_running() {
        return false;
    }
    info.is_resource() || is_discovery(info.path())
}

/// `/api`, `/api/v1`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`
fn is_discovery(path: &[u8]) -> bool {
    let mut segments = path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
    let most = match segments.next() {
        Some(b"api") => 1,
        Some(b"apis") => 2,
        _ => return false,
    };
    segments.count() <= most
}

/// Captures a request's body while it is forwarded.
pub struct RequestTap {
    capture: Option<Capture>,
    deadline: Deadline,
    captured: CapturedRequest,
}

/// The result of a [`RequestTap`] after the end of the body.
#[derive(Clone, Default)]
pub struct CapturedRequest(Arc<Mutex<Option<Capture>>>);

impl RequestTap {
    /// Creates a tap that captures by `plan`, and the place of its result.
    pub fn new(
        plan: Plan,
        budget: &Arc<Budget>,
        account: Account,
    ) -> (RequestTap, CapturedRequest) {
        let captured = CapturedRequest::default();
        let capture = Some(Capture::new(plan, budget, account));
        let deadline = Deadline::default();
        (RequestTap { capture, deadline, captured: captured.clone() }, captured)
    }
}

impl CapturedRequest {
    /// Takes the body, if it has ended and was not taken before.
    pub fn take(&self) -> Option<Capture> {
        self.0.lock().ok()?.take()
    }

    /// Returns whether the body has ended and is slow to convert.
    pub(super) fn is_heavy(&self) -> bool {
        self.0.lock().is_ok_and(|mut capture| capture.as_mut().is_some_and(Capture::is_heavy))
    }
}

impl Tap for RequestTap {
    fn data(&mut self, data: &Bytes) {
        if let Some(capture) = &mut self.capture {
            capture.push(data);
        }
    }

    fn end(&mut self) {
        if let Ok(mut captured) = self.captured.0.lock() {
            *captured = self.capture.take();
        }
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll(context)
    }
}

/// For views that record the body differently.
impl Tap for Vec<RequestTap> {
    fn data(&mut self, data: &Bytes) {
        self.iter_mut().for_each(|tap| tap.data(data));
    }

    fn end(&mut self) {
        self.iter_mut().for_each(Tap::end);
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.first_mut().map_or(Poll::Pending, |first| first.poll_deadline(context))
    }
}

/// Returns the plan for a request's body, which is decoded when it is complete. kube-apiserver
/// ignores the `Content-Encoding` of requests.
pub fn request_plan(headers: &HeaderMap, limit: usize) -> Plan {
    let encoding = Encoding::Identity;
    Plan { encoding, keep_whole: true, ..plan(headers, MediaType::of(headers), limit) }
}

/// Returns the plan for a body with these headers.
pub fn plan(headers: &HeaderMap, media_type: MediaType, limit: usize) -> Plan {
    let length = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Plan {
        media_type,
        encoding: Encoding::of(headers),
        limit,
        length,
        omit_managed_fields: false,
        redact: None,
        keep_whole: false,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn info(method: Method, path: &'static str) -> RequestInfo {
        RequestInfo::new(&method, &PathAndQuery::from_static(path)).unwrap()
    }

    #[test]
    fn recorded_responses() {
        let recorded = |path, code| records_response(&info(Method::GET, path), code);
        for path in ["/api", "/api/", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1", "//api"] {
            assert!(recorded(path, 200), "{path}");
        }
        for path in ["/version", "/healthz", "/openapi/v3", "/.well-known/openid-configuration"] {
            assert!(!recorded(path, 200), "{path}");
            assert!(recorded(path, 403), "{path}");
        }
        assert!(recorded("/api/v1/pods", 200));
        assert!(!recorded("/api/v1/pods?watch=1", 200) && recorded("/api/v1/pods?watch=1", 403));
        assert!(!recorded("/api/v1/namespaces/a/pods/x/log", 200));
        assert!(!recorded("/api/v1/namespaces/a/pods/x/proxy", 200));
        assert!(!recorded("/api", 304));
    }
}
