//! What `serve` is told, checked and in the form in which it is used.
//!
//! [`flags`] are the texts; [`file`] brings in the file of `--config`; [`Config`] is the result.
//! Making one opens no file but that, so everything in it can be tested as a table.

mod authentication;
pub mod file;
pub mod flags;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::SupportedCipherSuite;

use self::flags::{AuditLogFormat, AuditLogMode, AuditLogSync, TlsMinVersion, UpstreamIdentity};
pub use self::flags::{LogFormat, ServeFlags};
use crate::audit::body::Redaction;
use crate::audit::record::Format;
use crate::authn::{OidcSettings, RequestHeaderNames, TokenReviewSettings};
use crate::request::source::TrustedProxies;
use crate::server::tls::{self, MinVersion, TlsOptions};
use crate::sink::{LogPath, Mode, Rotation, SinkConfig, SyncMode, Throttle};
use crate::upstream::UpstreamFlags;
use crate::upstream::identity::Identity;

/// Everything that `serve` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where and how clients are listened to.
    pub serving: Serving,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// The API server.
    pub upstream: Upstream,
    /// What is recorded, and where.
    pub audit: Audit,
    /// The running of the process.
    pub operation: Operation,
}

/// Where and how clients are listened to.
#[derive(Debug, Clone)]
pub struct Serving {
    /// `--bind-address` and `--secure-port`
    pub addr: SocketAddr,
    /// The certificate shown to clients.
    pub certificate: CertificateSource,
    /// Versions, cipher suites, client certificates.
    pub tls: TlsOptions,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// `--tls-cert-file` and `--tls-private-key-file`
    Files {
        /// The chain.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made in `--cert-dir`.
    SelfSigned(PathBuf),
}

/// How clients prove who they are.
#[derive(Debug, Clone)]
pub struct Authentication {
    /// `--client-ca-file`
    pub client_ca_file: Option<PathBuf>,
    /// `--client-crl-file`
    pub client_crl_file: Option<PathBuf>,
    /// `--requestheader-*`
    pub request_header: Option<RequestHeaderAuthentication>,
    /// `--token-auth-file`
    pub token_auth_file: Option<PathBuf>,
    /// `--service-account-*`
    pub service_accounts: Option<ServiceAccountAuthentication>,
    /// `--oidc-*`
    pub oidc: Option<OidcSettings>,
    /// `--authentication-token-review`
    pub token_review: Option<TokenReviewSettings>,
    /// `--api-audiences`, or the ServiceAccount issuers
    pub audiences: Vec<String>,
    /// `--anonymous-auth`
    pub anonymous: bool,
    /// `--trusted-proxies`
    pub trusted_proxies: TrustedProxies,
}

/// Whom front proxies may speak for, and how.
#[derive(Debug, Clone)]
pub struct RequestHeaderAuthentication {
    /// `--requestheader-client-ca-file`
    pub client_ca_file: PathBuf,
    /// `--requestheader-allowed-names`; empty for any
    pub allowed_names: Vec<String>,
    /// The other `--requestheader-*` flags.
    pub names: RequestHeaderNames,
}

/// How ServiceAccount tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountAuthentication {
    /// `--service-account-key-file`
    pub key_files: Vec<PathBuf>,
    /// `--service-account-issuer`
    pub issuers: Vec<String>,
}

/// The API server.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--upstream-*`
    pub flags: UpstreamFlags,
    /// `--upstream-identity`
    pub identity: Identity,
}

/// What is recorded, and where.
#[derive(Debug, Clone)]
pub struct Audit {
    /// `--audit-policy-file`
    pub policy_file: PathBuf,
    /// `--audit-log-path` and what belongs to it.
    pub log: SinkConfig,
    /// `--audit-log-format`
    pub format: Format,
    /// Which bodies are recorded, and how much of them.
    pub bodies: Bodies,
}

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

/// The running of the process.
#[derive(Debug, Clone)]
pub struct Operation {
    /// `--admin-bind-address`
    pub admin_addr: SocketAddr,
    /// `--shutdown-timeout`
    pub shutdown_timeout: Duration,
    /// `--log-level`
    pub log_level: tracing::Level,
    /// `--log-format`
    pub log_format: LogFormat,
}

