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
