//! A reverse proxy in front of kube-apiserver that writes Kubernetes audit events.
//!
//! Start reading at [`pipeline`], which handles one request. ARCHITECTURE.md lists the modules in
//! order: each uses only those below it.

pub mod audit;
pub mod authn;
pub mod body;
pub mod cli;
pub mod config;
pub mod demo;
pub mod document;
pub mod file_watch;
mod http2;
pub mod impersonation;
mod log_limit;
pub mod metrics;
pub mod pipeline;
pub mod pki;
pub mod policy;
mod regular_file;
pub mod request;
pub mod server;
pub mod sink;
#[cfg(test)]
mod test_dir;
pub mod upstream;
pub mod webhook;

pub use k8s_audit::status;
