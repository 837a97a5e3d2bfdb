//! The flags of `serve`, as written on the command line or in the file of `--config`.
//!
//! Names and defaults are kube-apiserver's wherever the meaning is the same.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::kubeconfig_flags::KubeconfigFlags;
use super::session_flags::SessionFlags;
use super::sink_entry::SinkEntry;
use crate::authn::WebhookVersion;
use crate::request::duration;
use crate::request::source::Cidr;
use crate::sink::Compress;

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
    /// Port to listen on for clients; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443, help_heading = SERVING)]
    pub secure_port: u16,
    /// Serving certificate, PEM, its intermediates after it; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = SERVING)]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the serving certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = SERVING)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Where a self-signed certificate is made and kept if no --tls-cert-file is given
    #[arg(long, value_name = "DIR", default_value = "/var/run/kubernetes", help_heading = SERVING)]
    pub cert_dir: PathBuf,
    /// Lowest version of TLS to speak
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12", help_heading = SERVING)]
    pub tls_min_version: TlsMinVersion,
    /// Cipher suites for TLS 1.2, comma-separated; all secure ones if not given. Those of TLS 1.3
    /// cannot be turned off
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = SERVING)]
    pub tls_cipher_suites: Vec<String>,

    /// Client connections that may be open at a time; more are reset. Each takes some 30 KiB, and 5,000
    /// nodes keep about 30,000. Fewer if the limit of open files does not suffice
    #[arg(long, value_name = "COUNT", default_value_t = 50_000, help_heading = SERVING)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections: u64,
    /// Networks of load balancers whose connections begin with a PROXY protocol header (version 1 or
    /// 2), comma-separated; the client's address in it counts as the peer. There the header is
    /// required, and it is not read from anyone else
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', help_heading = SERVING)]
    pub proxy_protocol: Vec<Cidr>,

    /// CAs that sign client certificates, PEM: common name is the user, organizations the groups;
    /// read again when it changes
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub client_ca_file: Option<PathBuf>,
    /// Lists of client certificates that were revoked (CRL), PEM; read again when it changes.
    /// Certificates of authorities without a list in it are not checked
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub client_crl_file: Option<PathBuf>,
    /// Whether client certificates of X.509 version 1 are taken, which have no usage and no
    /// extensions; kube-apiserver takes them. Only those that a CA of --client-ca-file itself signed
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = AUTHENTICATION
    )]
    pub client_ca_allow_x509_v1: bool,
    /// CAs that sign the certificates of front proxies, PEM; what such a proxy says in headers of
    /// who is calling is believed. Read again when it changes
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that a front proxy's certificate may have, comma-separated; any if not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers for the user name, comma-separated; the first that is there counts
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    #[arg(default_value = "X-Remote-User")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers for the UID, comma-separated, such as X-Remote-Uid; none if not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers for the groups, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    #[arg(default_value = "X-Remote-Group")]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of the headers for further facts, comma-separated
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    #[arg(default_value = "X-Remote-Extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Bearer tokens, CSV: token,user,uid,"group,group"
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub token_auth_file: Option<PathBuf>,
    /// Keys by which ServiceAccount tokens are verified, PEM; may be given several times. Read again
    /// when they change. Whether an account or pod still exists is not checked
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Whether the keys of ServiceAccount tokens are fetched from the API server (/openid/v1/jwks),
    /// and its issuer with them if --service-account-issuer is not given
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = AUTHENTICATION
    )]
    pub service_account_keys_from_upstream: bool,
    /// Issuer of the ServiceAccount tokens; may be given several times, as by kube-apiserver
    #[arg(long, value_name = "URL", help_heading = AUTHENTICATION)]
    pub service_account_issuer: Vec<String>,
    /// Audiences that tokens may be for, comma-separated; the issuers if not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub api_audiences: Vec<String>,
    /// AuthenticationConfiguration of apiserver.config.k8s.io: OpenID Connect and other issuers of
    /// JWTs, and where requests may be anonymous; read again when it changes. Not together with
    /// --oidc-*
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub authentication_config: Option<PathBuf>,
    /// URL of the OpenID Connect issuer, https; its keys are fetched from there
    #[arg(long, value_name = "URL", help_heading = AUTHENTICATION)]
    pub oidc_issuer_url: Option<String>,
    /// Client that OIDC tokens must be for
    #[arg(long, value_name = "ID", help_heading = AUTHENTICATION)]
    pub oidc_client_id: Option<String>,
    /// Claim with the user name [default: sub]
    #[arg(long, value_name = "NAME", help_heading = AUTHENTICATION)]
    pub oidc_username_claim: Option<String>,
    /// Put before user names; - for nothing. If not given, that is the issuer's URL and #, except
    /// for the claim email
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = AUTHENTICATION)]
    pub oidc_username_prefix: Option<String>,
    /// Claim with the groups
    #[arg(long, value_name = "NAME", help_heading = AUTHENTICATION)]
    pub oidc_groups_claim: Option<String>,
    /// Put before groups
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = AUTHENTICATION)]
    pub oidc_groups_prefix: Option<String>,
    /// Claim that must have this value, which may contain commas; may be given several times
    #[arg(long, value_name = "CLAIM=VALUE", help_heading = AUTHENTICATION)]
    pub oidc_required_claim: Vec<String>,
    /// Algorithms that tokens may be signed with, comma-separated: RS256, RS384, RS512, ES256,
    /// ES384, ES512, PS256, PS384, PS512 [default: RS256]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub oidc_signing_algs: Vec<String>,
    /// CAs that the issuer's certificate is verified by, PEM; the system's if not given
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub oidc_ca_file: Option<PathBuf>,
    /// Whether the API server is asked whose a token is that nothing here knows
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = AUTHENTICATION
    )]
    pub authentication_token_review: bool,
    /// How long it is remembered whose a token is, at most until the token expires; 0s for not at
    /// all
    #[arg(long, value_name = "TIME", default_value = "2m", help_heading = AUTHENTICATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_review_cache_authenticated_ttl: Duration,
    /// How long it is remembered that a token is nobody's; 0s for not at all
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = AUTHENTICATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_review_cache_unauthenticated_ttl: Duration,
    /// Kubeconfig whose cluster is asked by TokenReview whose a token is, instead of the API server
    #[arg(long, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long the answers of the webhook are remembered, whatever they are
    #[arg(long, value_name = "TIME", default_value = "2m", help_heading = AUTHENTICATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Version of authentication.k8s.io that the webhook is spoken to in
    #[arg(long, value_name = "VERSION", default_value = "v1beta1", help_heading = AUTHENTICATION)]
    pub authentication_token_webhook_version: WebhookVersion,
    /// Whether requests without credentials are let through as system:anonymous; true if not given
    #[arg(
        long,
        value_name = "BOOL",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = AUTHENTICATION
    )]
    pub anonymous_auth: Option<bool>,
    /// Networks whose X-Forwarded-For is believed, comma-separated; everyone's is if not given, as
    /// by kube-apiserver
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', help_heading = AUTHENTICATION)]
    pub trusted_proxies: Vec<Cidr>,

    /// Where the API server and the proxy's own credentials are.
    #[command(flatten)]
    pub kubeconfig: KubeconfigFlags,
    /// URL of the API server
    #[arg(long, value_name = "URL", help_heading = UPSTREAM)]
    pub upstream_server: Option<String>,
    /// CAs that the API server's certificate is verified by, PEM
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_ca_file: Option<PathBuf>,
    /// Client certificate for the API server, PEM
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_client_cert_file: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_client_key_file: Option<PathBuf>,
    /// Bearer token for the API server
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub upstream_token_file: Option<PathBuf>,
    /// Name that the API server's certificate is verified for, if not that of the URL
    #[arg(long, value_name = "NAME", help_heading = UPSTREAM)]
    pub upstream_tls_server_name: Option<String>,
    /// How the API server learns who the user is
    #[arg(long, value_name = "HOW", default_value = "impersonate", help_heading = UPSTREAM)]
    pub upstream_identity: UpstreamIdentity,
    /// Key of the extra by which the API server is told who really called, such as
    /// example.com/called-by, for its own audit log; with --upstream-identity=impersonate. The
    /// proxy's user needs the verb impersonate on userextras/KEY
    #[arg(long, value_name = "KEY", help_heading = UPSTREAM)]
    pub upstream_original_user_extra: Option<String>,
    /// Whether clients may impersonate for certain requests only, as by kube-apiserver's feature
    /// gate ConstrainedImpersonation; with --upstream-identity=impersonate, where it is the proxy
    /// that judges
    #[arg(long, value_name = "WHETHER", default_value = "auto", help_heading = UPSTREAM)]
    pub constrained_impersonation: Constrained,

    /// Audit policy (audit.k8s.io/v1 Policy); read again when it changes
    #[arg(long, value_name = "FILE", help_heading = POLICY)]
    pub audit_policy_file: Option<PathBuf>,

    /// Bytes recorded of an answer's body; the rest is cut, and said to be
    #[arg(long, value_name = "BYTES", default_value_t = 1_572_864, help_heading = BODIES)]
    pub audit_max_body_bytes: usize,
    /// Bytes recorded of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 3_145_728, help_heading = BODIES)]
    pub audit_max_request_body_bytes: usize,
    /// Memory for the bodies being recorded, beyond 64 KiB of each; users share it fairly, and bodies
    /// that do not fit into a share are truncated
    #[arg(long, value_name = "BYTES", default_value_t = 134_217_728, help_heading = BODIES)]
    pub audit_total_body_bytes: usize,
    /// What happens to a request whose body means different things to different decoders (duplicate
    /// keys, YAML merge keys that override, several documents, invalid UTF-8 and the like): it is
    /// recorded with an annotation, or refused with 400 before anything is forwarded [default:
    /// reject if a sink's mode is blocking-strict, else record]
    #[arg(long, value_name = "ACTION", help_heading = BODIES)]
    pub audit_ambiguous_bodies: Option<AmbiguousBodies>,
    /// Name of this proxy or its node, noted in each event as the annotation kube-audit-proxy/node
    #[arg(long, value_name = "NAME", help_heading = POLICY)]
    pub audit_node_name: Option<String>,
    /// Note the policy rule that matched in each event, as the annotation
    /// kube-audit-proxy/policy-rule: its index, and where it is in the policy file
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = POLICY
    )]
    pub audit_annotate_rule: bool,
    /// Values to redact besides those of Secrets and tokens, as GROUP/RESOURCE:PATH,
    /// comma-separated, such as core/configmaps:data.password; none redacts nothing, as
    /// kube-apiserver
    #[arg(long, value_name = "RULES", value_delimiter = ',', help_heading = BODIES)]
    pub audit_redact: Vec<String>,

    /// File for the audit events, - for standard output
    #[arg(long, value_name = "FILE", help_heading = LOG)]
    pub audit_log_path: Option<PathBuf>,
    /// Form of the events
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
    /// Days to keep rotated files; 0 is for ever
    #[arg(long, value_name = "DAYS", default_value_t = 366, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_maxage: i64,
    /// Rotated files to keep; 0 is all
    #[arg(long, value_name = "COUNT", default_value_t = 100, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_maxbackup: i64,
    /// Size of the file, in MiB, at which it is rotated; 0 is never
    #[arg(long, value_name = "MIB", default_value_t = 100, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_maxsize: i64,
    /// Compress rotated files: gzip (the same as true), or zstd in frames of 1 MiB, which log query
    /// decodes one by one
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
    /// Whether rotated files get an index file (audit-TIME.log.parquet, about 3 % of the log), with which
    /// log query and log report need not read the log
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "true",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = LOG
    )]
    pub audit_log_index: bool,
    /// Whether requests wait for their events to be written
    #[arg(long, value_name = "MODE", default_value = "blocking", help_heading = LOG)]
    pub audit_log_mode: AuditLogMode,
    /// When events are on the disk itself, and not only in the system's memory
    #[arg(long, value_name = "WHEN", default_value = "off", help_heading = LOG)]
    pub audit_log_sync: AuditLogSync,
    /// The longest time that events are in memory only, with --audit-log-sync=interval
    #[arg(long, value_name = "TIME", default_value = "1s", help_heading = LOG)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_log_sync_interval: Duration,
    /// Whether the log is sealed: a chain of signed digests in *.seal files beside it, by which
    /// `kube-audit-proxy log verify` tells what was changed afterwards
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = LOG
    )]
    pub audit_log_seal: bool,
    /// Ed25519 private key (PKCS#8 PEM) that signs the seal, as `kube-audit-proxy log keygen` makes it;
    /// keep it where those who can write the log cannot read it
    #[arg(long, value_name = "FILE", help_heading = LOG)]
    pub audit_log_seal_key_file: Option<PathBuf>,
    /// How often the head of the chain is in the proxy's own log, for `log verify --head`
    #[arg(long, value_name = "TIME", default_value = "1m", help_heading = LOG)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_log_seal_head_interval: Duration,
    /// Signed checkpoint of the seal, by which a deleted or older seal is noticed; without, it is beside
    /// the log, as `audit.log.checkpoint`. Put it where those who can write the log cannot
    #[arg(long, value_name = "FILE", help_heading = LOG)]
    pub audit_log_seal_checkpoint_file: Option<PathBuf>,
    /// Events that may wait to be written, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_buffer_size: i64,
    /// Events in a batch, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_max_size: i64,
    /// How long a batch waits to be full, in batch mode
    #[arg(long, value_name = "TIME", default_value = "0s", help_heading = LOG)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_log_batch_max_wait: Duration,
    /// Whether batches are held to --audit-log-batch-throttle-qps
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = LOG
    )]
    pub audit_log_batch_throttle_enable: bool,
    /// Batches a second, on average
    #[arg(long, value_name = "QPS", default_value_t = 0.0, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_throttle_qps: f32,
    /// Batches at once, after a quiet time
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_batch_throttle_burst: i64,

    /// Kubeconfig whose cluster is a receiver of audit events over HTTP
    #[arg(long, value_name = "FILE", help_heading = WEBHOOK)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait for the receiver to take their events
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
    /// How long to wait before the second attempt; later waits are longer
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = WEBHOOK)]
    #[arg(alias = "audit-webhook-batch-initial-backoff")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_webhook_initial_backoff: Duration,
    /// Events that may wait to be sent, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_buffer_size: i64,
    /// Events in a batch, in batch mode
    #[arg(long, value_name = "COUNT", default_value_t = 400, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_max_size: i64,
    /// How long a batch waits to be full, in batch mode
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = WEBHOOK)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub audit_webhook_batch_max_wait: Duration,
    /// Whether batches are held to --audit-webhook-batch-throttle-qps
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "true",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = WEBHOOK
    )]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Batches a second, on average
    #[arg(long, value_name = "QPS", default_value_t = 10.0, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_throttle_qps: f32,
    /// Batches at once, after a quiet time
    #[arg(long, value_name = "COUNT", default_value_t = 15, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_batch_throttle_burst: i64,
    /// Whether events that are too long lose their bodies, the larger one first; what is too long
    /// without them is not sent
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = WEBHOOK
    )]
    pub audit_webhook_truncate_enabled: bool,
    /// Bytes in a batch; without effect, as by kube-apiserver
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_truncate_max_batch_size: i64,
    /// Bytes that an event may have, if they are truncated
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_truncate_max_event_size: i64,
    /// Whether batches are compressed by gzip
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = WEBHOOK
    )]
    pub audit_webhook_compress: bool,
    /// Folder where batches wait on the disk until the receiver has taken them, in batch mode
    #[arg(long, value_name = "DIR", help_heading = WEBHOOK)]
    pub audit_webhook_spool_dir: Option<PathBuf>,
    /// Size of the spool in MiB; what would exceed it is lost and counted. Up to half of it may be
    /// *.rejected files
    #[arg(long, value_name = "MIB", default_value_t = 1024, help_heading = WEBHOOK)]
    #[arg(allow_negative_numbers = true)]
    pub audit_webhook_spool_max_size: i64,

    /// A YAML file whose keys are these flags without their dashes; flags given here win over it.
    /// Its list sinks says where events go instead of --audit-log-* and --audit-webhook-*
    #[arg(long, value_name = "FILE", help_heading = OPERATION)]
    pub config: Option<PathBuf>,
    /// `sinks` of that file.
    #[arg(skip)]
    pub sinks: Vec<SinkEntry>,
    /// Whether events that are too long lose their bodies, the larger one first
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_bool,
        action = ArgAction::Set,
        help_heading = LOG
    )]
    pub audit_log_truncate_enabled: bool,
    /// Bytes that an event may have, if they are truncated
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_truncate_max_event_size: i64,
    /// Taken for kube-apiserver's sake; events are written one by one
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, help_heading = LOG)]
    #[arg(allow_negative_numbers = true)]
    pub audit_log_truncate_max_batch_size: i64,

    /// Recordings of sessions.
    #[command(flatten)]
    pub sessions: SessionFlags,

    /// Address for /healthz, /livez, /readyz and /metrics, in plain HTTP and without authentication
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081", help_heading = OPERATION)]
    pub admin_bind_address: SocketAddr,
    /// How long to go on accepting and serving requests after SIGTERM, while /readyz already fails, so
    /// that load balancers stop sending new ones; --shutdown-timeout begins after it
    #[arg(long, value_name = "TIME", default_value = "0s", help_heading = OPERATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub shutdown_delay_duration: Duration,
    /// How long the process may take to end on SIGTERM: for requests under way, and to deliver events
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = OPERATION)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub shutdown_timeout: Duration,
    /// How much the process tells of itself on standard error: error, warn, info, debug or trace
    #[arg(short = 'v', long, value_name = "LEVEL", default_value = "info", help_heading = OPERATION)]
    #[arg(value_parser = parse_level)]
    pub log_level: tracing::Level,
    /// Form in which it tells
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = OPERATION)]
    pub log_format: LogFormat,
}

