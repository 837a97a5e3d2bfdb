//! The flags of `serve`, as written on the command line or in the file of `--config`.
//!
//! Names and defaults are kube-apiserver's wherever the meaning is the same.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, ValueEnum};

use super::boolean_flag::{BooleanFlag, parse_bool};
use super::filter_flags::FilterFlags;
use super::kubeconfig_flags::KubeconfigFlags;
use super::listener_flags::ListenerFlags;
use super::session_flags::SessionFlags;
use super::sink_entry::SinkEntry;
use crate::request::source::Cidr;
use audit_log::Compress;
use k8s_audit::request::duration;
use kube_authn::WebhookVersion;

const EXAMPLE: &str = "\
Example:
  kube-audit-proxy serve --kubeconfig=proxy.conf --client-ca-file=ca.crt \\
    --audit-policy-file=config/policy-recommended.yaml --audit-log-path=audit.log";

/// Flags of `serve`.
#[derive(Debug, Clone, Args)]
#[command(args_override_self = true, after_help = EXAMPLE)]
pub struct ServeFlags {
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
    pub upstream_identity: UpstreamIdentity,
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

    /// Audit policy (audit.k8s.io/v1 Policy); reloaded when it changes
    #[arg(long, value_name = "FILE", help_heading = POLICY)]
    pub audit_policy_file: Option<PathBuf>,

