//! The validated configuration of `serve`.
//!
//! [`flags`] are the texts; [`file`] brings in the file of `--config`; [`Config`] is the result.
//! Making one opens no file but that, so everything in it can be tested as a table.

mod authentication;
mod batch;
mod bodies;
mod boolean_flag;
pub(crate) mod file;
mod filter_flags;
mod filters;
pub(crate) mod flags;
mod kubeconfig_flags;
mod listener_flags;
mod log;
mod parse;
mod policy;
#[cfg(test)]
mod reference;
mod s3;
mod same_file;
mod session_flags;
mod setting;
mod sinks;
mod tree;
mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::SupportedCipherSuite;

pub(crate) use self::bodies::Bodies;
use self::flags::Constrained;
use self::flags::TlsMinVersion;
pub(crate) use self::flags::{LogFormat, ServeFlags};
use self::kubeconfig_flags::KubeconfigFlags;
pub(crate) use self::session_flags::SessionRecording;
pub(crate) use self::setting::Setting;
use self::setting::SettingError;
pub(crate) use self::sinks::{BackendSettings, SinkSettings};
use crate::audit::record::AmbiguousBodies;
use crate::authorization::AuthorizationSettings;
use crate::filters::FilterSettings;
use crate::impersonation::{ConstrainedImpersonation, Rules};
use crate::request::source::{Cidr, TrustedProxies};
use crate::server::tls::{self, MinVersion, TlsOptions};
use crate::upstream::UpstreamFlags;
use crate::upstream::identity::{Identity, OriginalUserExtra};
use kube_authn::{JwtSettings, RequestHeaderNames, TokenReviewSettings};

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

/// Where and how clients are listened to.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// `--bind-address` and `--secure-port`
    pub addr: SocketAddr,
    /// The certificate shown to clients.
    pub certificate: CertificateSource,
    /// Versions, cipher suites, client certificates.
    pub tls: TlsOptions,
    /// `--max-connections`
    pub max_connections: u64,
    /// `--proxy-protocol`
    pub proxy_protocol: Vec<Cidr>,
    /// `--permit-port-sharing`
    pub share_port: bool,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CertificateSource {
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
pub(crate) struct Authentication {
    /// `--client-ca-file`
    pub client_ca_file: Option<PathBuf>,
    /// `--client-crl-file`
    pub client_crl_file: Option<PathBuf>,
    /// `--client-ca-allow-x509-v1`
    pub client_ca_allow_x509_v1: bool,
    /// `--requestheader-*`
    pub request_header: Option<RequestHeaderAuthentication>,
    /// `--token-auth-file`
    pub token_auth_file: Option<PathBuf>,
    /// `--service-account-*`
    pub service_accounts: Option<ServiceAccountAuthentication>,
    /// The issuers of trusted tokens.
    pub issuers: Issuers,
    /// `--authentication-token-review`, `--authentication-token-webhook-*`
    pub token_review: Option<TokenReviewSettings>,
    /// `--api-audiences`, or the ServiceAccount issuers
    pub audiences: Vec<String>,
    /// `--anonymous-auth`, if it was given
    pub anonymous_auth: Option<bool>,
    /// `--trusted-proxies`
    pub trusted_proxies: TrustedProxies,
}

/// Whom front proxies may speak for, and how.
#[derive(Debug, Clone)]
pub(crate) struct RequestHeaderAuthentication {
    /// `--requestheader-client-ca-file`
    pub client_ca_file: PathBuf,
    /// `--requestheader-allowed-names`; empty for any
    pub allowed_names: Vec<String>,
    /// The other `--requestheader-*` flags.
    pub names: RequestHeaderNames,
}

/// The trusted issuers of JSON Web Tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Issuers {
    /// None.
    None,
    /// The one of `--oidc-*`.
    Flags(Box<JwtSettings>),
    /// Those of the file of `--authentication-config`.
    File(PathBuf),
}

/// How ServiceAccount tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceAccountAuthentication {
    /// `--service-account-key-file`
    pub key_files: Vec<PathBuf>,
    /// `--service-account-keys-from-upstream`
    pub keys_from_upstream: bool,
    /// `--service-account-issuer`; empty for what the API server says it is, with its keys.
    pub issuers: Vec<String>,
}

