//! Request filters of kube-apiserver: limits of requests in flight, deadlines, CORS, HSTS, and
//! GOAWAY. docs/request-filters.md describes their order.
//!
//! A filter that is turned off costs a request one comparison. The deadline, which is on by
//! default, costs two short critical sections on a lock that other worker threads hardly ever hold
//! ([`deadline`]).

pub(crate) mod cors;
pub(crate) mod deadline;
pub(crate) mod hsts;
pub(crate) mod in_flight;
mod metrics;
mod random;

#[cfg(test)]
mod in_flight_tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

pub use self::cors::Cors;
pub use self::deadline::{Deadline, Expired};
pub use self::in_flight::InFlightLimits;
pub use self::metrics::FilterMetrics;

use self::deadline::Deadlines;
use k8s_audit::request::{RequestInfo, duration, query};

/// The filters as configured.
#[derive(Debug, Clone, Default)]
pub struct FilterSettings {
    /// `--max-requests-inflight`; 0 is no limit.
    pub max_requests_in_flight: usize,
    /// `--max-mutating-requests-inflight`; 0 is no limit.
    pub max_mutating_requests_in_flight: usize,
    /// `--request-timeout`; zero is no limit.
    pub request_timeout: Duration,
    /// `--min-request-timeout`; zero leaves the end of watches to the API server.
    pub min_request_timeout: Duration,
    /// `--cors-allowed-origins`
    pub cors: Option<Cors>,
    /// `--strict-transport-security-directives`
    pub hsts: Option<HeaderValue>,
    /// `--goaway-chance`
    pub goaway_chance: f64,
    /// `--http2-max-streams-per-connection`; 0 is the default.
    pub http2_max_streams: u32,
}

/// The filters, with the state that requests share. The default has all of them turned off.
pub struct Filters {
    settings: FilterSettings,
    deadlines: Arc<Deadlines>,
    limits: Option<InFlightLimits>,
    /// Their metrics.
    pub metrics: Arc<FilterMetrics>,
}

impl Default for Filters {
    fn default() -> Filters {
        Filters::new(FilterSettings::default(), Arc::default())
    }
}

impl Filters {
    /// Creates the filters. Within a tokio runtime, [`Filters::watch_deadlines`] must run for
    /// deadlines to have an effect.
    pub fn new(settings: FilterSettings, metrics: Arc<FilterMetrics>) -> Filters {
        let limits = InFlightLimits::new(
            settings.max_requests_in_flight,
            settings.max_mutating_requests_in_flight,
            &metrics,
        );
        let deadlines = Arc::new(Deadlines::new(&metrics));
        Filters { settings, deadlines, limits, metrics }
    }

    /// Checks for requests whose deadline has passed, until the filters are dropped.
    pub fn watch_deadlines(&self) {
        deadline::spawn_watch(&self.deadlines);
    }

    /// Returns the limits of requests in flight, if there are any.
    pub fn limits(&self) -> Option<&InFlightLimits> {
        self.limits.as_ref()
    }

    /// Returns the CORS filter, if it is turned on.
    pub fn cors(&self) -> Option<&Cors> {
        self.settings.cors.as_ref()
    }

    /// Returns the value of `Strict-Transport-Security`, if there is one.
    pub fn hsts(&self) -> Option<&HeaderValue> {
        self.settings.hsts.as_ref()
    }

    /// Decides whether a client on HTTP/2 has to reconnect, which happens with the probability
    /// `--goaway-chance`.
    pub fn goaway(&self) -> bool {
        let chance = self.settings.goaway_chance;
        if chance > 0.0 && random::fraction() < chance {
            self.metrics.goaways.inc();
            return true;
        }
        false
    }

    /// Returns the concurrent streams that an HTTP/2 connection may have; 0 is the default.
    pub fn http2_max_streams(&self) -> u32 {
        self.settings.http2_max_streams
    }

    /// Returns the time, for [`Filters::deadline`].
    pub fn now(&self) -> deadline::Coarse {
        self.deadlines.now()
    }

    /// Returns the deadline of a request that came in at `started` and asked for the timeout
    /// `requested`. `None` if the request is long-running, or if there is neither a timeout nor a
    /// limit of requests in flight.
    ///
    /// Like in kube-apiserver, `?timeout=` can shorten the time that `--request-timeout` allows,
    /// and values that are not positive have no effect.
    pub fn deadline(
        &self,
        connection: u64,
        started: deadline::Coarse,
        is_long_running: bool,
        requested: Option<Duration>,
    ) -> Option<Deadline> {
        if is_long_running {
            return None;
        }
        let most = self.settings.request_timeout;
        let timeout = match requested {
            Some(requested) if most.is_zero() || requested < most => requested,
            _ => most,
        };
        if timeout.is_zero() && self.limits.is_none() {
            return None;
        }
        Some(self.deadlines.register(connection, started, timeout))
    }

    /// Returns how long the proxy lets a watch last: a random time between `--min-request-timeout`
    /// and twice as much, unless the client has chosen a time itself. `None` leaves the end to the
    /// API server.
    pub fn watch_timeout(&self, info: &RequestInfo, query: Option<&str>) -> Option<Duration> {
        let least = self.settings.min_request_timeout;
        if least.is_zero() || info.verb() != "watch" {
            return None;
        }
        let chosen = query.and_then(|query| query::first(query, "timeoutSeconds"));
        let chosen = chosen.and_then(|text| str::from_utf8(&text).ok()?.parse::<i64>().ok());
        if chosen.is_some_and(|seconds| seconds != 0) {
            return None;
        }
        Some(least.mul_f64(1.0 + random::fraction()))
    }
}

