//! Counters and gauges, and their Prometheus text.
//!
//! Names that kube-apiserver has are kept (`apiserver_audit_*`); the rest begins with
//! `kube_audit_proxy_`. Everything is a plain atomic: nothing here locks or allocates per request.

mod sink;
mod tokens;

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::sink::SinkMetrics;
pub use self::tokens::TokenMetrics;

use crate::policy::Level;
use crate::server::http::RefusedRequest;
use crate::upstream::access::Access;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the number.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A file that is read again while running; the label of the reload counters.
#[derive(Debug, Clone, Copy)]
pub enum Reloaded {
    /// `--audit-policy-file`
    Policy,
    /// `--tls-cert-file`, `--tls-private-key-file`
    ServingCertificate,
    /// `--client-ca-file`
    ClientCa,
    /// `--requestheader-client-ca-file`
    FrontProxyCa,
    /// `--service-account-key-file`
    ServiceAccountKeys,
    /// `--authentication-config`
    AuthenticationConfig,
    /// `--kubeconfig`
    Kubeconfig,
    /// `--audit-webhook-config-file`
    AuditWebhookConfig,
    /// `--authentication-token-webhook-config-file`
    TokenWebhookConfig,
}

impl Reloaded {
    const ALL: [(Reloaded, &'static str); 9] = [
        (Reloaded::Policy, "policy"),
        (Reloaded::ServingCertificate, "serving_certificate"),
        (Reloaded::ClientCa, "client_ca"),
        (Reloaded::FrontProxyCa, "requestheader_client_ca"),
        (Reloaded::ServiceAccountKeys, "service_account_keys"),
        (Reloaded::AuthenticationConfig, "authentication_config"),
        (Reloaded::Kubeconfig, "kubeconfig"),
        (Reloaded::AuditWebhookConfig, "audit_webhook_config"),
        (Reloaded::TokenWebhookConfig, "token_webhook_config"),
    ];
}

/// Where an audit event was lost; kube-apiserver's `plugin` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The log file could not be written.
    Log,
    /// The batch queue was full.
    Buffered,
    /// The event was too large for `--audit-webhook-truncate-max-event-size`.
    Truncate,
    /// The webhook did not take it.
    Webhook,
}

impl Plugin {
    const ALL: [(Plugin, &'static str); 4] = [
        (Plugin::Buffered, "buffered"),
        (Plugin::Log, "log"),
        (Plugin::Truncate, "truncate"),
        (Plugin::Webhook, "webhook"),
    ];

    /// kube-apiserver's name.
    pub fn as_str(self) -> &'static str {
        let named = Plugin::ALL.into_iter().find(|(plugin, _)| *plugin == self);
        named.map_or("", |(_, name)| name)
    }
}