/// The API server.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--credential-plugin-timeout`
    pub plugin_timeout: Duration,
    /// `--upstream-*`
    pub flags: UpstreamFlags,
    /// `--upstream-identity`
    pub identity: Identity,
    /// `--upstream-original-user-extra`
    pub original_user_extra: Option<OriginalUserExtra>,
    /// `--constrained-impersonation`
    pub constrained_impersonation: ConstrainedImpersonation,
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

/// The running of the process.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// `--admin-bind-address`
    pub admin_addr: SocketAddr,
    /// `--shutdown-delay-duration`
    pub shutdown_delay: Duration,
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
pub(crate) struct ConfigError(String);

impl Operation {
    /// How long the process may take to end after SIGTERM, all in all.
    pub(crate) fn shutdown_limit(&self) -> Duration {
        self.shutdown_delay.saturating_add(self.shutdown_timeout)
    }
}

impl Config {
    /// Checks `flags`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn new(flags: ServeFlags) -> Result<Config, ConfigError> {
        Ok(Config {
            audit: audit(&flags)?,
            serving: serving(&flags)?,
            authentication: authentication::authentication(&flags)?,
            upstream: upstream(&flags)?,
            sessions: SessionRecording::new(&flags.sessions)?,
            filters: filters::filters(&flags)?,
            operation: Operation {
                admin_addr: flags.admin_bind_address,
                shutdown_delay: flags.shutdown_delay_duration,
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
        max_connections: flags.max_connections,
        proxy_protocol: flags.proxy_protocol.clone(),
        share_port: flags.listener.permit_port_sharing,
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
                "--tls-cipher-suites: {name:?} is not supported; supported are: {}",
                known.join(", ")
            ))
        },
    )
}

fn upstream(flags: &ServeFlags) -> Result<Upstream, ConfigError> {
    let KubeconfigFlags { kubeconfig, context, credential_plugin_timeout } = &flags.kubeconfig;
    if context.is_some() && kubeconfig.is_none() && !flags.upstream_server.is_empty() {
        return fail(
            "--context needs a kubeconfig, and --upstream-server without --kubeconfig uses none; \
             give --kubeconfig, or leave out one of the two",
        );
    }
    if credential_plugin_timeout.is_zero() {
        return fail("--credential-plugin-timeout must be longer than 0s, for example 30s");
    }
    let identity = flags.upstream_identity;
    let original_user_extra = flags.upstream_original_user_extra.as_deref().map(str::parse);
    let original_user_extra = original_user_extra
        .transpose()
        .map_err(|error| ConfigError(format!("--upstream-original-user-extra: {error}")))?;
    if original_user_extra.is_some() && identity != Identity::Impersonate {
        return fail(
            "--upstream-original-user-extra needs --upstream-identity=impersonate; otherwise the \
             API server sees who called, and needs not be told",
        );
    }
    let constrained_impersonation = match flags.constrained_impersonation {
        Constrained::Auto => ConstrainedImpersonation::Auto,
        Constrained::True => ConstrainedImpersonation::Always(Rules::Constrained),
        Constrained::False => ConstrainedImpersonation::Always(Rules::LegacyOnly),
    };
    if flags.constrained_impersonation != Constrained::Auto && identity != Identity::Impersonate {
        return fail(
            "--constrained-impersonation needs --upstream-identity=impersonate; otherwise it is \
             the API server that authorizes impersonation, by its own feature gate",
        );
    }
    Ok(Upstream {
        kubeconfig: kubeconfig.clone(),
        context: context.clone(),
        plugin_timeout: *credential_plugin_timeout,
        flags: UpstreamFlags {
            servers: flags.upstream_server.clone(),
            ca_file: flags.upstream_ca_file.clone(),
            client_cert_file: flags.upstream_client_cert_file.clone(),
            client_key_file: flags.upstream_client_key_file.clone(),
            token_file: flags.upstream_token_file.clone(),
            tls_server_name: flags.upstream_tls_server_name.clone(),
        },
        identity,
        original_user_extra,
        constrained_impersonation,
    })
}

fn audit(flags: &ServeFlags) -> Result<Audit, ConfigError> {
    Ok(Audit {
        sinks: sinks::sinks(flags)?,
        total_body_bytes: flags.bodies.audit_total_body_bytes,
        ambiguous_bodies: flags.bodies.audit_ambiguous_bodies,
        node_name: flags.annotations.node_name()?,
        annotates_rule: flags.annotations.audit_annotate_rule,
        authorization: flags.annotations.authorization(flags.upstream_identity)?,
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
#[path = "config_tests.rs"]
mod tests;