const SERVING: &str = "Serving";
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
    /// By X-Remote-* headers, which the API server believes because of the proxy's front-proxy
    /// client certificate
    RequestHeader,
    /// By Impersonate-* headers, for which the proxy's own credentials need the right
    Impersonate,
    /// By the client's own bearer token, which is passed on
    PassThrough,
}

/// `--constrained-impersonation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Constrained {
    /// As the API server's version has it by default: from 1.36 on
    Auto,
    /// They may, and what that does not allow, the verb impersonate may
    True,
    /// The verb impersonate alone decides
    False,
}

/// `--audit-log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLogFormat {
    /// A JSON object a line
    Json,
    /// A line of key="value" pairs, without bodies
    Legacy,
}

/// `--audit-log-mode`, `--audit-webhook-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLogMode {
    /// They do not; events are lost, and counted, when too many wait
    Batch,
    /// They do, and go on if it fails
    Blocking,
    /// They do, and are refused if it fails when they begin
    BlockingStrict,
}

/// `--audit-ambiguous-bodies`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousBodies {
    /// Forward them; their events name what is ambiguous
    Record,
    /// Refuse them with 400; their events have the body as it came
    Reject,
}

/// `--audit-log-sync`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLogSync {
    /// When the system likes
    Off,
    /// After --audit-log-sync-interval at the latest
    Interval,
    /// Before an event counts as written; events at the same time share one sync
    Always,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object a line
    Json,
}

/// As Go's `strconv.ParseBool`, which kube-apiserver's flags go through.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
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
