//! What `serve` is told, checked and in the form in which it is used.
//!
//! [`flags`] are the texts; [`file`] brings in the file of `--config`; [`Config`] is the result.
//! Making one opens no file but that, so everything in it can be tested as a table.

pub mod file;
pub mod flags;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::SupportedCipherSuite;

use self::flags::{AuditLogFormat, AuditLogMode, AuditLogSync, TlsMinVersion, UpstreamIdentity};
pub use self::flags::{LogFormat, ServeFlags};
use crate::audit::record::Format;
use crate::request::source::TrustedProxies;
use crate::server::tls::{self, MinVersion, TlsOptions};
use crate::sink::{LogPath, Mode, Rotation, SinkConfig, SyncMode, Throttle};
use crate::upstream::UpstreamFlags;
use crate::upstream::identity::Identity;
use crate::webhook::{SpoolConfig, WebhookConfig};

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
    /// `--token-auth-file`
    pub token_auth_file: Option<PathBuf>,
    /// `--anonymous-auth`
    pub anonymous: bool,
    /// `--trusted-proxies`
    pub trusted_proxies: TrustedProxies,
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
    /// `--audit-log-path` and what belongs to it; None where there is only a webhook.
    pub log: Option<SinkConfig>,
    /// `--audit-webhook-config-file` and what belongs to it.
    pub webhook: Option<WebhookConfig>,
    /// `--audit-log-format`
    pub format: Format,
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
            authentication: authentication(&flags)?,
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
            request_client_certificates: flags.client_ca_file.is_some(),
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

fn authentication(flags: &ServeFlags) -> Result<Authentication, ConfigError> {
    let nobody = flags.client_ca_file.is_none()
        && flags.token_auth_file.is_none()
        && !flags.anonymous_auth
        && flags.upstream_identity != UpstreamIdentity::PassThrough;
    if nobody {
        return fail(
            "--anonymous-auth=false without --client-ca-file and --token-auth-file would refuse \
             everybody; name one of the files",
        );
    }
    Ok(Authentication {
        client_ca_file: flags.client_ca_file.clone(),
        token_auth_file: flags.token_auth_file.clone(),
        anonymous: flags.anonymous_auth,
        trusted_proxies: match flags.trusted_proxies.as_slice() {
            [] => TrustedProxies::Everyone,
            networks => TrustedProxies::Networks(networks.to_vec()),
        },
    })
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
    let webhook = webhook(flags)?;
    let log = log(flags)?;
    if log.is_none() && webhook.is_none() {
        return fail(
            "--audit-log-path is missing: it says where events are written; give a file, or \
             - for standard output, or a receiver with --audit-webhook-config-file",
        );
    }
    let format = match flags.audit_log_format {
        AuditLogFormat::Json => Format::Json,
        AuditLogFormat::Legacy => Format::Legacy,
    };
    Ok(Audit { policy_file, log, webhook, format })
}

