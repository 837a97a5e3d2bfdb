//! The running of the process: flags and their validation.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse::parse_duration;

pub(super) const HEADING: &str = "Operation";

/// Flags of the running of the process.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct OperationFlags {
    /// Address for /healthz, /livez, /readyz, /metrics and /policy, over plain HTTP without
    /// authentication
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub admin_bind_address: SocketAddr,
    /// How long to accept and serve requests after SIGTERM while /readyz already fails, so that
    /// load balancers stop sending new ones; --shutdown-timeout begins afterwards
    #[arg(long, value_name = "TIME", default_value = "0s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub shutdown_delay_duration: Duration,
    /// Maximum duration of a shutdown: for requests in flight, and for the delivery of events
    #[arg(long, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub shutdown_timeout: Duration,
    /// Log level: error, warn, info, debug or trace
    #[arg(short = 'v', long, value_name = "LEVEL", default_value = "info")]
    #[arg(value_parser = parse_level)]
    pub log_level: tracing::Level,
    /// Format of the proxy's own log on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human-readable lines
    Text,
    /// One JSON object per line
    Json,
}

/// The running of the process.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// `--admin-bind-address`
    pub admin_addr: SocketAddr,
    /// `--shutdown-delay-duration`
    pub shutdown_delay: Duration,
    /// `--shutdown-timeout`
    pub shutdown_timeout: Duration,
    /// `--log-level`
    pub log_level: tracing::Level,
    /// `--log-format`
    pub log_format: LogFormat,
}

impl Operation {
    /// How long the process may take to end after SIGTERM, all in all.
    pub(crate) fn shutdown_limit(&self) -> Duration {
        self.shutdown_delay.saturating_add(self.shutdown_timeout)
    }
}

impl OperationFlags {
    /// Returns the settings.
    pub(super) fn validate(&self) -> Operation {
        Operation {
            admin_addr: self.admin_bind_address,
            shutdown_delay: self.shutdown_delay_duration,
            shutdown_timeout: self.shutdown_timeout,
            log_level: self.log_level,
            log_format: self.log_format,
        }
    }
}

/// A level by name, or by the number that kube-apiserver's `-v` takes.
fn parse_level(text: &str) -> Result<tracing::Level, String> {
    if let Ok(number) = text.parse::<u8>() {
        return Ok(match number {
            0..=3 => tracing::Level::INFO,
            4..=5 => tracing::Level::DEBUG,
            _ => tracing::Level::TRACE,
        });
    }
    text.parse().map_err(|_| "one of error, warn, info, debug, trace, or a number".to_owned())
}
