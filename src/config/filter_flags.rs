//! The flags of `serve` for the request filters. Names and meanings are kube-apiserver's.

use std::time::Duration;

use clap::Args;

use super::parse::parse_duration;

const FILTERS: &str = "Request filters";

/// Flags of `serve` for the request filters.
#[derive(Debug, Clone, Args)]
pub(crate) struct FilterFlags {
    /// Maximum number of non-mutating requests in flight; more get a 429. 0 is no limit, the
    /// default: the API server has limits of its own, with queues and priorities (APF). When the
    /// limit is reached, it is shared equally among the users
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = FILTERS)]
    #[arg(value_parser = clap::value_parser!(u32), allow_negative_numbers = true)]
    pub max_requests_inflight: u32,
    /// Maximum number of mutating requests in flight; more get a 429. 0 is no limit, see
    /// --max-requests-inflight
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = FILTERS)]
    #[arg(value_parser = clap::value_parser!(u32), allow_negative_numbers = true)]
    pub max_mutating_requests_inflight: u32,
    /// How long a request may take before it gets a 504; ?timeout= can only shorten it. Watches,
    /// logs, exec and other long-running requests are exempt. 0s is no limit
    #[arg(long, value_name = "TIME", default_value = "1m0s", help_heading = FILTERS)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub request_timeout: Duration,
    /// Minimum number of seconds that the proxy keeps a watch open that has no timeoutSeconds; it
    /// ends the watch at a random time between this and twice as much. 0 leaves this to the API
    /// server, which has the same flag
    #[arg(long, value_name = "SECONDS", default_value_t = 0, help_heading = FILTERS)]
    #[arg(value_parser = clap::value_parser!(u32), allow_negative_numbers = true)]
    pub min_request_timeout: u32,
    /// Allowed origins for CORS, comma-separated regular expressions, for example
    /// '//example\.com(:|$)'. Each must pin to the start and the end of the host: with '^' or '//',
    /// and with '$' or ':'. CORS is off if not given
    #[arg(long, value_name = "REGEXPS", value_delimiter = ',', help_heading = FILTERS)]
    pub cors_allowed_origins: Vec<String>,
    /// Fraction of requests over HTTP/2 after which the client has to open a new connection
    /// (GOAWAY), so that a load balancer can choose another proxy; requests in flight are not
    /// affected. From 0 (off) to 0.02; 0.001 is a good start
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, help_heading = FILTERS)]
    #[arg(allow_negative_numbers = true)]
    pub goaway_chance: f64,
    /// Directives of the header Strict-Transport-Security in responses, comma-separated, for
    /// example 'max-age=31536000,includeSubDomains,preload'. No header if not given
    #[arg(long, value_name = "DIRECTIVES", value_delimiter = ',', help_heading = FILTERS)]
    pub strict_transport_security_directives: Vec<String>,
}
