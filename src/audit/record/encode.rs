//! Encodes the event of a stage and submits it to the backends.

use std::borrow::Cow;

use super::{AuditContext, Encoding, Format};
use crate::audit::legacy;
use crate::audit::view::{EventBodies, EventVariant};
use crate::policy::Stage;
use audit_log::Commit;
use k8s_audit::event::{Event, ObjectRef};
use k8s_audit::request::uri::request_uri;
use k8s_audit::timestamp::Timestamp;

impl AuditContext {
    pub(super) fn emit(&self, stage: Stage, at: Timestamp) -> Commit {
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

    /// Encodes the event in at most `max_event` bytes, by leaving out its bodies if necessary, the
    /// larger one first.
    pub(super) fn encode_within(
        &self,
        view: &EventVariant,
        stage: Stage,
        at: Timestamp,
        Encoding { format, max_event }: Encoding,
    ) -> Vec<u8> {
        let mut bodies = view.bodies();
        let mut line = Vec::with_capacity(1536 + bodies.len());
        self.encode(view, &bodies, (stage, at), format, &mut line);
        let Some(most) = max_event else { return line };
        while line.len() > most && bodies.leave_out_larger() {
            self.recorder.metrics.bodies.truncated.inc();
            line.clear();
            self.encode(view, &bodies, (stage, at), format, &mut line);
        }
        line
    }

    fn encode(
        &self,
        view: &EventVariant,
        bodies: &EventBodies<'_>,
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
            request_object: bodies.request,
            response_object: bodies.response,
            request_received: self.facts.received,
            stage_timestamp: at,
            annotations: &bodies.annotations,
        };
        match format {
            Format::Json => event.push_json(line),
            Format::Legacy => {
                event.push_legacy(&legacy::local_time(event.request_received), line);
            }
        }
    }
}
