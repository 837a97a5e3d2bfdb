//! The annotations with the prefix `kube-audit-proxy/`.

use session_recording::Outcome;

use super::AuditContext;
use crate::audit::view::annotate;

/// Annotation of a response that the API server did not complete.
pub(super) const INCOMPLETE: &str = "kube-audit-proxy/response-incomplete";
/// Annotation of a request whose body has different meanings for different decoders: the reason.
pub(super) const AMBIGUOUS: &str = "kube-audit-proxy/request-ambiguous";
/// Annotation of a request that may have been processed, although the code in the event is the
/// proxy's own.
pub(super) const OUTCOME_UNKNOWN: &str = "kube-audit-proxy/outcome-unknown";
/// Annotation of a request that failed because the API server denied the proxy's own access.
pub(super) const ACCESS_DENIED: &str = "kube-audit-proxy/upstream-access-denied";
/// Annotation of a session: the file of its recording.
pub(super) const SESSION_RECORDING: &str = "kube-audit-proxy/session-recording";
/// Annotation of a session: SHA-256 of the recording.
pub(super) const SESSION_SHA256: &str = "kube-audit-proxy/session-sha256";
/// Annotation of a session: bytes from the client.
pub(super) const SESSION_BYTES_IN: &str = "kube-audit-proxy/session-bytes-in";
/// Annotation of a session: bytes to the client.
pub(super) const SESSION_BYTES_OUT: &str = "kube-audit-proxy/session-bytes-out";
/// Annotation of a session: the exit code of the command.
pub(super) const SESSION_EXIT_CODE: &str = "kube-audit-proxy/session-exit-code";
/// Annotation of a session: streams whose content is not in the recording, or only in part.
pub(super) const SESSION_OMITTED: &str = "kube-audit-proxy/session-omitted-streams";
/// Annotation of a session that is not recorded, or only in part: the reason.
pub(super) const SESSION_ERROR: &str = "kube-audit-proxy/session-recording-error";
/// Annotation of all events with `--audit-node-name`.
pub(super) const NODE: &str = "kube-audit-proxy/node";

impl AuditContext {
    /// Adds the annotations of the authenticator to all events; must be called before the first.
    pub fn annotate_all(&mut self, annotations: &[(&'static str, String)]) {
        for (key, value) in annotations {
            self.annotate(key, value);
        }
    }

    /// Records why the response is incomplete.
    pub fn response_incomplete(&mut self, why: &str) {
        self.annotate(INCOMPLETE, why);
    }

    /// Records that the API server may have processed the request, although the proxy itself
    /// responds with an error.
    pub fn outcome_unknown(&mut self, why: &str) {
        self.annotate(OUTCOME_UNKNOWN, why);
    }

    /// Records that the proxy responds with an error because the API server denied its own access.
    pub fn access_denied(&mut self, why: &str) {
        self.annotate(ACCESS_DENIED, why);
    }

    /// Records that the session is recorded in `file`.
    pub fn session_begun(&mut self, file: &str) {
        self.annotate(SESSION_RECORDING, file);
    }

    /// Records why the session cannot be recorded.
    pub fn session_unrecorded(&mut self, why: &str) {
        self.annotate(SESSION_ERROR, why);
    }

    /// Records the outcome of the session.
    pub fn session_ended(&mut self, outcome: &Outcome) {
        if let Some(sha256) = &outcome.sha256 {
            self.annotate(SESSION_SHA256, sha256);
        }
        self.annotate(SESSION_BYTES_IN, &outcome.bytes_in.to_string());
        self.annotate(SESSION_BYTES_OUT, &outcome.bytes_out.to_string());
        if let Some(code) = outcome.exit_code {
            self.annotate(SESSION_EXIT_CODE, &code.to_string());
        }
        if !outcome.omitted.is_empty() {
            self.annotate(SESSION_OMITTED, &outcome.omitted.join(","));
        }
        if let Some(error) = &outcome.error {
            self.annotate(SESSION_ERROR, error);
        }
    }

    pub(super) fn annotate(&mut self, key: &'static str, value: &str) {
        for view in self.views.iter_mut() {
            annotate(&mut view.annotations, key, value.to_owned());
        }
    }
}