const VERBS: [&str; 12] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
    "head",
    "post",
    "other",
];
const CODES: usize = 500;
/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    /// Events handed to sinks, each counted once, where there are several sinks. Where there is one,
    /// it counts them itself.
    pub events: Counter,
    sinks: Mutex<Vec<Arc<SinkMetrics>>>,
    levels: [Counter; 4],
    /// Requests refused because their record could not be written (`blocking-strict`).
    pub requests_rejected: Counter,
    requests: Vec<Counter>,
    latency: [Counter; BUCKETS.len()],
    latency_sum_micros: Counter,
    latency_count: Counter,
    /// Ordinary requests under way.
    pub in_flight: Gauge,
    /// Watches, followed logs, upgrades and other long-running requests under way.
    pub long_running: Gauge,
    /// Connections from clients.
    pub client_connections: Gauge,
    /// Connections refused because of `--max-connections`.
    pub connections_refused: Counter,
    /// Connections that did not begin with a valid PROXY header, though they had to.
    pub proxy_protocol_errors: Counter,
    /// TLS handshakes that clients failed.
    pub tls_handshake_errors: Counter,
    refused_requests: [Counter; RefusedRequest::ALL.len()],
    /// Connections to the API server.
    pub upstream_connections: Gauge,
    /// Requests that the API server could not be asked.
    pub upstream_errors: Counter,
    access_denied: [Counter; Access::ALL.len()],
    reload_success: [Counter; Reloaded::ALL.len()],
    reload_failure: [Counter; Reloaded::ALL.len()],
    /// When the authentication configuration was last read again in vain, and with success; in
    /// seconds since 1970.
    authentication_config_reloads: [Gauge; 2],
    /// Names and groups of tokens that begin with `system:` and were not taken for that.
    pub reserved_names: Counter,
    /// Bodies of which only a part is in the log.
    pub bodies_cut: Counter,
    /// Bodies that are in the log as a string, since no JSON could be made of them.
    pub bodies_unreadable: Counter,
    /// Created objects whose name is another one than was read from the request's body.
    pub name_mismatches: Counter,
    /// Requests refused because the meaning of their body is ambiguous.
    pub ambiguous_bodies_rejected: Counter,
    /// Bearer tokens.
    pub tokens: TokenMetrics,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            events: Counter::default(),
            sinks: Mutex::default(),
            levels: Default::default(),
            requests_rejected: Counter::default(),
            requests: (0..VERBS.len() * CODES).map(|_| Counter::default()).collect(),
            latency: Default::default(),
            latency_sum_micros: Counter::default(),
            latency_count: Counter::default(),
            in_flight: Gauge::default(),
            long_running: Gauge::default(),
            client_connections: Gauge::default(),
            connections_refused: Counter::default(),
            proxy_protocol_errors: Counter::default(),
            tls_handshake_errors: Counter::default(),
            refused_requests: Default::default(),
            upstream_connections: Gauge::default(),
            upstream_errors: Counter::default(),
            access_denied: Default::default(),
            reload_success: Default::default(),
            reload_failure: Default::default(),
            authentication_config_reloads: Default::default(),
            reserved_names: Counter::default(),
            bodies_cut: Counter::default(),
            bodies_unreadable: Counter::default(),
            name_mismatches: Counter::default(),
            ambiguous_bodies_rejected: Counter::default(),
            tokens: TokenMetrics::default(),
        }
    }
}

impl Metrics {
    /// A policy was evaluated to `level`.
    pub fn policy_evaluated(&self, level: Level) {
        self.levels[level as usize].increment();
    }

    /// Makes the numbers of a sink, which are shown from now on.
    pub fn sink(&self, name: &str) -> Arc<SinkMetrics> {
        let sink = Arc::new(SinkMetrics::named(name));
        self.sinks().push(sink.clone());
        sink
    }

