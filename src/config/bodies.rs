//! How bodies are recorded: flags, keys of `sinks` entries, and their validation.

use std::sync::Arc;

use audit_body::Redaction;
use clap::Args;
use serde::Deserialize;

use super::parse::default_flags;
use super::setting::{Setting, SettingError, Syntax};
use crate::audit::record::AmbiguousBodies;

const HEADING: &str = "Bodies in the audit log";

/// Flags and keys for the maximum size of bodies.
#[derive(Debug, Clone, Args, Deserialize)]
#[command(next_help_heading = HEADING)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct BodySizeFlags {
    /// Maximum size of a recorded response body; a longer one is truncated, and the event is
    /// annotated
    #[arg(id = "audit-max-body-bytes", long, value_name = "BYTES", default_value_t = 1_572_864)]
    pub max_body_bytes: usize,
    /// Maximum size of a recorded request body
    #[arg(id = "audit-max-request-body-bytes", long, value_name = "BYTES")]
    #[arg(default_value_t = 3_145_728)]
    pub max_request_body_bytes: usize,
}

impl Default for BodySizeFlags {
    fn default() -> BodySizeFlags {
        default_flags()
    }
}

/// Flags for bodies that concern the process, not a single backend.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct BodyFlags {
    /// Memory for all bodies that are being recorded, beyond 64 KiB for each. Users share it
    /// fairly; bodies that exceed a share are truncated
    #[arg(long, value_name = "BYTES", default_value_t = 134_217_728)]
    pub audit_total_body_bytes: usize,
    /// What to do with a request body that decoders read differently (duplicate keys, YAML merge
    /// keys that override, several documents, invalid UTF-8 and similar) [default: reject if the
    /// mode of a sink is blocking-strict, else record]
    #[arg(long, value_name = "ACTION")]
    pub audit_ambiguous_bodies: Option<AmbiguousBodies>,
}

/// Flags and keys for redaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[command(next_help_heading = HEADING)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct RedactionFlags {
    /// Values to redact in addition to those of Secrets and tokens, as GROUP/RESOURCE:PATH,
    /// comma-separated, such as core/configmaps:data.password. none disables redaction, like in
    /// kube-apiserver
    #[arg(id = "audit-redact", long, value_name = "RULES", value_delimiter = ',')]
    pub redact: Vec<String>,
}

/// How bodies are recorded.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    /// `--audit-max-request-body-bytes`
    pub max_request: usize,
    /// `--audit-max-body-bytes`
    pub max_response: usize,
    /// `--audit-redact`; `None` for none at all. The same where the rules are.
    pub redaction: Option<Arc<Redaction>>,
}

impl Bodies {
    /// Validates the settings.
    pub(super) fn new(
        sizes: &BodySizeFlags,
        redaction: &RedactionFlags,
        syntax: Syntax,
    ) -> Result<Bodies, SettingError> {
        Ok(Bodies {
            max_request: sizes.max_request_body_bytes,
            max_response: sizes.max_body_bytes,
            redaction: redaction.validate(syntax)?,
        })
    }
}

impl RedactionFlags {
    fn validate(&self, syntax: Syntax) -> Result<Option<Arc<Redaction>>, SettingError> {
        let setting = Setting::common("redact");
        let error = |message: &str| setting.error(format!("{}: {message}", syntax.name(setting)));
        let rules: Vec<&str> = self.redact.iter().map(String::as_str).collect();
        match rules.as_slice() {
            ["none"] => Ok(None),
            rules if rules.contains(&"none") => {
                Err(error("none cannot be combined with other rules"))
            }
            rules => match Redaction::new(rules.iter().copied()) {
                Ok(redaction) => Ok(Some(Arc::new(redaction))),
                Err(problem) => Err(error(&problem.to_string())),
            },
        }
    }
}
