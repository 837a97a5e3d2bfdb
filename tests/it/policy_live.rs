//! A policy while it is active: counts, `/policy`, annotations, reloads, and extensions.

use std::collections::HashMap;

use http_body_util::BodyExt;
use serde_json::{Value as Json, json};

use crate::support::audit_log::{self, Event};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json as answer};
use crate::support::{client, http1};

const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources: [{group: '', resources: [nodes]}]
- level: Metadata
  resources: [{group: '', resources: [pods]}]
";

/// Responds with an object of version 7, or with failures if the path requests them.
async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |request| async move {
        let path = request.uri().path().to_owned();
        request.into_body().collect().await?;
        let status = if path.ends_with("/missing") { 404 } else { 200 };
        answer(status, r#"{"kind":"Pod","metadata":{"name":"p","resourceVersion":"7"}}"#)
    })
    .await
}

async fn send(proxy: &Proxy, method: &str, target: &str, body: &str) {
    let request =
        http1::request(method, target, &["Content-Type: application/json"], body.as_bytes());
    http1::exchange(proxy.addr, Some("alice"), &request).await.unwrap();
}

async fn page(proxy: &Proxy) -> Json {
    let (status, text) = client::admin(proxy.admin, "/policy?output=json").await.unwrap();
    assert_eq!(status, 200);
    serde_json::from_str(&text).unwrap()
}

fn events(proxy: &Proxy) -> Vec<Event> {
    let mut log = proxy.audit_log();
    log.events().to_vec()
}

fn of_rules(page: &Json) -> Vec<(u64, u64)> {
    let rules = page["policies"][0]["rules"].as_array().unwrap().iter();
    rules
        .map(|rule| (rule["requests"].as_u64().unwrap(), rule["bytes"]["log"].as_u64().unwrap()))
        .collect()
}

#[tokio::test]
async fn rules_are_counted_until_the_policy_is_reloaded() {
    let upstream = upstream().await;
    let mut proxy = Builder::new(upstream.addr).policy(POLICY).start().await;
    for target in ["/api/v1/pods", "/api/v1/nodes", "/api/v1/namespaces/a/pods/p", "/version"] {
        send(&proxy, "GET", target, "").await;
    }
    let size = std::fs::metadata(&proxy.log).unwrap().len();
    let shown = page(&proxy).await;
    let policy = &shown["policies"][0];
    assert_eq!(of_rules(&shown), [(1, 0), (2, size)]);
    assert_eq!((&policy["generation"], &policy["unmatched"]["requests"]), (&json!(1), &json!(1)));
    let file = proxy.policy.display().to_string();
    assert_eq!(policy["rules"][1]["position"], format!("{file}:7:3"));
    assert_eq!(policy["rules"][1]["resources"], json!([{"group": "", "resources": ["pods"]}]));
    let (_, text) = client::admin(proxy.admin, "/policy").await.unwrap();
    assert!(text.contains(&format!("{file}, generation 1, backends: log")), "{text}");
    assert!(
        text.lines().any(|line| line.contains("Metadata") && line.trim_start().starts_with("2 ")),
        "{text}"
    );
    let series = |name: &str, rule: &str, level: &str| {
        format!(
            "kube_audit_proxy_policy_rule_{name}_total{{backend=\"log\",rule=\"{rule}\",level=\"{level}\"}}"
        )
    };
    assert_eq!(proxy.metric(&series("requests", "1", "Metadata")).await, 2);
    assert_eq!(proxy.metric(&series("bytes", "1", "Metadata")).await, size);
    assert_eq!(proxy.metric(&series("requests", "0", "None")).await, 1);
    assert_eq!(proxy.metric(&series("requests", "none", "None")).await, 1);

    let changed =
        POLICY.replace("level: Metadata", "level: Request").replace("[nodes]", "[nodes, events]")
            + "- level: Metadata\n  users: [x]\n";
    proxy.dir.write("new.yaml", &changed);
    std::fs::rename(proxy.dir.path("new.yaml"), &proxy.policy).unwrap();
    proxy.process.signal("HUP");
    let logged = proxy.process.logs("audit policy reloaded").await;
    let line = logged.lines().find(|line| line.contains("audit policy reloaded")).unwrap();
    for expected in [
        "rules_added=\"2 Metadata at 9:3\"",
        "rules_removed=\"\"",
        "rules_changed=\"0 None at 5:3, 1 Metadata -> Request at 7:3\"",
        "settings_changed=false",
    ] {
        assert!(line.contains(expected), "{expected}: {line}");
    }
    let shown = page(&proxy).await;
    assert_eq!(of_rules(&shown), [(0, 0), (0, 0), (0, 0)]);
    assert_eq!(shown["policies"][0]["generation"], 2);
    send(&proxy, "GET", "/api/v1/pods", "").await;
    assert_eq!(of_rules(&page(&proxy).await)[1].0, 1);
    assert_eq!(proxy.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_policy_that_records_nothing_causes_a_warning() {
    let upstream = upstream().await;
    let nothing =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}, {level: Metadata}]\n";
    let mut proxy = Builder::new(upstream.addr).policy(POLICY).start().await;
    assert!(!proxy.process.stderr().contains("records nothing"));
    proxy.dir.write("new.yaml", nothing);
    std::fs::rename(proxy.dir.path("new.yaml"), &proxy.policy).unwrap();
    proxy.process.signal("HUP");
    proxy.process.logs("this audit policy records nothing").await;
    assert_eq!(proxy.stop().await.code(), Some(0));
}

