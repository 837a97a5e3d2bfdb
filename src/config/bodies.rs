//! Which bodies are recorded, and how much of them.

use std::sync::Arc;

use super::flags::ServeFlags;
use super::{ConfigError, fail};
use audit_body::Redaction;

/// How bodies are recorded.
#[derive(Debug, Clone)]
pub struct Bodies {
    /// `--audit-max-request-body-bytes`
    pub max_request: usize,
    /// `--audit-max-body-bytes`
    pub max_response: usize,
    /// `--audit-redact`; `None` for none at all. The same where the rules are.
    pub redaction: Option<Arc<Redaction>>,
}

pub(super) fn bodies(flags: &ServeFlags) -> Result<Bodies, ConfigError> {
    let rules: Vec<&str> = flags.audit_redact.iter().map(String::as_str).collect();
    let redaction = match rules.as_slice() {
        ["none"] => None,
        rules if rules.contains(&"none") => {
            return fail("--audit-redact: none cannot be combined with other rules");
        }
        rules => {
            let redaction = Redaction::new(rules.iter().copied())
                .map_err(|error| ConfigError(format!("--audit-redact: {error}")))?;
            Some(Arc::new(redaction))
        }
    };
    Ok(Bodies {
        max_request: flags.audit_max_request_body_bytes,
        max_response: flags.audit_max_body_bytes,
        redaction,
    })
}

/// The longest event of a log, if truncating is enabled.
pub(super) fn log_max_event(flags: &ServeFlags) -> Result<Option<usize>, ConfigError> {
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
    Ok(flags.audit_log_truncate_enabled.then_some(event_size))
}
