//! The audit policy and the annotations of events: flags, keys of `sinks` entries, and their
//! validation.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::boolean_flag::BooleanFlag;
use super::parse::parse_duration;
use super::setting::{Setting, SettingError, Syntax};
use super::{ConfigError, fail};
use crate::authorization::AuthorizationSettings;
use crate::upstream::identity::Identity;

const HEADING: &str = "Audit policy";

/// Flags and keys for the audit policy.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[command(next_help_heading = HEADING)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct PolicyFlags {
    /// Audit policy (audit.k8s.io/v1 Policy); reloaded when it changes
    #[arg(id = "audit-policy-file", long, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
}

impl PolicyFlags {
    /// Returns the policy file. kube-apiserver starts without one and records nothing; a proxy that
    /// is there to record must not.
    pub(super) fn validate(&self, syntax: Syntax) -> Result<PathBuf, SettingError> {
        let setting = Setting::common("policy-file");
        let problem = match &self.policy_file {
            Some(file) if file.as_os_str().is_empty() => "is empty: it selects what is recorded",
            Some(file) => return Ok(file.clone()),
            None => "is missing: it selects what is recorded",
        };
        let name = syntax.name(setting);
        Err(setting.error(format!("{name} {problem}; start with config/policy-recommended.yaml")))
    }
}

/// Flags for annotations of events.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct AnnotationFlags {
    /// Name of this proxy or its node, added to each event as the annotation kube-audit-proxy/node
    #[arg(long, value_name = "NAME")]
    pub audit_node_name: Option<String>,
    /// Add the index and position of the policy rule that matched to each event, as the annotation
    /// kube-audit-proxy/policy-rule
    #[arg(long, default_value = "false", boolean())]
    pub audit_annotate_rule: bool,
    /// Add the annotations authorization.k8s.io/decision and authorization.k8s.io/reason to events,
    /// like kube-apiserver does. A SubjectAccessReview runs beside each request, so the proxy's
    /// user needs the verb create on subjectaccessreviews.authorization.k8s.io
    #[arg(long, default_value = "false", boolean())]
    pub audit_authorization_annotations: bool,
    /// How long the SubjectAccessReview may delay a request and its event; after that, the event
    /// has no authorization annotations
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_authorization_timeout: Duration,
    /// How long the reason of an allowed request is reused for the same user and attributes; 0s
    /// disables the cache
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_authorization_cache_ttl: Duration,
}

impl AnnotationFlags {
    /// Returns the name of the proxy or its node.
    pub(super) fn node_name(&self) -> Result<Option<String>, ConfigError> {
        let is_valid = |name: &String| {
            let printable = |c: char| c.is_ascii_graphic();
            !name.is_empty() && name.len() <= 253 && name.chars().all(printable)
        };
        if self.audit_node_name.as_ref().is_some_and(|name| !is_valid(name)) {
            return fail(
                "--audit-node-name is invalid: use 1 to 253 characters without blanks, such as the \
                 node's; is $(NODE_NAME) set?",
            );
        }
        Ok(self.audit_node_name.clone())
    }

    /// Validates the settings of authorization annotations; `None` without them.
    pub(super) fn authorization(
        &self,
        identity: Identity,
    ) -> Result<Option<AuthorizationSettings>, ConfigError> {
        if !self.audit_authorization_annotations {
            return Ok(None);
        }
        if identity == Identity::PassThrough {
            return fail(
                "--audit-authorization-annotations needs credentials of the proxy's own, which \
                 --upstream-identity=pass-through does not use; choose another --upstream-identity",
            );
        }
        if self.audit_authorization_timeout.is_zero() {
            return fail("--audit-authorization-timeout must be longer than 0s, for example 500ms");
        }
        Ok(Some(AuthorizationSettings {
            timeout: self.audit_authorization_timeout,
            cache_ttl: self.audit_authorization_cache_ttl,
            as_front_proxy: identity == Identity::RequestHeader,
        }))
    }
}
