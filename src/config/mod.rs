//! The validated configuration of `serve`.
//!
//! [`flags`] are the flags; [`file`] adds the file of `--config`; [`Config`] is the result of their
//! validation. No other file is opened, so everything in it can be tested as a table.

mod authentication;
mod batch;
mod bodies;
mod boolean_flag;
pub(crate) mod file;
mod filters;
pub(crate) mod flags;
mod kafka;
mod log;
mod operation;
mod otlp;
mod parse;
mod policy;
#[cfg(test)]
mod reference;
mod s3;
mod same_file;
mod serving;
mod session_flags;
mod setting;
mod sinks;
mod stream;
mod tree;
mod upstream;
mod webhook;

pub(crate) use self::authentication::{Authentication, Issuers};
pub(crate) use self::bodies::Bodies;
pub(crate) use self::flags::ServeFlags;
pub(crate) use self::operation::{LogFormat, Operation};
pub(crate) use self::serving::{CertificateSource, Serving};
pub(crate) use self::session_flags::SessionRecording;
pub(crate) use self::setting::Setting;
use self::setting::SettingError;
pub(crate) use self::sinks::{BackendSettings, SinkSettings};
pub(crate) use self::upstream::Upstream;
use crate::audit::record::AmbiguousBodies;
use crate::authorization::AuthorizationSettings;
use crate::filters::FilterSettings;

/// Everything that `serve` needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where and how clients are listened to.
    pub serving: Serving,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// The API server.
    pub upstream: Upstream,
    /// The request filters.
    pub filters: FilterSettings,
    /// What is recorded, and where.
    pub audit: Audit,
    /// Recordings of sessions.
    pub sessions: Option<SessionRecording>,
    /// The running of the process.
    pub operation: Operation,
}

/// What is recorded, and where.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    /// Where; one or more, each with a policy.
    pub sinks: Vec<SinkSettings>,
    /// `--audit-total-body-bytes`
    pub total_body_bytes: usize,
    /// `--audit-ambiguous-bodies`
    pub ambiguous_bodies: Option<AmbiguousBodies>,
    /// `--audit-node-name`
    pub node_name: Option<String>,
    /// Whether events say which rule of the policy matched.
    pub annotates_rule: bool,
    /// `--audit-authorization-*`; `None` without authorization annotations.
    pub authorization: Option<AuthorizationSettings>,
}

/// Invalid flags or keys. Begins with the flag, or the file and location of the key, and ends with
/// a remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct ConfigError(String);

impl Config {
    /// Validates `flags`.
    ///
    /// # Errors
    /// The first flag or key that is invalid.
    pub(crate) fn new(flags: ServeFlags) -> Result<Config, ConfigError> {
        let identity = flags.upstream.upstream_identity;
        let http2_max_streams = flags.serving.http2_max_streams_per_connection;
        Ok(Config {
            audit: audit(&flags)?,
            serving: flags.serving.validate(flags.authentication.uses_certificates())?,
            authentication: flags.authentication.validate(identity)?,
            upstream: flags.upstream.validate()?,
            sessions: SessionRecording::new(&flags.sessions)?,
            filters: filters::filters(&flags.filters, http2_max_streams)?,
            operation: flags.operation.validate(),
        })
    }
}

fn audit(flags: &ServeFlags) -> Result<Audit, ConfigError> {
    Ok(Audit {
        sinks: sinks::sinks(flags)?,
        total_body_bytes: flags.bodies.audit_total_body_bytes,
        ambiguous_bodies: flags.bodies.audit_ambiguous_bodies,
        node_name: flags.annotations.node_name()?,
        annotates_rule: flags.annotations.audit_annotate_rule,
        authorization: flags.annotations.authorization(flags.upstream.upstream_identity)?,
    })
}

impl From<SettingError> for ConfigError {
    fn from(error: SettingError) -> ConfigError {
        ConfigError(error.message)
    }
}

fn fail<T>(message: &str) -> Result<T, ConfigError> {
    Err(ConfigError(message.to_owned()))
}

#[cfg(test)]
mod tests;
