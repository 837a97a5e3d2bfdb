//! The way to the API server: where it is ([`config`]), connections to it, requests on them.
//!
//! [`Upstream`] is all that other rooms need. Below it, from the top: `forward` (a request, tried
//! again where that is safe), `upgrade`, `pool`, `http2` and `http1` (one connection each),
//! `connect` and `tls`. HTTP/2 is spoken with the `h2` crate itself, HTTP/1.1 with hyper.

pub mod access;
pub mod config;
mod connect;
pub mod credentials;
mod current;
mod dial;
mod dial_service;
pub mod endpoint;
pub mod error;
mod forward;
mod http1;
mod http1_many_headers;
mod http2;
mod http2_body;
mod http2_request;
pub mod identity;
mod in_cluster;
mod kubeconfig;
mod metrics;
mod own_requests;
mod pool;
mod read_ahead;
mod reload;
mod request_body;
mod response_body;
mod risks;
mod tls;
mod tunnel;
mod upgrade;
mod webhook;

#[cfg(test)]
mod tests;

pub use config::{UpstreamConfig, UpstreamFlags};
pub(crate) use dial_service::DialService;
pub use error::{ConfigError, ConnectionError, SendError};
pub use forward::Upstream;
pub use metrics::UpstreamMetrics;
pub use own_requests::OwnRequest;
pub use reload::KubeconfigFile;
pub use response_body::UpstreamBody;
pub(crate) use tls::system_roots;
