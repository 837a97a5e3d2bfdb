//! The flags of `serve`, as written on the command line or in the file of `--config`.
//!
//! Names and defaults are kube-apiserver's wherever the meaning is the same.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::bodies::{BodyFlags, BodySizeFlags, RedactionFlags};
use super::boolean_flag::BooleanFlag;
use super::filter_flags::FilterFlags;
use super::kubeconfig_flags::KubeconfigFlags;
use super::listener_flags::ListenerFlags;
use super::log::LogFlags;
use super::parse::parse_duration;
use super::policy::{AnnotationFlags, PolicyFlags};
use super::session_flags::SessionFlags;
use super::sinks::SinkEntry;
use super::webhook::WebhookFlags;
use crate::request::source::Cidr;
use crate::upstream::identity::Identity;
use kube_authn::WebhookVersion;

const EXAMPLE: &str = "\
Example:
  kube-audit-proxy serve --kubeconfig=proxy.conf --client-ca-file=ca.crt \\
    --audit-policy-file=config/policy-recommended.yaml --audit-log-path=audit.log";

/// Flags of `serve`.
#[derive(Debug, Clone, Args)]
#[command(args_override_self = true, after_help = EXAMPLE)]
pub(crate) struct ServeFlags {
    /// Address to listen on for clients
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = SERVING)]
    pub bind_address: IpAddr,
    /// Port to listen on for clients; 0 selects a free port
    #[arg(long, value_name = "PORT", default_value_t = 6443, help_heading = SERVING)]
    pub secure_port: u16,
    /// Serving certificate followed by its intermediates, PEM; reloaded when it changes
    #[arg(long, value_name = "FILE", help_heading = SERVING)]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the serving certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = SERVING)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Directory for the self-signed certificate that is created if --tls-cert-file is not set
    #[arg(long, value_name = "DIR", default_value = "/var/run/kubernetes", help_heading = SERVING)]
    pub cert_dir: PathBuf,
    /// Minimum TLS version
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12", help_heading = SERVING)]
    pub tls_min_version: TlsMinVersion,
    /// Cipher suites for TLS 1.2, comma-separated; all secure ones by default. Those of TLS 1.3
    /// cannot be disabled
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = SERVING)]
    pub tls_cipher_suites: Vec<String>,

    /// Maximum number of open client connections; further ones are reset. A connection needs about
    /// 30 KiB; 5,000 nodes keep about 30,000 open. Lower if the limit of open files requires it
    #[arg(long, value_name = "COUNT", default_value_t = 50_000, help_heading = SERVING)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections: u64,
    /// Networks of load balancers that send a PROXY protocol header (version 1 or 2),
    /// comma-separated. Connections from them must begin with a header, and the address in it is
    /// used as the client's; connections from other addresses must not
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', help_heading = SERVING)]
    pub proxy_protocol: Vec<Cidr>,
    /// Socket options and HTTP/2.
    #[command(flatten)]
    pub listener: ListenerFlags,

    /// CAs of client certificates, PEM: the common name is the user, organizations are the groups;
    /// reloaded when it changes
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub client_ca_file: Option<PathBuf>,
    /// Certificate revocation lists for client certificates, PEM; reloaded when it changes.
    /// Certificates of CAs without a list are not checked
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub client_crl_file: Option<PathBuf>,
    /// Accept client certificates of X.509 version 1, which have no usages and no extensions, like
    /// kube-apiserver does; only if a CA of --client-ca-file itself signed them
    #[arg(long, default_value = "false", boolean(), help_heading = AUTHENTICATION)]
    pub client_ca_allow_x509_v1: bool,
    /// CAs of front proxies, PEM; identity headers of a client with such a certificate are trusted.
    /// Reloaded when it changes
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that a front proxy's certificate may have, comma-separated; any by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user name, comma-separated; the first one that is present is used
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    #[arg(default_value = "X-Remote-User")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with the UID, comma-separated, such as X-Remote-Uid; none by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers with the groups, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    #[arg(default_value = "X-Remote-Group")]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers with extra fields of the user, comma-separated
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    #[arg(default_value = "X-Remote-Extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Static bearer tokens, CSV: token,user,uid,"group,group"
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub token_auth_file: Option<PathBuf>,
    /// Keys that verify ServiceAccount tokens, PEM; may be repeated. Reloaded when they change.
    /// Whether the account or pod still exists is not checked
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Fetch the keys of ServiceAccount tokens from the API server (/openid/v1/jwks), and the
    /// issuer if --service-account-issuer is not set
    #[arg(long, default_value = "false", boolean(), help_heading = AUTHENTICATION)]
    pub service_account_keys_from_upstream: bool,
    /// Issuer of ServiceAccount tokens; may be repeated
    #[arg(long, value_name = "URL", help_heading = AUTHENTICATION)]
    pub service_account_issuer: Vec<String>,
    /// Audiences that tokens may have, comma-separated; the issuers by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub api_audiences: Vec<String>,
    /// AuthenticationConfiguration (apiserver.config.k8s.io): JWT issuers, and paths that allow
    /// anonymous requests; reloaded when it changes. Excludes --oidc-*
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub authentication_config: Option<PathBuf>,
    /// URL of the OpenID Connect issuer (https), from which its keys are fetched
    #[arg(long, value_name = "URL", help_heading = AUTHENTICATION)]
    pub oidc_issuer_url: Option<String>,
    /// Client ID that OIDC tokens must be issued for
    #[arg(long, value_name = "ID", help_heading = AUTHENTICATION)]
    pub oidc_client_id: Option<String>,
    /// Claim with the user name [default: sub]
    #[arg(long, value_name = "NAME", help_heading = AUTHENTICATION)]
    pub oidc_username_claim: Option<String>,
    /// Prefix of user names, - for none. By default the issuer's URL and #, except for the claim
    /// email
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = AUTHENTICATION)]
    pub oidc_username_prefix: Option<String>,
    /// Claim with the groups
    #[arg(long, value_name = "NAME", help_heading = AUTHENTICATION)]
    pub oidc_groups_claim: Option<String>,
    /// Prefix of groups
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = AUTHENTICATION)]
    pub oidc_groups_prefix: Option<String>,
    /// Claim that must have the given value, which may contain commas; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", help_heading = AUTHENTICATION)]
    pub oidc_required_claim: Vec<String>,
    /// Accepted signature algorithms, comma-separated: RS256, RS384, RS512, ES256, ES384, ES512,
    /// PS256, PS384, PS512 [default: RS256]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub oidc_signing_algs: Vec<String>,
    /// CAs of the issuer, PEM; the system's CAs by default
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub oidc_ca_file: Option<PathBuf>,
    /// Authenticate unrecognized bearer tokens with a TokenReview against the API server
    #[arg(long, default_value = "false", boolean(), help_heading = AUTHENTICATION)]
    pub authentication_token_review: bool,
    /// How long to cache the user of a valid token, at most until the token expires; 0s disables
    /// the cache
    #[arg(long, value_name = "TIME", default_value = "2m", help_heading = AUTHENTICATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_review_cache_authenticated_ttl: Duration,
    /// How long to cache that a token is invalid; 0s disables the cache
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = AUTHENTICATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_review_cache_unauthenticated_ttl: Duration,
    /// Kubeconfig of a server that receives the TokenReviews instead of the API server
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long to cache responses of the token webhook
    #[arg(long, value_name = "TIME", default_value = "2m", help_heading = AUTHENTICATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Version of authentication.k8s.io for the token webhook
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "v1beta1",
        value_parser = PossibleValuesParser::new(WebhookVersion::NAMES)
            .try_map(|text| text.parse::<WebhookVersion>()),
        help_heading = AUTHENTICATION
    )]
    pub authentication_token_webhook_version: WebhookVersion,
    /// Treat requests without credentials as system:anonymous; true by default
    #[arg(long, boolean(), help_heading = AUTHENTICATION)]
    pub anonymous_auth: Option<bool>,
    /// Networks from which X-Forwarded-For is trusted, comma-separated; all by default, like in
    /// kube-apiserver
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub trusted_proxies: Vec<Cidr>,

    /// Kubeconfig with the API server's address and the proxy's own credentials. By default, in
    /// kubectl's order: the files of $KUBECONFIG, ~/.kube/config, the ServiceAccount of the proxy's
    /// pod. With --upstream-server and without --kubeconfig, none of them is used
    #[command(flatten)]
    pub kubeconfig: KubeconfigFlags,
    /// URL of the API server; repeat the flag for several API servers of the same cluster. A
    /// request goes to the healthy one with the fewest requests in flight, also if one name has
    /// several addresses
    #[arg(long, value_name = "URL", help_heading = UPSTREAM)]
    pub upstream_server: Vec<String>,
    /// CAs of the API server's certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_ca_file: Option<PathBuf>,
    /// Client certificate for the API server, PEM
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_client_cert_file: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_client_key_file: Option<PathBuf>,
    /// File with a bearer token for the API server
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_token_file: Option<PathBuf>,
    /// Name to verify the API server's certificate for; the host of the URL by default
    #[arg(long, value_name = "NAME", help_heading = UPSTREAM)]
    pub upstream_tls_server_name: Option<String>,
    /// How the API server identifies the user
    #[arg(long, value_name = "MODE", default_value = "impersonate", help_heading = UPSTREAM)]
    pub upstream_identity: Identity,
    /// Extra key that names the client to the API server, such as example.com/called-by, so that
    /// the API server's own audit log has it; with --upstream-identity=impersonate. The proxy needs
    /// the verb impersonate on userextras/KEY
    #[arg(long, value_name = "KEY", help_heading = UPSTREAM)]
    pub upstream_original_user_extra: Option<String>,
    /// Authorize constrained impersonation, like kube-apiserver's feature gate
    /// ConstrainedImpersonation; with --upstream-identity=impersonate, where the proxy authorizes
    /// impersonation
    #[arg(long, value_name = "VALUE", default_value = "auto", help_heading = UPSTREAM)]
    pub constrained_impersonation: Constrained,

    /// Limits, timeouts, CORS and the like.
    #[command(flatten)]
    pub filters: FilterFlags,

    /// The audit policy.
    #[command(flatten)]
    pub policy: PolicyFlags,
    /// Sizes of bodies.
    #[command(flatten)]
    pub body_sizes: BodySizeFlags,
    /// Memory for bodies, and ambiguous bodies.
    #[command(flatten)]
    pub bodies: BodyFlags,
    /// Annotations of events.
    #[command(flatten)]
    pub annotations: AnnotationFlags,
    /// Redaction.
    #[command(flatten)]
    pub redaction: RedactionFlags,

    /// The log backend.
    #[command(flatten)]
    pub log: LogFlags,
    /// The webhook backend.
    #[command(flatten)]
    pub webhook: WebhookFlags,

    /// YAML file whose keys are the names of these flags without dashes; flags on the command line
    /// override it. Its list sinks replaces --audit-log-* and --audit-webhook-*
    #[arg(long, value_name = "FILE", help_heading = OPERATION)]
    pub config: Option<PathBuf>,
    /// `sinks` of that file.
    #[arg(skip)]
    pub sinks: Vec<SinkEntry>,

    /// Recordings of sessions.
    #[command(flatten)]
    pub sessions: SessionFlags,

    /// Address for /healthz, /livez, /readyz, /metrics and /policy, over plain HTTP without
    /// authentication
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081", help_heading = OPERATION)]
    pub admin_bind_address: SocketAddr,
    /// How long to accept and serve requests after SIGTERM while /readyz already fails, so that
    /// load balancers stop sending new ones; --shutdown-timeout begins afterwards
    #[arg(long, value_name = "TIME", default_value = "0s", help_heading = OPERATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub shutdown_delay_duration: Duration,
    /// Maximum duration of a shutdown: for requests in flight, and for the delivery of events
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = OPERATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub shutdown_timeout: Duration,
    /// Log level: error, warn, info, debug or trace
    #[arg(short = 'v', long, value_name = "LEVEL", default_value = "info", help_heading = OPERATION)]
    #[arg(value_parser = parse_level)]
    pub log_level: tracing::Level,
    /// Format of the proxy's own log on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = OPERATION)]
    pub log_format: LogFormat,
}

pub(super) const SERVING: &str = "Serving";
const AUTHENTICATION: &str = "Authentication";
pub(super) const UPSTREAM: &str = "Upstream";
const OPERATION: &str = "Operation";

/// `--tls-min-version`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsMinVersion {
    /// TLS 1.2
    #[value(name = "VersionTLS12")]
    Tls12,
    /// TLS 1.3
    #[value(name = "VersionTLS13")]
    Tls13,
}

/// `--constrained-impersonation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Constrained {
    /// Depends on the API server's version: enabled from 1.36 on
    Auto,
    /// Enabled; what it does not allow, the verb impersonate can allow
    True,
    /// Disabled: only the verb impersonate is authorized
    False,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human-readable lines
    Text,
    /// One JSON object per line
    Json,
}

/// A level by name, or by the number that kube-apiserver's `-v` takes.
fn parse_level(text: &str) -> Result<tracing::Level, String> {
    if let Ok(number) = text.parse::<u8>() {
        return Ok(match number {
            0..=3 => tracing::Level::INFO,
            4..=5 => tracing::Level::DEBUG,
            _ => tracing::Level::TRACE,
        });
    }
    text.parse().map_err(|_| "one of error, warn, info, debug, trace, or a number".to_owned())
}
