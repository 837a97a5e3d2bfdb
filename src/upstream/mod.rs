//! The way to the API server.
pub mod config;
pub mod credentials;
pub mod endpoint;
pub mod error;
mod in_cluster;
mod kubeconfig;