/// Returns the value of `?timeout=`, if it is positive and has an effect.
///
/// # Errors
/// Returns kube-apiserver's message if the value is not a duration. kube-apiserver rejects such a
/// request before it authenticates.
pub fn requested_timeout(
    info: &RequestInfo,
    query: Option<&str>,
) -> Result<Option<Duration>, String> {
    let parameter = query.and_then(|query| query::first(query, "timeout"));
    let Some(text) = parameter.filter(|text| !text.is_empty()) else { return Ok(None) };
    if info.is_long_running() {
        return Ok(None);
    }
    let nanoseconds = duration::parse(&String::from_utf8_lossy(&text))
        .map_err(|error| format!("invalid timeout specified in the request URL - {error}"))?;
    let positive = u64::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds > 0);
    Ok(positive.map(Duration::from_nanos))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn filters(settings: FilterSettings) -> Filters {
        Filters::new(settings, Arc::default())
    }

    fn info(target: &'static str) -> (RequestInfo, Option<&'static str>) {
        let path = PathAndQuery::from_static(target);
        let query = target.split_once('?').map(|(_, query)| query);
        (RequestInfo::new(&Method::GET, &path).unwrap(), query)
    }

    fn timeout(request_timeout: u64, target: &'static str) -> Option<Duration> {
        let request_timeout = Duration::from_secs(request_timeout);
        let filters = filters(FilterSettings { request_timeout, ..FilterSettings::default() });
        let (info, query) = info(target);
        let requested = requested_timeout(&info, query).unwrap();
        let long_running = info.is_long_running();
        let deadline = filters.deadline(1, filters.now(), long_running, requested)?;
        Some(deadline.timeout(filters.now()))
    }

    #[test]
    fn the_query_shortens_the_timeout_and_never_extends_it() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(timeout(60, "/api/v1/pods"), seconds(60));
        assert_eq!(timeout(60, "/api/v1/pods?timeout=5s"), seconds(5));
        assert_eq!(timeout(60, "/api/v1/pods?a=1&timeout=1m30s"), seconds(60));
        for ignored in ["0", "0s", "-1s", ""] {
            let target = format!("/api/v1/pods?timeout={ignored}").leak();
            assert_eq!(timeout(60, target), seconds(60), "{ignored}");
        }
        assert_eq!(timeout(60, "/api/v1/pods?timeout=2s&timeout=1s"), seconds(2));
        // Without a limit of the proxy's own, that of the client counts.
        assert_eq!(timeout(0, "/api/v1/pods?timeout=5s"), seconds(5));
        assert_eq!(timeout(0, "/api/v1/pods"), None);
    }

    #[test]
    fn long_running_requests_have_no_deadline() {
        for target in [
            "/api/v1/pods?watch=1&timeout=1s",
            "/api/v1/namespaces/a/pods/x/log?timeout=1s",
            "/api/v1/namespaces/a/pods/x/exec",
        ] {
            assert_eq!(timeout(60, target), None, "{target}");
        }
        let (watch, query) = info("/api/v1/pods?watch=1&timeout=x");
        assert_eq!(requested_timeout(&watch, query), Ok(None));
        let (list, query) = info("/api/v1/pods?timeout=x");
        let error = "invalid timeout specified in the request URL - time: invalid duration \"x\"";
        assert_eq!(requested_timeout(&list, query), Err(error.to_owned()));
    }

    #[test]
    fn watches_last_between_once_and_twice_the_least() {
        let least = Duration::from_secs(100);
        let settings = FilterSettings { min_request_timeout: least, ..FilterSettings::default() };
        let filters = filters(settings);
        let timeout = |target| {
            let (info, query) = info(target);
            filters.watch_timeout(&info, query)
        };
        for target in ["/api/v1/pods?watch=1", "/api/v1/pods?watch=1&timeoutSeconds=0"] {
            let lasts = timeout(target).unwrap();
            assert!(lasts >= least && lasts < least * 2, "{lasts:?}");
        }
        assert_ne!(timeout("/api/v1/pods?watch=1"), timeout("/api/v1/pods?watch=1"));
        assert_eq!(timeout("/api/v1/pods?watch=1&timeoutSeconds=5"), None);
        assert_eq!(timeout("/api/v1/pods"), None);
        assert_eq!(timeout("/api/v1/namespaces/a/pods/x/log?follow=1"), None);
    }

    #[test]
    fn goaways_are_as_frequent_as_configured() {
        let with = |goaway_chance| filters(FilterSettings { goaway_chance, ..Default::default() });
        let never = with(0.0);
        assert!(!(0..1000).any(|_| never.goaway()));
        let always = with(1.0);
        assert!((0..100).all(|_| always.goaway()));
        assert_eq!(always.metrics.goaways.get(), 100);
        let often = with(0.5);
        let count = (0..10_000).filter(|_| often.goaway()).count();
        assert!((4_000..6_000).contains(&count), "{count}");
    }
}