#[tokio::test]
async fn events_name_the_rule_on_request() {
    let upstream = upstream().await;
    let builder = Builder::new(upstream.addr).policy(POLICY).flag("--audit-annotate-rule");
    let mut proxy = builder.start().await;
    send(&proxy, "GET", "/api/v1/pods", "").await;
    assert_eq!(proxy.stop().await.code(), Some(0));
    let file = proxy.policy.file_name().unwrap().to_string_lossy().into_owned();
    let events = events(&proxy);
    assert_eq!(events.len(), 1);
    let annotation = events[0].at("/annotations/kube-audit-proxy~1policy-rule").unwrap();
    assert_eq!(*annotation, format!("1 {file}:7:3"));
}

const EXTENDED: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
---
apiVersion: audit.kube-audit-proxy.io/v1alpha1
kind: PolicyExtension
rules:
- name: no-ops
  unchanged: true
  action: Drop
- name: few
  resources: [{group: '', resources: [pods]}]
  action: RateLimit
  limit: 2
  window: 1h
- name: nodes
  resources: [{group: '', resources: [nodes]}]
  action: Drop
";

fn seen(proxy: &Proxy) -> HashMap<String, usize> {
    let mut seen = HashMap::new();
    for event in events(proxy) {
        *seen
            .entry(format!("{} {}", event.text("/verb"), event.text("/requestURI")))
            .or_default() += 1;
    }
    seen
}