    /// Maximum size of a recorded response body; a longer one is truncated, and the event is
    /// annotated
    #[arg(long, value_name = "BYTES", default_value_t = 1_572_864, help_heading = BODIES)]
    pub audit_max_body_bytes: usize,
    /// Maximum size of a recorded request body
    #[arg(long, value_name = "BYTES", default_value_t = 3_145_728, help_heading = BODIES)]
    pub audit_max_request_body_bytes: usize,
    /// Memory for all bodies that are being recorded, beyond 64 KiB for each. Users share it
    /// fairly; bodies that exceed a share are truncated
    #[arg(long, value_name = "BYTES", default_value_t = 134_217_728, help_heading = BODIES)]
    pub audit_total_body_bytes: usize,
    /// What to do with a request body that decoders read differently (duplicate keys, YAML merge
    /// keys that override, several documents, invalid UTF-8 and similar) [default: reject if the
    /// mode of a sink is blocking-strict, else record]
    #[arg(long, value_name = "ACTION", help_heading = BODIES)]
    pub audit_ambiguous_bodies: Option<AmbiguousBodies>,
    /// Name of this proxy or its node, added to each event as the annotation kube-audit-proxy/node
    #[arg(long, value_name = "NAME", help_heading = POLICY)]
    pub audit_node_name: Option<String>,
    /// Add the index and position of the policy rule that matched to each event, as the annotation
    /// kube-audit-proxy/policy-rule
    #[arg(long, default_value = "false", boolean(), help_heading = POLICY)]
    pub audit_annotate_rule: bool,
    /// Add the annotations authorization.k8s.io/decision and authorization.k8s.io/reason to events,
    /// like kube-apiserver does. A SubjectAccessReview runs beside each request, so the proxy's
    /// user needs the verb create on subjectaccessreviews.authorization.k8s.io
    #[arg(long, default_value = "false", boolean(), help_heading = POLICY)]
    pub audit_authorization_annotations: bool,
    /// How long the SubjectAccessReview may delay a request and its event; after that, the event
    /// has no authorization annotations
    #[arg(long, value_name = "TIME", default_value = "500ms", help_heading = POLICY)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_authorization_timeout: Duration,
    /// How long the reason of an allowed request is reused for the same user and attributes; 0s
    /// disables the cache
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = POLICY)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_authorization_cache_ttl: Duration,
    /// Values to redact in addition to those of Secrets and tokens, as GROUP/RESOURCE:PATH,
    /// comma-separated, such as core/configmaps:data.password. none disables redaction, like in
    /// kube-apiserver
    #[arg(long, value_name = "RULES", value_delimiter = ',', help_heading = BODIES)]
    pub audit_redact: Vec<String>,

    /// File for audit events, or - for standard output
    #[arg(long, value_name = "FILE", help_heading = LOG)]
    pub audit_log_path: Option<PathBuf>,
    /// Format of the events
    #[arg(long, value_name = "FORMAT", default_value = "json", help_heading = LOG)]
    pub audit_log_format: AuditLogFormat,
    /// API version of the events
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "audit.k8s.io/v1",
        value_parser = ["audit.k8s.io/v1"],
        help_heading = LOG
    )]
    pub audit_log_version: String,
    /// Days to keep rotated files; 0 keeps them forever
    #[arg(long, value_name = "DAYS", default_value_t = 366, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_maxage: i64,
    /// Number of rotated files to keep; 0 keeps all
    #[arg(long, value_name = "COUNT", default_value_t = 100, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_maxbackup: i64,
    /// Size in MiB at which the file is rotated; 0 disables rotation
    #[arg(long, value_name = "MIB", default_value_t = 100, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_maxsize: i64,
    /// Compress rotated files: gzip (the same as true), or zstd in frames of 1 MiB, which log query
    /// can decompress one by one
    #[arg(
        long,
        value_name = "false|true|gzip|zstd",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_compress,
        action = ArgAction::Set,
        help_heading = LOG
    )]
    pub audit_log_compress: Compress,
    /// Write an index file for each rotated file (audit-TIME.log.parquet, about 3 % of its size),
    /// with which log query and log report need not read the log
    #[arg(long, default_value = "true", boolean(), help_heading = LOG)]
    pub audit_log_index: bool,
    /// Whether requests wait until their events are written
    #[arg(long, value_name = "MODE", default_value = "blocking", help_heading = LOG)]
    pub audit_log_mode: AuditLogMode,
    /// When events are synced to disk
    #[arg(long, value_name = "MODE", default_value = "off", help_heading = LOG)]
    pub audit_log_sync: AuditLogSync,
    /// Maximum time between a write and its sync, with --audit-log-sync=interval
    #[arg(long, value_name = "TIME", default_value = "1s", help_heading = LOG)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_log_sync_interval: Duration,
    /// Seal the log: write a chain of signed digests to *.seal files next to it, with which
    /// `kube-audit-proxy log verify` detects later changes
    #[arg(long, default_value = "false", boolean(), help_heading = LOG)]
    pub audit_log_seal: bool,
    /// Ed25519 private key (PKCS#8 PEM) that signs the seal; `kube-audit-proxy log keygen` creates
    /// one. Users who can write to the log should not be able to read it
    #[arg(long, value_name = "FILE", help_heading = LOG)]
    pub audit_log_seal_key_file: Option<PathBuf>,
    /// How often to log the head of the chain, for `log verify --head`
    #[arg(long, value_name = "TIME", default_value = "1m", help_heading = LOG)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_log_seal_head_interval: Duration,
    /// Signed checkpoint of the seal, with which a deleted or older seal is detected;
    /// audit.log.checkpoint next to the log by default. Users who can write to the log should not
    /// be able to write to it
    #[arg(long, value_name = "FILE", help_heading = LOG)]
    pub audit_log_seal_checkpoint_file: Option<PathBuf>,
    /// Number of events that can wait to be written, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_buffer_size: i64,
    /// Maximum number of events in a batch, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_max_size: i64,
    /// Maximum time to wait for a batch to fill, in batch mode
    #[arg(long, value_name = "TIME", default_value = "0s", help_heading = LOG)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_log_batch_max_wait: Duration,
    /// Limit the rate of batches to --audit-log-batch-throttle-qps
    #[arg(long, default_value = "false", boolean(), help_heading = LOG)]
    pub audit_log_batch_throttle_enable: bool,
    /// Average number of batches per second
    #[arg(long, value_name = "QPS", default_value_t = 0.0, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_throttle_qps: f32,
    /// Number of batches that may exceed the average rate at once
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_throttle_burst: i64,

    /// Kubeconfig of a webhook endpoint that receives audit events
    #[arg(long, value_name = "FILE", help_heading = WEBHOOK)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait until the webhook endpoint has accepted their events
    #[arg(long, value_name = "MODE", default_value = "batch", help_heading = WEBHOOK)]
    pub audit_webhook_mode: AuditLogMode,
    /// API version of the events
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "audit.k8s.io/v1",
        value_parser = ["audit.k8s.io/v1"],
        help_heading = WEBHOOK
    )]
    pub audit_webhook_version: String,
    /// Delay before the first retry; later delays are longer
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = WEBHOOK)]
    #[arg(alias = "audit-webhook-batch-initial-backoff")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_webhook_initial_backoff: Duration,
    /// Number of events that can wait to be sent, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_buffer_size: i64,
    /// Maximum number of events in a batch, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 400, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_max_size: i64,
    /// Maximum time to wait for a batch to fill, in batch mode
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = WEBHOOK)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_webhook_batch_max_wait: Duration,
    /// Limit the rate of batches to --audit-webhook-batch-throttle-qps
    #[arg(long, default_value = "true", boolean(), help_heading = WEBHOOK)]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Average number of batches per second
    #[arg(long, value_name = "QPS", default_value_t = 10.0, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_throttle_qps: f32,
    /// Number of batches that may exceed the average rate at once
    #[arg(long, value_name = "COUNT", default_value_t = 15, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_throttle_burst: i64,
    /// Remove bodies from events that are too large, the larger body first; events that are still
    /// too large are not sent
    #[arg(long, default_value = "false", boolean(), help_heading = WEBHOOK)]
    pub audit_webhook_truncate_enabled: bool,
    /// Maximum size of a batch in bytes; has no effect, like in kube-apiserver
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_truncate_max_batch_size: i64,
    /// Maximum size of an event in bytes, with --audit-webhook-truncate-enabled
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_truncate_max_event_size: i64,
    /// Compress batches with gzip
    #[arg(long, default_value = "false", boolean(), help_heading = WEBHOOK)]
    pub audit_webhook_compress: bool,
    /// Directory where batches wait on disk until the webhook endpoint has accepted them, in batch
    /// mode
    #[arg(long, value_name = "DIR", help_heading = WEBHOOK)]
    pub audit_webhook_spool_dir: Option<PathBuf>,
    /// Maximum size of the spool in MiB; events beyond it are lost and counted. Up to half of it
    /// can be *.rejected files
    #[arg(long, value_name = "MIB", default_value_t = 1024, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_spool_max_size: i64,

    /// YAML file whose keys are the names of these flags without dashes; flags on the command line
    /// override it. Its list sinks replaces --audit-log-* and --audit-webhook-*
    #[arg(long, value_name = "FILE", help_heading = OPERATION)]
    pub config: Option<PathBuf>,
    /// `sinks` of that file.
    #[arg(skip)]
    pub sinks: Vec<SinkEntry>,
    /// Remove bodies from events that are too large, the larger body first
    #[arg(long, default_value = "false", boolean(), help_heading = LOG)]
    pub audit_log_truncate_enabled: bool,
    /// Maximum size of an event in bytes, with --audit-log-truncate-enabled
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_truncate_max_event_size: i64,
    /// Accepted for compatibility with kube-apiserver; has no effect, because events are written
    /// one by one
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_truncate_max_batch_size: i64,

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
const POLICY: &str = "Audit policy";
const BODIES: &str = "Bodies in the audit log";
const LOG: &str = "Audit log";
const WEBHOOK: &str = "Audit webhook";
const OPERATION: &str = "Operation";

