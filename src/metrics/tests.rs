use std::time::Duration;

use super::*;
use crate::file_watch::Reloaded;
use crate::policy::Level;
use audit_log::Plugin;

fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} is not in\n{text}");
    }
}

#[test]
fn each_series_is_rendered() {
    let metrics = Metrics::new(["log", "siem"]);
    metrics.audit.policy_evaluated(Level::Metadata);
    metrics.audit.requests.done("get", 200, Some(Duration::from_millis(3)));
    metrics.audit.requests.done("get", 200, Some(Duration::from_secs(100)));
    metrics.audit.requests.done("frob", 405, None);
    let (log, siem) = (metrics.backends[0].clone(), metrics.backends[1].clone());
    log.events_lost(Plugin::Log, 2);
    siem.events_lost(Plugin::Log, 1);
    metrics.delivery(siem.clone()).spool_bytes.set(7);
    // One event for both.
    for events in [&metrics.audit.events, &log.events, &siem.events] {
        events.inc();
    }
    metrics.reloads.reloaded(Reloaded::Policy, false);
    let text = metrics.render(Exposition::PrometheusText).unwrap();
    has_lines(
        &text,
        &[
            "# HELP apiserver_audit_level_total Policy evaluations, by audit level.",
            "# TYPE apiserver_audit_level_total counter",
            "apiserver_audit_level_total{level=\"Metadata\"} 1",
            "apiserver_audit_error_total{plugin=\"log\"} 3",
            "apiserver_audit_error_total{plugin=\"webhook\"} 0",
            "kube_audit_proxy_backend_errors_total{backend=\"siem\",plugin=\"log\"} 1",
            "kube_audit_proxy_backend_events_total{backend=\"log\"} 1",
            "kube_audit_proxy_spool_bytes{backend=\"siem\"} 7",
            "kube_audit_proxy_delivery_healthy{backend=\"siem\"} 1",
            "kube_audit_proxy_requests_total{verb=\"get\",code=\"200\"} 2",
            "kube_audit_proxy_requests_total{verb=\"other\",code=\"405\"} 1",
            "kube_audit_proxy_request_duration_seconds_bucket{le=\"0.0025\"} 0",
            "kube_audit_proxy_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "kube_audit_proxy_request_duration_seconds_bucket{le=\"60\"} 1",
            "kube_audit_proxy_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "kube_audit_proxy_request_duration_seconds_sum 100.003",
            "kube_audit_proxy_request_duration_seconds_count 2",
            "kube_audit_proxy_reloads_total{file=\"policy\",result=\"failure\"} 1",
            "apiserver_audit_event_total 1",
        ],
    );
    assert!(
        !text.contains("kube_audit_proxy_spool_bytes{backend=\"log\"}"),
        "a log has no spool:\n{text}"
    );
}

#[test]
fn events_of_a_single_backend_are_counted_once() {
    let metrics = Metrics::new(["log"]);
    metrics.backends[0].events.inc();
    let text = metrics.render(Exposition::PrometheusText).unwrap();
    has_lines(&text, &["apiserver_audit_event_total 1"]);
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new(["a\"b\\c\nd"]);
    for exposition in [Exposition::PrometheusText, Exposition::OpenMetrics] {
        let text = metrics.render(exposition).unwrap();
        has_lines(&text, &[r#"kube_audit_proxy_backend_events_total{backend="a\"b\\c\nd"} 0"#]);
    }
}

#[test]
fn open_metrics_names_families_without_suffix_and_ends() {
    let metrics = Metrics::new(["log"]);
    let text = metrics.render(Exposition::OpenMetrics).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("kube_audit_proxy_build_info{{version=\"{version}\",");
    assert!(text.contains(&build), "{text}");
    has_lines(
        &text,
        &[
            "# TYPE apiserver_audit_event counter",
            "apiserver_audit_event_total 0",
            "# TYPE kube_audit_proxy_build info",
            "# UNIT kube_audit_proxy_request_duration_seconds seconds",
            "kube_audit_proxy_request_duration_seconds_bucket{le=\"1.0\"} 0",
        ],
    );
    assert!(text.ends_with("\n# EOF\n"), "{text}");
}
