//! Summary events with the number of events that a rate limit has suppressed.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::id::audit_id;
use super::record::{AuditPipeline, Encoding, Format};
use crate::policy::extension::{Extension, Suppressed};
use crate::policy::{Level, Stage};
use k8s_audit::event::{Event, UserAgent};
use k8s_audit::timestamp::Timestamp;
use kube_authn::{User, UserInfo};

/// Annotation of a summary: the number of events.
const SUPPRESSED: &str = "kube-audit-proxy/suppressed-events";
/// Annotation of a summary: the rule of the extension, and its position.
const SUPPRESSED_BY: &str = "kube-audit-proxy/suppressed-by";

/// Writes summaries of the suppressed events of time windows.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    /// For each policy, the extension that was active at the last call.
    known: Vec<Option<Arc<Extension>>>,
}

impl Summaries {
    /// Writes an event for each user, verb and rate limit whose window has ended; with `all`, also
    /// for windows that have not. Nothing waits for these events; a backend counts those that it
    /// loses.
    pub(crate) fn write(&mut self, recorder: &AuditPipeline, all: bool) {
        let policies: Vec<_> = recorder.policies().cloned().collect();
        self.known.resize(policies.len(), None);
        for (number, handle) in policies.iter().enumerate() {
            let extension = handle.current().extension.clone();
            let before = std::mem::replace(&mut self.known[number], extension.clone());
            let is_same =
                |old: &Arc<_>| extension.as_ref().is_some_and(|new| Arc::ptr_eq(old, new));
            // An extension that was replaced suppresses no more events.
            let replaced = before.filter(|old| !is_same(old)).map(|old| (old, true));
            for (extension, all) in replaced.into_iter().chain(extension.clone().map(|e| (e, all)))
            {
                for (rule, suppressed) in extension.take_suppressed(all) {
                    let name = extension.rules().nth(rule).map_or("", |(name, _)| name).to_owned();
                    let file = handle.path().file_name().unwrap_or_default().to_string_lossy();
                    let rule = format!("{name} {file}:{}", extension.position(rule));
                    let encode = |encoding: Encoding| encode(&suppressed, &rule, encoding.format);
                    recorder.write_summary(number, encode);
                }
            }
        }
    }
}

fn encode(suppressed: &Suppressed, rule: &str, format: Format) -> Vec<u8> {
    let username = String::from_utf8_lossy(&suppressed.user).into_owned();
    let user = User::from(UserInfo { username, ..UserInfo::default() });
    let verb = String::from_utf8_lossy(&suppressed.verb);
    let id = audit_id(None);
    let annotations =
        [(SUPPRESSED_BY, rule.to_owned()), (SUPPRESSED, suppressed.events.to_string())];
    let event = Event {
        level: Level::Metadata,
        audit_id: id.as_bytes(),
        stage: Stage::ResponseComplete,
        request_uri: "/",
        verb: &verb,
        user: Some(&user).filter(|user| !user.username.is_empty()),
        impersonated_user: None,
        impersonation_constraint: None,
        source_ips: &[],
        user_agent: &UserAgent::default(),
        object_ref: None,
        response_status: None,
        request_object: None,
        response_object: None,
        request_received: timestamp(suppressed.since),
        stage_timestamp: Timestamp::now(),
        annotations: &annotations,
    };
    let mut line = Vec::new();
    match format {
        Format::Json => event.push_json(&mut line),
        Format::Legacy => {
            event.push_legacy(&super::legacy::local_time(event.request_received), &mut line);
        }
    }
    line
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or_default())
}
