//! A reverse proxy in front of kube-apiserver that writes Kubernetes audit events.
//!
//! Start reading at [`pipeline`], which handles one request. ARCHITECTURE.md lists the modules in
//! order: each uses only those below it.

pub mod audit;
pub mod authorization;
pub mod body;
pub mod cli;
pub mod config;
pub mod file_watch;
pub mod filters;
mod http2;
pub mod impersonation;
pub mod metrics;
pub mod pipeline;
pub mod policy;
pub mod request;
pub mod server;
pub mod upstream;

pub use ::pki;
pub(crate) use api_client::log_limit;
pub use audit_log as sink;
pub use audit_log::webhook;
pub use k8s_audit::status;
pub use kube_authn as authn;
pub(crate) use watched_files::regular_file;
