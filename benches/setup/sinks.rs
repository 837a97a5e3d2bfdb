//! Sinks that discard all events.

use std::sync::Arc;

use audit_body::{Budget, Redaction};
use audit_log::LogBackend;
use kube_audit_proxy::audit::record::{AuditSink, Backend, Encoding, Format};
use kube_audit_proxy::audit::recording::BodySettings;
use kube_audit_proxy::policy::{self, PolicyHandle};

/// A policy with `rules`, which may begin with `omitStages`.
pub fn policy(rules: &str) -> PolicyHandle {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
    PolicyHandle::new(policy::parse(text.as_bytes(), "bench").expect("a policy").policy)
}

/// A sink with this policy.
pub fn sink(policy: &PolicyHandle, format: Format) -> AuditSink {
    let bodies = BodySettings {
        max_request: 3 << 20,
        max_response: 3 << 19,
        budget: Budget::new(1 << 27),
        redaction: Some(Arc::new(Redaction::default())),
    };
    AuditSink {
        name: String::new(),
        backend: Backend::Log(LogBackend::discard()),
        policy: policy.clone(),
        bodies,
        encoding: Encoding { format, max_event: None },
    }
}
