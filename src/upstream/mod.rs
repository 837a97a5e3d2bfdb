//! Requests to the API server: its address and settings ([`config`]), connections to it, and
//! requests on them.
//!
//! [`Upstream`] is the interface for other modules. Its parts, from the top: `forward` (a request,
//! repeated if that is safe), `upgrade`, `pool`, `http2` and `http1` (one connection each),
//! `connect` and `tls`. HTTP/2 uses the `h2` crate directly, HTTP/1.1 uses hyper.

mod balance;
pub mod config;
mod connect;
mod current;
pub(crate) mod error;
mod forward;
mod forward_balanced;
mod http1;
mod http1_many_headers;
mod http2;
mod http2_body;
mod http2_request;
pub mod identity;
mod metrics;
mod pool;
mod read_ahead;
mod reload;
mod renewal;
mod request_body;
mod response_body;
mod upgrade;
mod webhook;

#[cfg(test)]
mod tests;

pub use api_client::{ClientConfig as UpstreamConfig, ConfigError, access, credentials, endpoint};
pub use config::{UpstreamFlags, UpstreamSource};
pub use error::{ConnectionError, SendError};
pub use forward::Upstream;
pub use metrics::UpstreamMetrics;
pub use reload::{KubeconfigFile, ReloadTarget};
pub use renewal::{CredentialRenewed, Renewable};
pub use response_body::UpstreamBody;
pub use webhook::WebhookEndpoint;
