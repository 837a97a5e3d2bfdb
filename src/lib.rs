//! A reverse proxy in front of kube-apiserver that writes Kubernetes audit events.
//!
//! Start reading at [`pipeline`], which handles one request. ARCHITECTURE.md lists the modules in
//! order: each uses only those below it.
//!
//! The crate is a program. Only what its tests, benchmarks and fuzz targets need is public; other
//! programs use the libraries under `crates/`.

pub mod audit;
mod authorization;
mod body;
pub mod cli;
mod config;
mod file_watch;
pub mod filters;
mod http2;
pub mod impersonation;
mod metrics;
pub mod pipeline;
pub mod policy;
pub mod request;
pub mod server;
pub mod upstream;
