//! Which bodies are recorded, and how much of them.

use std::sync::Arc;

use super::flags::ServeFlags;
use super::{ConfigError, fail};
use crate::audit::body::Redaction;

/// How bodies are recorded.
#[derive(Debug, Clone)]
pub struct Bodies {
    /// `--audit-max-request-body-bytes`
    pub max_request: usize,
    /// `--audit-max-body-bytes`
    pub max_response: usize,
    /// `--audit-total-body-bytes`
    pub total: usize,
    /// `--audit-redact`; `None` for none at all.
    pub redaction: Option<Arc<Redaction>>,
    /// `--audit-log-truncate-max-event-size`, if truncating is enabled.
    pub max_event: Option<usize>,
}

pub(super) fn bodies(flags: &ServeFlags) -> Result<Bodies, ConfigError> {
    let rules: Vec<&str> = flags.audit_redact.iter().map(String::as_str).collect();
    let redaction = match rules.as_slice() {
        ["none"] => None,
        rules if rules.contains(&"none") => {
            return fail("--audit-redact: none goes with no other rule; leave it or them out");
        }
        rules => {
            let redaction = Redaction::new(rules.iter().copied())
                .map_err(|error| ConfigError(format!("--audit-redact: {error}")))?;
            Some(Arc::new(redaction))
        }
    };
    // As kube-apiserver, these are looked at even where truncating is off.
    let max_event = flags.audit_log_truncate_max_event_size;
    let Some(event_size) = usize::try_from(max_event).ok().filter(|size| *size > 0) else {
        return Err(ConfigError(format!(
            "--audit-log-truncate-max-event-size: invalid audit truncate log max event size \
             {max_event}, must be a positive number"
        )));
    };
    let max_batch = flags.audit_log_truncate_max_batch_size;
    if max_batch < max_event {
        return Err(ConfigError(format!(
            "--audit-log-truncate-max-batch-size: invalid audit truncate log max batch size \
             {max_batch}, must be greater than max event size ({max_event})"
        )));
    }
    Ok(Bodies {
        max_request: flags.audit_max_request_body_bytes,
        max_response: flags.audit_max_body_bytes,
        total: flags.audit_total_body_bytes,
        redaction,
        max_event: flags.audit_log_truncate_enabled.then_some(event_size),
    })
}