#[tokio::test]
async fn an_extension_drops_by_response_and_counts_what_it_drops() {
    let upstream = upstream().await;
    let builder = Builder::new(upstream.addr).policy(EXTENDED);
    let mut proxy = builder.flag("--audit-log-mode=blocking-strict").start().await;
    for _ in 0..5 {
        send(&proxy, "GET", "/api/v1/namespaces/a/pods/p", "").await;
    }
    send(&proxy, "GET", "/api/v1/nodes/n", "").await;
    send(&proxy, "GET", "/api/v1/nodes/missing", "").await;
    send(&proxy, "DELETE", "/api/v1/nodes/n", "").await;
    let pod =
        |version: &str| format!(r#"{{"metadata":{{"name":"p","resourceVersion":"{version}"}}}}"#);
    send(&proxy, "PUT", "/api/v1/namespaces/a/pods/unchanged", &pod("7")).await;
    send(&proxy, "PUT", "/api/v1/namespaces/a/pods/changed", &pod("6")).await;
    send(&proxy, "PUT", "/api/v1/namespaces/a/pods/unknown", r#"{"metadata":{"name":"p"}}"#).await;
    let shown = page(&proxy).await;
    let extension = shown["policies"][0]["extension"].as_array().unwrap();
    let dropped: Vec<_> =
        extension.iter().map(|rule| (&rule["name"], &rule["dropped"]["log"])).collect();
    assert_eq!(
        dropped,
        [(&json!("no-ops"), &json!(1)), (&json!("few"), &json!(3)), (&json!("nodes"), &json!(1))]
    );
    let metric = "kube_audit_proxy_policy_dropped_events_total{backend=\"log\",rule=\"few\",action=\"rate_limit\"}";
    assert_eq!(proxy.metric(metric).await, 3);
    assert_eq!(proxy.stop().await.code(), Some(0));
    let seen = seen(&proxy);
    assert_eq!(seen.get("get /api/v1/namespaces/a/pods/p"), Some(&2));
    assert_eq!(seen.get("get /api/v1/nodes/n"), None);
    assert_eq!(seen.get("get /api/v1/nodes/missing"), Some(&1));
    assert_eq!(seen.get("delete /api/v1/nodes/n"), Some(&1));
    assert_eq!(seen.get("update /api/v1/namespaces/a/pods/unchanged"), None);
    assert_eq!(seen.get("update /api/v1/namespaces/a/pods/changed"), Some(&1));
    assert_eq!(seen.get("update /api/v1/namespaces/a/pods/unknown"), Some(&1));
    // The window has not ended at the end of the test.
    let events = events(&proxy);
    let summary = events.iter().find(|event| event.text("/requestURI") == "/").unwrap();
    assert_eq!((summary.text("/user/username"), summary.text("/verb")), ("alice", "get"));
    assert_eq!(summary.at("/annotations/kube-audit-proxy~1suppressed-events").unwrap(), "3");
    let rule = summary.text("/annotations/kube-audit-proxy~1suppressed-by");
    assert!(rule.starts_with("few ") && rule.ends_with(":13:3"), "{rule}");
    assert_eq!(events.len(), seen.values().sum::<usize>());
    audit_log::lines(&proxy.log)
        .iter()
        .for_each(|line| assert!(serde_json::from_str::<Json>(line).is_ok()));
}

#[tokio::test]
async fn a_request_with_an_earlier_event_is_never_dropped() {
    let upstream = upstream().await;
    let policy = EXTENDED.replace("omitStages: [RequestReceived]\n", "");
    let mut proxy = Builder::new(upstream.addr).policy(&policy).start().await;
    let logged = proxy.process.stderr();
    assert!(
        logged.contains("the PolicyExtension has no effect on requests that this rule matches"),
        "{logged}"
    );
    for _ in 0..4 {
        send(&proxy, "GET", "/api/v1/namespaces/a/pods/p", "").await;
    }
    assert_eq!(proxy.stop().await.code(), Some(0));
    assert_eq!(seen(&proxy), HashMap::from([("get /api/v1/namespaces/a/pods/p".to_owned(), 8)]));
}

#[tokio::test]
async fn a_sample_carries_its_rate() {
    let upstream = upstream().await;
    let policy = EXTENDED.split("- name: no-ops").next().unwrap().to_owned()
        + "- action: Sample\n  rate: 0.5\n";
    let mut proxy = Builder::new(upstream.addr).policy(&policy).start().await;
    for _ in 0..60 {
        send(&proxy, "GET", "/api/v1/pods", "").await;
    }
    send(&proxy, "POST", "/api/v1/namespaces/a/pods", "{}").await;
    let dropped =
        page(&proxy).await["policies"][0]["extension"][0]["dropped"]["log"].as_u64().unwrap();
    assert_eq!(proxy.stop().await.code(), Some(0));
    let events = events(&proxy);
    let sampled = events.iter().filter(|event| {
        event.at("/annotations/kube-audit-proxy~1sampled").is_some_and(|rate| rate == "0.5")
    });
    let sampled = sampled.count() as u64;
    assert_eq!((sampled + dropped, events.len() as u64), (60, sampled + 1));
    assert!((10..50).contains(&sampled), "{sampled}");
}

#[tokio::test]
async fn an_invalid_extension_is_refused_and_the_active_policy_stays() {
    let upstream = upstream().await;
    let bad = EXTENDED.replace("action: RateLimit", "action: Ratelimit");
    let (code, stderr) = Builder::new(upstream.addr).policy(&bad).run_to_end().await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(":13:3: rules[1]: limit is only for \"action: RateLimit\""),
        "{stderr}"
    );
    let mut proxy = Builder::new(upstream.addr).policy(EXTENDED).start().await;
    proxy.dir.write("new.yaml", &bad);
    std::fs::rename(proxy.dir.path("new.yaml"), &proxy.policy).unwrap();
    proxy.process.signal("HUP");
    proxy.process.logs("audit policy not reloaded").await;
    assert_eq!(page(&proxy).await["policies"][0]["generation"], 1);
    assert_eq!(proxy.stop().await.code(), Some(0));
}
