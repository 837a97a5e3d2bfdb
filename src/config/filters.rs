//! Checks the flags of the request filters.

use std::time::Duration;

use super::ConfigError;
use super::flags::ServeFlags;
use crate::filters::{Cors, FilterSettings, hsts};

/// The greatest `--goaway-chance`: one request in 50.
const MAX_GOAWAY_CHANCE: f64 = 0.02;

pub(super) fn filters(flags: &ServeFlags) -> Result<FilterSettings, ConfigError> {
    let filters = &flags.filters;
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
        http2_max_streams: flags.listener.http2_max_streams_per_connection,
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

    use super::super::file::command;
    use super::*;

    fn checked(flags: &[&str]) -> Result<FilterSettings, String> {
        let matches = command().try_get_matches_from(flags).map_err(|error| error.to_string())?;
        let flags = ServeFlags::from_arg_matches(&matches).unwrap();
        filters(&flags).map_err(|error| error.to_string())
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