/// Flags that do not make sense, each alone or together. Begins with the flag, ends with a remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Checks `flags`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(flags: ServeFlags) -> Result<Config, ConfigError> {
        Ok(Config {
            audit: audit(&flags)?,
            serving: serving(&flags)?,
            authentication: authentication::authentication(&flags)?,
            upstream: upstream(&flags)?,
            operation: Operation {
                admin_addr: flags.admin_bind_address,
                shutdown_timeout: flags.shutdown_timeout,
                log_level: flags.log_level,
                log_format: flags.log_format,
            },
        })
    }
}

fn serving(flags: &ServeFlags) -> Result<Serving, ConfigError> {
    let certificate = match (&flags.tls_cert_file, &flags.tls_private_key_file) {
        (Some(certificate), Some(key)) => {
            CertificateSource::Files { certificate: certificate.clone(), key: key.clone() }
        }
        (None, None) => CertificateSource::SelfSigned(flags.cert_dir.clone()),
        (Some(_), None) => {
            return fail("--tls-cert-file needs --tls-private-key-file, the file with its key");
        }
        (None, Some(_)) => {
            return fail(
                "--tls-private-key-file needs --tls-cert-file, the file with its certificate",
            );
        }
    };
    let cipher_suites = match flags.tls_cipher_suites.as_slice() {
        [] => None,
        names => Some(names.iter().map(|name| cipher_suite(name)).collect::<Result<_, _>>()?),
    };
    Ok(Serving {
        addr: SocketAddr::new(flags.bind_address, flags.secure_port),
        certificate,
        tls: TlsOptions {
            min_version: match flags.tls_min_version {
                TlsMinVersion::Tls12 => MinVersion::Tls12,
                TlsMinVersion::Tls13 => MinVersion::Tls13,
            },
            cipher_suites,
            request_client_certificates: flags.client_ca_file.is_some()
                || flags.requestheader_client_ca_file.is_some(),
        },
    })
}

fn cipher_suite(name: &str) -> Result<SupportedCipherSuite, ConfigError> {
    // Go has two suites under a second, older name too.
    let full = if name.ends_with("_CHACHA20_POLY1305") { "_SHA256" } else { "" };
    let full = format!("{name}{full}");
    tls::cipher_suites().find(|(known, _)| *known == full).map(|(_, suite)| suite).ok_or_else(
        || {
            let known: Vec<String> = tls::cipher_suites().map(|(name, _)| name).collect();
            ConfigError(format!(
                "--tls-cipher-suites: {name:?} is not offered; those that are: {}",
                known.join(", ")
            ))
        },
    )
}

fn upstream(flags: &ServeFlags) -> Result<Upstream, ConfigError> {
    if flags.context.is_some() && flags.kubeconfig.is_none() {
        return fail("--context needs --kubeconfig, the file that the context is in");
    }
    Ok(Upstream {
        kubeconfig: flags.kubeconfig.clone(),
        context: flags.context.clone(),
        flags: UpstreamFlags {
            server: flags.upstream_server.clone(),
            ca_file: flags.upstream_ca_file.clone(),
            client_cert_file: flags.upstream_client_cert_file.clone(),
            client_key_file: flags.upstream_client_key_file.clone(),
            token_file: flags.upstream_token_file.clone(),
            tls_server_name: flags.upstream_tls_server_name.clone(),
        },
        identity: match flags.upstream_identity {
            UpstreamIdentity::RequestHeader => Identity::RequestHeader,
            UpstreamIdentity::Impersonate => Identity::Impersonate,
            UpstreamIdentity::PassThrough => Identity::PassThrough,
        },
    })
}