/// `--tls-min-version`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsMinVersion {
    /// TLS 1.2
    #[value(name = "VersionTLS12")]
    Tls12,
    /// TLS 1.3
    #[value(name = "VersionTLS13")]
    Tls13,
}

/// `--upstream-identity`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UpstreamIdentity {
    /// By X-Remote-* headers; the API server trusts the proxy's front-proxy client certificate
    RequestHeader,
    /// By Impersonate-* headers; the proxy's own credentials must be allowed to impersonate
    Impersonate,
    /// By the client's own bearer token, which is forwarded
    PassThrough,
}

/// `--constrained-impersonation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Constrained {
    /// Depends on the API server's version: enabled from 1.36 on
    Auto,
    /// Enabled; what it does not allow, the verb impersonate can allow
    True,
    /// Disabled: only the verb impersonate is authorized
    False,
}

/// `--audit-log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLogFormat {
    /// One JSON object per line
    Json,
    /// One line of key="value" pairs, without bodies
    Legacy,
}

/// `--audit-log-mode`, `--audit-webhook-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLogMode {
    /// Requests do not wait; when the buffer is full, events are lost and counted
    Batch,
    /// Requests wait; if a write fails, they proceed, and the loss is counted
    Blocking,
    /// Requests wait; if a write fails, they are refused
    BlockingStrict,
}

/// `--audit-ambiguous-bodies`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousBodies {
    /// Forward it; an annotation of the event names what is ambiguous
    Record,
    /// Reject it with 400 before it is forwarded; the event has the body as it was received
    Reject,
}

/// `--audit-log-sync`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLogSync {
    /// When the operating system decides, like in kube-apiserver
    Off,
    /// At most --audit-log-sync-interval after they are written
    Interval,
    /// Before an event counts as written; concurrent events share one sync
    Always,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable lines
    Text,
    /// One JSON object per line
    Json,
}

fn parse_compress(text: &str) -> Result<Compress, String> {
    match text {
        "gzip" => Ok(Compress::Gzip),
        "zstd" => Ok(Compress::Zstd),
        _ => match parse_bool(text) {
            Ok(true) => Ok(Compress::Gzip),
            Ok(false) => Ok(Compress::No),
            Err(_) => Err("accepted are false, true, gzip, and zstd".to_owned()),
        },
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = duration::parse(text)
        .map_err(|error| format!("{error}; write it as 30s, 1m30s or 500ms"))?;
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| "a time to wait cannot be negative".to_owned())
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
