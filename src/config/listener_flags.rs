//! The flags of `serve` for its listening sockets and HTTP/2.

use clap::Args;

use super::boolean_flag::BooleanFlag;
use super::flags::SERVING;

/// Flags of `serve` for its listening sockets and HTTP/2.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListenerFlags {
    /// Set SO_REUSEADDR on the listening sockets, so that binding does not wait for connections in
    /// the TIME_WAIT state. On Linux this is always set, as it is by kube-apiserver; the flag is
    /// accepted for compatibility
    #[arg(long, default_value = "false", boolean(), help_heading = SERVING)]
    pub permit_address_sharing: bool,
    /// Set SO_REUSEPORT on the listening sockets (--secure-port and --admin-bind-address), which
    /// allows more than one process to listen on the same address and port, for example during a
    /// restart
    #[arg(long, default_value = "false", boolean(), help_heading = SERVING)]
    pub permit_port_sharing: bool,
    /// Concurrent streams allowed on each HTTP/2 connection of a client; 0 uses kube-apiserver's
    /// default, 100
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = SERVING)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    pub http2_max_streams_per_connection: u32,
}
