//! The flags of `serve`, as written on the command line or in the file of `--config`.
//!
//! Names and defaults are kube-apiserver's wherever the meaning is the same. Each concern has its
//! flags and their validation in a module of its own.

use std::path::PathBuf;

use clap::Args;

use super::authentication::AuthenticationFlags;
use super::bodies::{BodyFlags, BodySizeFlags, RedactionFlags};
use super::filters::FilterFlags;
use super::log::LogFlags;
use super::operation::{self, OperationFlags};
use super::policy::{AnnotationFlags, PolicyFlags};
use super::serving::ServingFlags;
use super::session_flags::SessionFlags;
use super::sinks::SinkEntry;
use super::upstream::ApiServerFlags;
use super::webhook::WebhookFlags;

const EXAMPLE: &str = "\
Example:
  kube-audit-proxy serve --kubeconfig=proxy.conf --client-ca-file=ca.crt \\
    --audit-policy-file=config/policy-recommended.yaml --audit-log-path=audit.log";

/// Flags of `serve`.
#[derive(Debug, Clone, Args)]
#[command(args_override_self = true, after_help = EXAMPLE)]
pub(crate) struct ServeFlags {
    /// Listening sockets, TLS and HTTP/2.
    #[command(flatten)]
    pub serving: ServingFlags,
    /// Authentication of clients.
    #[command(flatten)]
    pub authentication: AuthenticationFlags,
    /// The connection to the API server.
    #[command(flatten)]
    pub upstream: ApiServerFlags,
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
    #[arg(long, value_name = "FILE", help_heading = operation::HEADING)]
    pub config: Option<PathBuf>,
    /// `sinks` of that file.
    #[arg(skip)]
    pub sinks: Vec<SinkEntry>,
    /// Recordings of sessions.
    #[command(flatten)]
    pub sessions: SessionFlags,
    /// The running of the process.
    #[command(flatten)]
    pub operation: OperationFlags,
}