fn log(flags: &ServeFlags) -> Result<Option<SinkConfig>, ConfigError> {
    let path = match &flags.audit_log_path {
        None => return Ok(None),
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
    Ok(Some(SinkConfig { path, mode: mode(&log_batch(flags))?, rotation, sync }))
}

// kube-apiserver looks at these only where there is a webhook.
fn webhook(flags: &ServeFlags) -> Result<Option<WebhookConfig>, ConfigError> {
    let Some(file) = flags.audit_webhook_config_file.clone() else { return Ok(None) };
    let max_event = flags.audit_webhook_truncate_max_event_size;
    let max_event_size =
        usize::try_from(max_event).ok().filter(|size| *size > 0).ok_or_else(|| {
            ConfigError(format!(
                "--audit-webhook-truncate-max-event-size: invalid audit truncate webhook max event \
             size {max_event}, must be a positive number"
            ))
        })?;
    let max_batch = flags.audit_webhook_truncate_max_batch_size;
    if max_batch < max_event {
        return Err(ConfigError(format!(
            "--audit-webhook-truncate-max-batch-size: invalid audit truncate webhook max batch \
             size {max_batch}, must be greater than max event size ({max_event})"
        )));
    }
    let mode = mode(&webhook_batch(flags))?;
    let is_batch = matches!(mode, Mode::Batch { .. });
    let spool = match flags.audit_webhook_spool_dir.clone() {
        None => None,
        Some(_) if !is_batch => {
            return fail(
                "--audit-webhook-spool-dir needs --audit-webhook-mode=batch: in the others a \
                 request waits for the receiver itself",
            );
        }
        Some(dir) => {
            let mib = flags.audit_webhook_spool_max_size;
            let max_size = u64::try_from(mib).ok().filter(|mib| *mib > 0).ok_or_else(|| {
                ConfigError(format!(
                    "--audit-webhook-spool-max-size: {mib} is not a size in MiB; give a positive \
                     number"
                ))
            })?;
            Some(SpoolConfig { dir, max_size: max_size.saturating_mul(1 << 20) })
        }
    };
    Ok(Some(WebhookConfig {
        file,
        mode,
        initial_backoff: flags.audit_webhook_initial_backoff,
        max_event_size: flags.audit_webhook_truncate_enabled.then_some(max_event_size),
        compress: flags.audit_webhook_compress,
        spool,
    }))
}

/// The flags that log and webhook both have.
struct BatchFlags {
    /// `log` or `webhook`
    backend: &'static str,
    mode: AuditLogMode,
    buffer_size: i64,
    max_size: i64,
    max_wait: Duration,
    throttle_enable: bool,
    throttle_qps: f32,
    throttle_burst: i64,
}

fn log_batch(flags: &ServeFlags) -> BatchFlags {
    BatchFlags {
        backend: "log",
        mode: flags.audit_log_mode,
        buffer_size: flags.audit_log_batch_buffer_size,
        max_size: flags.audit_log_batch_max_size,
        max_wait: flags.audit_log_batch_max_wait,
        throttle_enable: flags.audit_log_batch_throttle_enable,
        throttle_qps: flags.audit_log_batch_throttle_qps,
        throttle_burst: flags.audit_log_batch_throttle_burst,
    }
}

fn webhook_batch(flags: &ServeFlags) -> BatchFlags {
    BatchFlags {
        backend: "webhook",
        mode: flags.audit_webhook_mode,
        buffer_size: flags.audit_webhook_batch_buffer_size,
        max_size: flags.audit_webhook_batch_max_size,
        max_wait: flags.audit_webhook_batch_max_wait,
        throttle_enable: flags.audit_webhook_batch_throttle_enable,
        throttle_qps: flags.audit_webhook_batch_throttle_qps,
        throttle_burst: flags.audit_webhook_batch_throttle_burst,
    }
}

// As kube-apiserver, the batch settings are only looked at in batch mode.
fn mode(flags: &BatchFlags) -> Result<Mode, ConfigError> {
    let positive = |flag, what, value| positive::<usize>(flags.backend, flag, what, value);
    Ok(match flags.mode {
        AuditLogMode::Blocking => Mode::Blocking,
        AuditLogMode::BlockingStrict => Mode::BlockingStrict,
        AuditLogMode::Batch => Mode::Batch {
            buffer_size: positive("buffer-size", "buffer size", flags.buffer_size)?,
            max_size: positive("max-size", "max batch size", flags.max_size)?,
            max_wait: flags.max_wait,
            throttle: flags.throttle_enable.then(|| throttle(flags)).transpose()?,
        },
    })
}

fn throttle(flags: &BatchFlags) -> Result<Throttle, ConfigError> {
    let (backend, qps) = (flags.backend, flags.throttle_qps);
    if !(qps > 0.0 && qps.is_finite()) {
        return Err(ConfigError(format!(
            "--audit-{backend}-batch-throttle-qps: invalid audit batch {backend} throttle QPS \
             {qps}, must be a positive number"
        )));
    }
    let burst = positive(backend, "throttle-burst", "throttle burst", flags.throttle_burst)?;
    Ok(Throttle { qps, burst })
}

/// kube-apiserver's words for what must be above 0, after the flag.
fn positive<T: TryFrom<i64>>(
    backend: &str,
    flag: &str,
    what: &str,
    value: i64,
) -> Result<T, ConfigError> {
    T::try_from(value).ok().filter(|_| value > 0).ok_or_else(|| {
        ConfigError(format!(
            "--audit-{backend}-batch-{flag}: invalid audit batch {backend} {what} {value}, must \
             be a positive number"
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
