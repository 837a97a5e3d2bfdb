//! The name of a created object, checked against the response.

use http::HeaderMap;

use super::AuditContext;
use crate::policy::Level;
use audit_body::{CreatedResponse, CreatedTap};

/// Annotation about `objectRef.name`, if it is not taken from the request.
const OBJECT_NAME: &str = "kube-audit-proxy/object-name";
/// Annotation about other missing parts of `objectRef`.
const OBJECT_REF: &str = "kube-audit-proxy/object-ref";

impl AuditContext {
    /// Returns a tap that looks for the name of a created object in the response; `None` if the URL
    /// has the name, or there is none.
    pub fn created_tap(&self, code: u16, headers: &HeaderMap) -> Option<CreatedTap> {
        if self.creates(code) { CreatedTap::new(headers) } else { None }
    }

    /// Returns whether a response with this code means that an object was created whose name is not
    /// in the URL.
    fn creates(&self, code: u16) -> bool {
        let info = &self.facts.info;
        (200..300).contains(&code)
            && info.verb() == "create"
            && info.name().is_empty()
            && info.subresource().is_empty()
            && self.level() > Level::None
    }

    /// Records the created object that was found in the response.
    pub fn created(&mut self, answered: Option<CreatedResponse>) {
        self.created = answered;
    }

    /// Compares the name in the request's body with that of the object that the API server created.
    /// The latter is recorded.
    pub(super) fn check_name(&mut self) {
        if !self.creates(self.code()) {
            let info = &self.facts.info;
            let is_unnamed = info.verb() == "create" && info.name().is_empty();
            if self.in_part && self.has_object && self.metadata.is_none() {
                let unknown = "unknown: the request body is longer than what is kept of it";
                match is_unnamed {
                    true => self.annotate(OBJECT_NAME, unknown),
                    false => {
                        self.annotate(OBJECT_REF, &format!("uid and resourceVersion {unknown}"))
                    }
                }
            }
            return;
        }
        let created = match self.created.take() {
            Some(CreatedResponse::TooLong) if self.metadata.is_some() => {
                let unchecked = "not checked: the response is longer than what is kept of it";
                return self.annotate(OBJECT_NAME, unchecked);
            }
            Some(CreatedResponse::Object(created)) => Some(created),
            Some(CreatedResponse::TooLong) | None => None,
        };
        let (read, created) = match (&self.metadata, created) {
            (None, None) if self.has_object => {
                let unknown =
                    "unknown: it could be read neither from the request nor from the response";
                return self.annotate(OBJECT_NAME, unknown);
            }
            (_, None) => return,
            (read, Some(created)) => (read.as_ref(), created),
        };
        let generated = created.is_generated();
        match read {
            _ if created.name.is_empty() => return,
            Some(read) if read.name == created.name => return,
            Some(read) if read.name.is_empty() && generated => return,
            None if generated => return,
            None => {
                let why = "taken from the response: it could not be read from the request";
                self.annotate(OBJECT_NAME, why);
            }
            Some(read) => {
                let (read, name) = (read.name.clone(), created.name.clone());
                let why = match read.is_empty() {
                    true => {
                        format!("the proxy read no name from the request, but {name} was created")
                    }
                    false => {
                        format!("the proxy read {read} from the request, but {name} was created")
                    }
                };
                self.annotate(OBJECT_NAME, &why);
                self.recorder.metrics.bodies.name_mismatches.inc();
                tracing::warn!(
                    audit_id = ?self.facts.audit_id.as_bytes().escape_ascii().to_string(),
                    user = self.user.as_ref().map_or("", |user| &user.username),
                    read,
                    created = name,
                    "the API server created an object with another name than the proxy read from the request"
                );
            }
        }
        self.metadata.get_or_insert_default().name = created.name;
    }
}
