//! The outcome of the request: the response's code, its Status, and its captured body.

use std::sync::Arc;

use http::HeaderMap;

use super::{AuditContext, redacted_paths};
use crate::audit::head;
use crate::audit::recording;
use crate::audit::view::{EventVariant, ResponseCaptures};
use crate::authorization::Review;
use crate::impersonation;
use crate::policy::Level;
use audit_body::Capture;
use audit_body::MediaType;
use audit_body::ParsedStatus;
use k8s_audit::status::Status;
use kube_authn::User;

impl AuditContext {
    /// Returns captures of the response's body, if it is recorded.
    pub fn capture_response(&self, code: u16, headers: &HeaderMap) -> Option<ResponseCaptures> {
        let compares = self.compares_versions();
        let recorded = (self.level() == Level::RequestResponse || compares)
            && headers.contains_key(http::header::CONTENT_TYPE)
            && recording::records_response(&self.facts.info, code);
        let media_type = MediaType::of(headers);
        if !recorded || media_type == MediaType::Other {
            return None;
        }
        let capture = |view: &EventVariant| {
            let settings = self.recorder.bodies(view);
            let mut plan = recording::plan(headers, media_type, settings.max_response);
            plan.omit_managed_fields = view.omit_managed_fields;
            plan.redact = redacted_paths(&self.recorder, view, &self.facts.info);
            Capture::new(plan, &settings.budget, self.account())
        };
        let is_shown = |view: &EventVariant| {
            view.level == Level::RequestResponse || compares && view.level > Level::None
        };
        Some(ResponseCaptures(self.views.map(|view| is_shown(view).then(|| capture(view)))))
    }

    /// Stores the captured body of the response; `all` of it, or a part.
    pub fn response_captured(&mut self, captures: ResponseCaptures, all: bool) {
        self.response = Some((captures, all));
    }

    pub(super) fn read_response(&mut self, captures: ResponseCaptures, all: bool) {
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

    /// Records that the proxy itself responds with `status`, in the form of kube-apiserver's
    /// events.
    pub fn responded_by_proxy(&mut self, status: Status) {
        let recorded = self.facts.accept.is_some();
        self.refused(ParsedStatus { status, recorded });
    }

    /// Records the Status of a response to HEAD, which has no body. Returns `false` if it is
    /// uncertain which Status that was; then nothing is recorded.
    pub fn responded_to_head(&mut self, code: u16, answer: &HeaderMap, pretty: bool) -> bool {
        let user = self.user.as_deref().map(|user| &**user);
        let other = self.impersonated.as_ref().map(|impersonated| &impersonated.user);
        let status = head::status(code, answer, pretty, &self.facts.info, user, other);
        let known = status.is_some();
        if let Some(status) = status {
            self.responded_by_proxy(status);
        }
        known
    }

    pub(super) fn refused(&mut self, said: ParsedStatus) {
        let status = &said.status;
        let shown = self.views.iter_mut().filter(|view| view.level == Level::RequestResponse);
        for view in shown.filter(|_| said.recorded && !status.status.is_empty()) {
            view.response_object = Some(status.to_json().trim_ascii_end().to_vec());
        }
        self.answered(said.status.code, Some(said));
    }

    /// Records the code of the response and its Status, if it has one.
    pub fn answered(&mut self, code: u16, said: Option<ParsedStatus>) {
        let (status, hidden) = match said {
            Some(ParsedStatus { status, recorded: true }) => (Status { code, ..status }, None),
            Some(ParsedStatus { status, .. }) => (Status::of_code(code), Some(status)),
            None => (Status::of_code(code), None),
        };
        let effective = hidden.as_ref().unwrap_or(&status);
        let refused = |user: &Arc<User>| impersonation::was_refused(effective, user);
        let authorized_upstream = self.impersonated.as_ref().is_some_and(|i| i.authorized_upstream);
        if authorized_upstream && self.user.as_ref().is_some_and(refused) {
            self.impersonated = None;
        }
        (self.status, self.hidden) = (Some(status), hidden);
        self.annotate_authorization();
    }

    /// Adds the annotations of the authorization review when the response is known.
    pub(super) fn annotate_authorization(&mut self) {
        let Some(review) = self.authorization.take() else { return };
        let Some(status) = self.hidden.as_ref().or(self.status.as_ref()) else { return };
        let caller = self.user.as_deref().map(|user| &**user);
        for (key, value) in review.annotations(status, caller) {
            self.annotate(key, &value);
        }
    }

    /// Stores the review of why the API server allowed the request.
    pub fn reviewed(&mut self, review: Box<Review>) {
        self.authorization = Some(review);
    }
}
