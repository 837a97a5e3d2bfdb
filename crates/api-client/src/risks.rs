//! Warnings about connections that do not protect what they carry.

use std::net::IpAddr;

use crate::config::{ClientConfig, Trust};

/// Warns if the connection to the server with this name can be read or redirected.
pub fn warn(config: &ClientConfig, name: &str) {
    for server in config.servers() {
        let upstream = server.authority.as_str();
        if server.is_https() {
            if matches!(config.trust, Trust::Insecure) {
                tracing::warn!(upstream, "TLS certificate verification is disabled for {name}");
            }
        } else if server.host != "localhost"
            && !server.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        {
            tracing::warn!(
                upstream,
                "the connection to {name} is not encrypted; data and credentials are sent in plain text"
            );
        }
    }
}