    fn sinks(&self) -> MutexGuard<'_, Vec<Arc<SinkMetrics>>> {
        self.sinks.lock().expect("nothing panics while it holds the sinks")
    }

    /// Counts responses of the API server that deny the proxy's own access.
    pub fn access_denied(&self, access: Access) -> &Counter {
        &self.access_denied[access as usize]
    }

    /// Counts a request that the HTTP library refused.
    pub fn request_refused(&self, reason: RefusedRequest) {
        self.refused_requests[reason as usize].increment();
    }

    /// A file was read again, with or without success.
    pub fn reloaded(&self, what: Reloaded, success: bool) {
        let counters = if success { &self.reload_success } else { &self.reload_failure };
        counters[what as usize].increment();
        if let Reloaded::AuthenticationConfig = what {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.authentication_config_reloads[usize::from(success)].set(now.as_secs() as i64);
        }
    }

    /// A request was answered. `took` is left out for long-running ones.
    pub fn request_done(&self, verb: &str, code: u16, took: Option<Duration>) {
        let verb = VERBS.iter().position(|v| *v == verb).unwrap_or(VERBS.len() - 1);
        let code = usize::from(code).clamp(100, 599) - 100;
        self.requests[verb * CODES + code].increment();
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
                self.latency[bucket].increment();
            }
            self.latency_sum_micros.add(took.as_micros() as u64);
            self.latency_count.increment();
        }
    }

    /// The Prometheus text exposition (version 0.0.4).
    pub fn render(&self) -> String {
        let mut text = Text(String::with_capacity(8 << 10));
        let sinks = self.sinks();
        let name = "apiserver_audit_event_total";
        text.head(name, "counter", "Audit events handed to the sinks, one per stage.");
        let events = match sinks.as_slice() {
            [sink] => &sink.events,
            _ => &self.events,
        };
        text.sample(name, &[], events);
        text.head("apiserver_audit_level_total", "counter", "Policy evaluations, by level.");
        for level in Level::ALL {
            let counter = &self.levels[level as usize];
            text.sample("apiserver_audit_level_total", &[("level", level.as_str())], counter);
        }
        text.head("apiserver_audit_error_total", "counter", "Audit events lost, by where.");
        for (plugin, name) in Plugin::ALL {
            let lost: u64 = sinks.iter().map(|sink| sink.lost(plugin)).sum();
            text.line("apiserver_audit_error_total", &[("plugin", name)], &lost);
        }
        text.counter(
            "apiserver_audit_requests_rejected_total",
            "Requests refused because their audit event could not be stored.",
            &self.requests_rejected,
        );
        self.render_requests(&mut text);
        text.gauge("kube_audit_proxy_requests_in_flight", "Ordinary requests.", &self.in_flight);
        text.gauge(
            "kube_audit_proxy_long_running_requests",
            "Watches, followed logs and upgraded connections.",
            &self.long_running,
        );
        text.gauge(
            "kube_audit_proxy_client_connections",
            "Connections from clients.",
            &self.client_connections,
        );
        text.counter(
            "kube_audit_proxy_connections_refused_total",
            "Client connections refused because --max-connections were open.",
            &self.connections_refused,
        );
        text.counter(
            "kube_audit_proxy_proxy_protocol_errors_total",
            "Client connections closed because of a missing or invalid PROXY header.",
            &self.proxy_protocol_errors,
        );
        text.counter(
            "kube_audit_proxy_tls_handshake_errors_total",
            "TLS handshakes that clients failed.",
            &self.tls_handshake_errors,
        );
        let name = "kube_audit_proxy_refused_requests_total";
        text.head(name, "counter", "Requests that could not be parsed, without an audit event.");
        for (reason, label) in RefusedRequest::ALL {
            text.sample(name, &[("reason", label)], &self.refused_requests[reason as usize]);
        }
        text.gauge(
            "kube_audit_proxy_upstream_connections",
            "Connections to the API server.",
            &self.upstream_connections,
        );
        text.counter(
            "kube_audit_proxy_upstream_errors_total",
            "Requests that the API server could not be asked.",
            &self.upstream_errors,
        );
        let name = "kube_audit_proxy_upstream_access_denied_total";
        text.head(name, "counter", "Responses that denied the proxy's own access (401, 403).");
        for (access, label) in Access::ALL {
            text.sample(name, &[("access", label)], self.access_denied(access));
        }
        let name = "kube_audit_proxy_reloads_total";
        text.head(name, "counter", "Files read again while running, by file and result.");
        for (what, file) in Reloaded::ALL {
            let index = what as usize;
            let labels = [("file", file), ("result", "success")];
            text.sample(name, &labels, &self.reload_success[index]);
            let labels = [("file", file), ("result", "failure")];
            text.sample(name, &labels, &self.reload_failure[index]);
        }
        self.render_authentication(&mut text);
        text.counter(
            "kube_audit_proxy_bodies_cut_total",
            "Bodies of which only a part is in the audit log.",
            &self.bodies_cut,
        );
        text.counter(
            "kube_audit_proxy_bodies_unreadable_total",
            "Bodies that could not be made JSON; the event's annotations say why.",
            &self.bodies_unreadable,
        );
        text.counter(
            "kube_audit_proxy_object_name_mismatches_total",
            "Created objects with another name than was read from the request body.",
            &self.name_mismatches,
        );
        text.counter(
            "kube_audit_proxy_ambiguous_bodies_rejected_total",
            "Requests refused because their body is ambiguous (--audit-ambiguous-bodies=reject).",
            &self.ambiguous_bodies_rejected,
        );
        sink::render(&sinks, &mut text);
        self.tokens.render(&mut text);
        text.0
    }

    fn render_authentication(&self, text: &mut Text) {
        let what = Reloaded::AuthenticationConfig as usize;
        let name = "apiserver_authentication_config_controller_automatic_reloads_total";
        text.head(name, "counter", "Reloads of the authentication configuration, by status.");
        text.sample(name, &[("status", "failure")], &self.reload_failure[what]);
        text.sample(name, &[("status", "success")], &self.reload_success[what]);
        let name =
            "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds";
        text.head(name, "gauge", "When the authentication configuration was last reloaded.");
        for (status, time) in ["failure", "success"].iter().zip(&self.authentication_config_reloads)
        {
            if time.value() > 0 {
                let _ = writeln!(text.0, "{name}{{status=\"{status}\"}} {}", time.value());
            }
        }
        text.counter(
            "kube_audit_proxy_reserved_names_total",
            "Names and groups of tokens not taken since they begin with system:.",
            &self.reserved_names,
        );
    }

    fn render_requests(&self, text: &mut Text) {
        let name = "kube_audit_proxy_requests_total";
        text.head(name, "counter", "Requests answered, by verb and HTTP status code.");
        for (index, counter) in self.requests.iter().enumerate().filter(|(_, c)| c.value() > 0) {
            let code = (index % CODES + 100).to_string();
            text.sample(name, &[("verb", VERBS[index / CODES]), ("code", &code)], counter);
        }
        let name = "kube_audit_proxy_request_duration_seconds";
        text.head(name, "histogram", "Time to the end of the answer; long-running ones left out.");
        let mut below = 0;
        for (bound, counter) in BUCKETS.iter().zip(&self.latency) {
            below += counter.value();
            let _ = writeln!(text.0, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        let count = self.latency_count.value();
        let sum = self.latency_sum_micros.value() as f64 / 1e6;
        let _ = writeln!(text.0, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text.0, "{name}_sum {sum}\n{name}_count {count}");
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, "counter", help);
        self.sample(name, &[], counter);
    }

    fn gauge(&mut self, name: &str, help: &str, gauge: &Gauge) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.0, "{name} {}", gauge.value());
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], counter: &Counter) {
        self.line(name, labels, &counter.value());
    }

    fn gauge_sample(&mut self, name: &str, labels: &[(&str, &str)], gauge: &Gauge) {
        self.line(name, labels, &gauge.value());
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: &dyn Display) {
        let _ = write!(self.0, "{name}");
        for (index, (key, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{key}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_each_series() {
        let metrics = Metrics::default();
        metrics.policy_evaluated(Level::Metadata);
        metrics.request_done("get", 200, Some(Duration::from_millis(3)));
        metrics.request_done("frob", 405, None);
        let (log, siem) = (metrics.sink("log"), metrics.sink("siem"));
        log.events_lost(Plugin::Log, 2);
        siem.events_lost(Plugin::Log, 1);
        siem.webhook_spool.set(7);
        // One event for both.
        for events in [&metrics.events, &log.events, &siem.events] {
            events.increment();
        }
        metrics.reloaded(Reloaded::Policy, false);
        let text = metrics.render();
        for line in [
            "apiserver_audit_level_total{level=\"Metadata\"} 1",
            "apiserver_audit_error_total{plugin=\"log\"} 3",
            "kube_audit_proxy_sink_errors_total{sink=\"siem\",plugin=\"log\"} 1",
            "kube_audit_proxy_sink_events_total{sink=\"log\"} 1",
            "kube_audit_proxy_webhook_spool_bytes{sink=\"siem\"} 7",
            "kube_audit_proxy_requests_total{verb=\"get\",code=\"200\"} 1",
            "kube_audit_proxy_requests_total{verb=\"other\",code=\"405\"} 1",
            "kube_audit_proxy_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "kube_audit_proxy_request_duration_seconds_bucket{le=\"0.0025\"} 0",
            "kube_audit_proxy_reloads_total{file=\"policy\",result=\"failure\"} 1",
            "apiserver_audit_event_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
