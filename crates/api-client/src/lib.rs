//! Connections to the servers that kube-audit-proxy depends on: the API server, webhook endpoints
//! and token issuers.
//!
//! | module | contents |
//! |---|---|
//! | [`config`] | [`ClientConfig`]: address, trust, credentials and proxy of one server |
//! | [`kubeconfig`] | loading and merging kubeconfigs, like kubectl |
//! | [`credentials`] | the `Authorization` header: static, from a file, or from a plugin |
//! | [`exec`] | credential plugins (`users[].user.exec`) |
//! | [`tls`] | TLS settings that reload |
//! | [`target`] | one server with everything that connections to it need |
//! | [`endpoint_set`] | the addresses of an API server, and which are healthy |
//! | [`client`] | the HTTP client of control-plane calls |
//! | [`access`] | whether a server accepts the proxy's credentials |
//! | [`backoff`], [`token_bucket`], [`log_limit`] | delays between retries, rate limits |
//! | [`ttl_cache`] | a bounded map whose entries expire |
//! | [`dial`], [`tunnel`] | TCP connections: several addresses for a name, proxies |
//!
//! The crate does not know about audit events or the authentication of clients.

pub mod access;
pub mod backoff;
pub mod client;
pub mod config;
pub mod credentials;
pub mod dial;
pub mod dial_service;
pub mod endpoint;
pub mod endpoint_set;
pub mod error;
pub mod exec;
mod files;
mod in_cluster;
pub mod kubeconfig;
pub mod log_limit;
pub mod risks;
pub mod target;
pub mod tls;
pub mod token_bucket;
pub mod ttl_cache;
pub mod tunnel;

pub use client::{ApiClient, ApiRequest, RequestError, RequestErrorKind};
pub use config::{ClientCertificate, ClientConfig, Pem, Trust, parse_server_name};
pub use credentials::Credentials;
pub use endpoint::Endpoint;
pub use endpoint_set::EndpointSet;
pub use error::ConfigError;
pub use files::FollowedFiles;
pub use target::Target;
