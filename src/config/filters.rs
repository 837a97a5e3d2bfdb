//! The request filters: flags, with kube-apiserver's names and meanings, and their validation.

use std::time::Duration;

use clap::Args;

use super::ConfigError;
use super::parse::parse_duration;
use crate::filters::{Cors, FilterSettings, hsts};

/// The greatest `--goaway-chance`: one request in 50.
const MAX_GOAWAY_CHANCE: f64 = 0.02;

/// Flags of the request filters.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Request filters")]
pub(crate) struct FilterFlags {
    /// Maximum number of non-mutating requests in flight; more get a 429. 0 is no limit, the
    /// default: the API server has limits of its own, with queues and priorities (APF). When the
    /// limit is reached, it is shared equally among the users
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32), allow_negative_numbers = true)]
    pub max_requests_inflight: u32,
    /// Maximum number of mutating requests in flight; more get a 429. 0 is no limit, see
    /// --max-requests-inflight
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32), allow_negative_numbers = true)]
    pub max_mutating_requests_inflight: u32,
    /// How long a request may take before it gets a 504; ?timeout= can only shorten it. Watches,
    /// logs, exec and other long-running requests are exempt. 0s is no limit
    #[arg(long, value_name = "TIME", default_value = "1m0s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub request_timeout: Duration,
    /// Minimum number of seconds that the proxy keeps a watch open that has no timeoutSeconds; it
    /// ends the watch at a random time between this and twice as much. 0 leaves this to the API
    /// server, which has the same flag
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32), allow_negative_numbers = true)]
    pub min_request_timeout: u32,
    /// Allowed origins for CORS, comma-separated regular expressions, for example
    /// '//example\.com(:|$)'. Each must pin to the start and the end of the host: with '^' or '//',
    /// and with '$' or ':'. CORS is off if not given
    #[arg(long, value_name = "REGEXPS", value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
    /// Fraction of requests over HTTP/2 after which the client has to open a new connection
    /// (GOAWAY), so that a load balancer can choose another proxy; requests in flight are not
    /// affected. From 0 (off) to 0.02; 0.001 is a good start
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    #[arg(allow_negative_numbers = true)]
    pub goaway_chance: f64,
    /// Directives of the header Strict-Transport-Security in responses, comma-separated, for
    /// example 'max-age=31536000,includeSubDomains,preload'. No header if not given
    #[arg(long, value_name = "DIRECTIVES", value_delimiter = ',')]
    pub strict_transport_security_directives: Vec<String>,
}

/// Validates the flags.
pub(super) fn filters(
    filters: &FilterFlags,
    http2_max_streams: u32,
) -> Result<FilterSettings, ConfigError> {
    let chance = filters.goaway_chance;
    if !(0.0..=MAX_GOAWAY_CHANCE).contains(&chance) {
        return Err(ConfigError(format!(
            "--goaway-chance cannot be less than 0 or greater than {MAX_GOAWAY_CHANCE}, and it is \
             {chance}; 0.001 is a good start"
        )));
    }
    let cors = Cors::new(list(&filters.cors_allowed_origins))
        .map_err(|error| ConfigError(format!("--cors-allowed-origins: {error}")))?;
    let hsts = hsts::header(list(&filters.strict_transport_security_directives))
        .map_err(|error| ConfigError(format!("--strict-transport-security-directives: {error}")))?;
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(FilterSettings {
        max_requests_in_flight: count(filters.max_requests_inflight),
        max_mutating_requests_in_flight: count(filters.max_mutating_requests_inflight),
        request_timeout: filters.request_timeout,
        min_request_timeout: Duration::from_secs(filters.min_request_timeout.into()),
        cors,
        hsts,
        goaway_chance: chance,
        http2_max_streams,
    })
}

/// An empty value is an empty list, like for kube-apiserver.
fn list(values: &[String]) -> &[String] {
    match values {
        [only] if only.is_empty() => &[],
        values => values,
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::super::ServeFlags;
    use super::super::file::command;
    use super::*;

    fn checked(flags: &[&str]) -> Result<FilterSettings, String> {
        let matches = command().try_get_matches_from(flags).map_err(|error| error.to_string())?;
        let flags = ServeFlags::from_arg_matches(&matches).unwrap();
        let streams = flags.serving.http2_max_streams_per_connection;
        filters(&flags.filters, streams).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_off_but_for_the_timeout() {
        let settings = checked(&[]).unwrap();
        assert_eq!(settings.request_timeout, Duration::from_secs(60));
        assert_eq!(settings.min_request_timeout, Duration::ZERO);
        assert_eq!(settings.max_requests_in_flight, 0);
        assert_eq!(settings.max_mutating_requests_in_flight, 0);
        assert!(settings.cors.is_none() && settings.hsts.is_none());
        assert_eq!((settings.goaway_chance, settings.http2_max_streams), (0.0, 0));
        let empty = ["--cors-allowed-origins=", "--strict-transport-security-directives="];
        let settings = checked(&empty).unwrap();
        assert!(settings.cors.is_none() && settings.hsts.is_none());
    }

    #[test]
    fn values_are_those_of_kube_apiserver() {
        let settings = checked(&[
            "--max-requests-inflight=400",
            "--max-mutating-requests-inflight=200",
            "--request-timeout=1m30s",
            "--min-request-timeout=1800",
            "--cors-allowed-origins=//a\\.example(:|$),^https://b\\.example$",
            "--goaway-chance=0.02",
            "--strict-transport-security-directives=max-age=1,includeSubDomains",
            "--http2-max-streams-per-connection=250",
        ])
        .unwrap();
        assert_eq!(settings.max_requests_in_flight, 400);
        assert_eq!(settings.max_mutating_requests_in_flight, 200);
        assert_eq!(settings.request_timeout, Duration::from_secs(90));
        assert_eq!(settings.min_request_timeout, Duration::from_secs(1800));
        assert!(settings.cors.is_some());
        assert_eq!(settings.hsts.unwrap(), "max-age=1; includeSubDomains");
        assert_eq!(settings.http2_max_streams, 250);
    }

    #[test]
    fn what_kube_apiserver_refuses_is_refused() {
        for (flag, says) in [
            ("--max-requests-inflight=-1", "--max-requests-inflight"),
            ("--max-mutating-requests-inflight=-1", "--max-mutating-requests-inflight"),
            ("--request-timeout=-1s", "cannot be negative"),
            ("--request-timeout=60", "missing unit"),
            ("--min-request-timeout=-1", "--min-request-timeout"),
            ("--goaway-chance=-0.001", "cannot be less than 0"),
            ("--goaway-chance=0.021", "greater than 0.02"),
            ("--goaway-chance=NaN", "greater than 0.02"),
            ("--cors-allowed-origins=example.com", "does not pin"),
            ("--cors-allowed-origins=^a$,", "an origin is empty"),
            ("--cors-allowed-origins=^(a$", "not a regular expression"),
            ("--strict-transport-security-directives=max-age", "allowed values"),
            ("--http2-max-streams-per-connection=-1", "--http2-max-streams-per-connection"),
        ] {
            let error = checked(&[flag]).unwrap_err();
            assert!(error.contains(says), "{flag}: {error}");
        }
    }
}