// kube-apiserver runs without a policy or without a log, and records nothing then. A proxy that
// is there to record must not.
fn audit(flags: &ServeFlags) -> Result<Audit, ConfigError> {
    let Some(policy_file) = flags.audit_policy_file.clone() else {
        return fail(
            "--audit-policy-file is missing: it says what is recorded; \
             config/policy-recommended.yaml is a good one to begin with",
        );
    };
    let path = match &flags.audit_log_path {
        None => {
            return fail(
                "--audit-log-path is missing: it says where events are written; give a file, or \
                 - for standard output",
            );
        }
        Some(path) if path.as_os_str().is_empty() => {
            return fail("--audit-log-path is empty; give a file, or - for standard output");
        }
        Some(path) if path.as_os_str() == "-" => LogPath::Stdout,
        Some(path) => LogPath::File(path.clone()),
    };
    let rotation = Rotation {
        max_size_mib: not_negative(
            "--audit-log-maxsize",
            flags.audit_log_maxsize,
            "to never rotate",
        )?,
        max_age_days: not_negative("--audit-log-maxage", flags.audit_log_maxage, "for no limit")?,
        max_backups: not_negative(
            "--audit-log-maxbackup",
            flags.audit_log_maxbackup,
            "for no limit",
        )?,
        compress: flags.audit_log_compress,
    };
    let format = match flags.audit_log_format {
        AuditLogFormat::Json => Format::Json,
        AuditLogFormat::Legacy => Format::Legacy,
    };
    let sync = match flags.audit_log_sync {
        AuditLogSync::Off => SyncMode::Off,
        AuditLogSync::Always => SyncMode::Always,
        AuditLogSync::Interval if flags.audit_log_sync_interval.is_zero() => {
            return fail(
                "--audit-log-sync-interval must be above 0; to sync before each event counts as \
                 written, give --audit-log-sync=always",
            );
        }
        AuditLogSync::Interval => SyncMode::Interval(flags.audit_log_sync_interval),
    };
    let log = SinkConfig { path, mode: mode(flags)?, rotation, sync };
    Ok(Audit { policy_file, log, format, bodies: bodies(flags)? })
}

fn bodies(flags: &ServeFlags) -> Result<Bodies, ConfigError> {
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

// As kube-apiserver, the batch settings are only looked at in batch mode.
fn mode(flags: &ServeFlags) -> Result<Mode, ConfigError> {
    Ok(match flags.audit_log_mode {
        AuditLogMode::Blocking => Mode::Blocking,
        AuditLogMode::BlockingStrict => Mode::BlockingStrict,
        AuditLogMode::Batch => Mode::Batch {
            buffer_size: positive(
                "--audit-log-batch-buffer-size",
                "buffer size",
                flags.audit_log_batch_buffer_size,
            )?,
            max_size: positive(
                "--audit-log-batch-max-size",
                "max batch size",
                flags.audit_log_batch_max_size,
            )?,
            max_wait: flags.audit_log_batch_max_wait,
            throttle: flags.audit_log_batch_throttle_enable.then(|| throttle(flags)).transpose()?,
        },
    })
}

fn throttle(flags: &ServeFlags) -> Result<Throttle, ConfigError> {
    let qps = flags.audit_log_batch_throttle_qps;
    if !(qps > 0.0 && qps.is_finite()) {
        return Err(ConfigError(format!(
            "--audit-log-batch-throttle-qps: invalid audit batch log throttle QPS {qps}, must be \
             a positive number"
        )));
    }
    let burst = positive(
        "--audit-log-batch-throttle-burst",
        "throttle burst",
        flags.audit_log_batch_throttle_burst,
    )?;
    Ok(Throttle { qps, burst })
}

/// kube-apiserver's words for what must be above 0, after the flag.
fn positive<T: TryFrom<i64>>(flag: &str, what: &str, value: i64) -> Result<T, ConfigError> {
    T::try_from(value).ok().filter(|_| value > 0).ok_or_else(|| {
        ConfigError(format!(
            "{flag}: invalid audit batch log {what} {value}, must be a positive number"
        ))
    })
}

/// kube-apiserver's words for what must not be below 0, and what 0 is for.
fn not_negative<T: TryFrom<i64>>(flag: &str, value: i64, zero: &str) -> Result<T, ConfigError> {
    T::try_from(value).map_err(|_| {
        ConfigError(format!("{flag} {value} can't be a negative number; give 0 {zero}"))
    })
}

fn fail<T>(message: &str) -> Result<T, ConfigError> {
    Err(ConfigError(message.to_owned()))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
