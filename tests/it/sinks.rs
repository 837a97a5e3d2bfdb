//! Several sinks, each with its own policy.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::audit_log::{AuditLog, Event};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, audit_log, client, http1, wait_for};
use crate::webhook::{Taken, receiver_of, taker};

const METADATA: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";
/// No event at the beginning of a request shows whether events can be written.
const LATE: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

async fn echo() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |request| async move {
        let body = request.into_body().collect().await?.to_bytes();
        json(200, if body.is_empty() { "{\"items\":[]}".into() } else { body })
    })
    .await
}

/// Returns a proxy whose directory contains these additional files.
fn builder(upstream: &FakeUpstream, sinks: &str, files: &[(&str, &str)]) -> Builder {
    let builder = Builder::new(upstream.addr);
    for (name, text) in files {
        builder.dir().write(name, text);
    }
    builder.sinks(sinks)
}

/// Returns the status of a GET; `None` if the response was aborted.
async fn get(proxy: &Proxy, id: &str) -> Option<u16> {
    let line = format!("Audit-ID: {id}");
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await;
    answer.ok().map(|answer| answer.head.status)
}

async fn send(proxy: &Proxy, method: &str, target: &str, id: &str, body: &str) {
    let lines = [&*format!("Audit-ID: {id}"), "Content-Type: application/json"];
    let request = http1::request(method, target, &lines, body.as_bytes());
    let answer = http1::exchange(proxy.addr, Some("admin"), &request).await.unwrap();
    assert_eq!(answer.head.status, 200, "{id}");
}

/// Returns level and stage of all events of a request.
fn stages(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", event.level(), event.stage())).collect()
}

fn items(taken: &Taken, id: &str) -> Vec<Value> {
    let taken = taken.lock().unwrap();
    let items = taken.iter().flat_map(|list| list["items"].as_array().unwrap());
    items.filter(|item| item["auditID"] == id).cloned().collect()
}

async fn metric_is(proxy: &Proxy, name: &str, wanted: impl Fn(u64) -> bool) {
    let started = Instant::now();
    while !wanted(proxy.metric(name).await) {
        assert!(started.elapsed() < Duration::from_secs(20), "{name} is not as awaited");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn three_sinks_each_receive_the_events_of_their_own_policy() {
    let (upstream, taken) = (echo().await, Taken::default());
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let bodies = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, nonResourceURLs: [/version]}
- {level: RequestResponse}
";
    let requests = "\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: Request, resources: [{resources: [secrets, configmaps]}]}
";
    let sinks = "
- {name: full, type: file, path: DIR/full.log, policy-file: DIR/full.yaml, redact: none}
- {name: meta, type: file, path: DIR/meta.log, policy-file: DIR/meta.yaml, mode: batch}
- {name: text, type: file, path: DIR/text.log, policy-file: DIR/meta.yaml, format: legacy}
- {name: siem, type: webhook, config-file: DIR/siem.conf, policy-file: DIR/siem.yaml}
";
    let conf = receiver_of(receiver.addr);
    let files = [
        ("full.yaml", bodies),
        ("meta.yaml", METADATA),
        ("siem.yaml", requests),
        ("siem.conf", &conf),
    ];
    let mut proxy = builder(&upstream, sinks, &files).start().await;
    let secret = r#"{"kind":"Secret","metadata":{"name":"s","managedFields":[{"manager":"m"}]},"data":{"p":"aHVudGVyMg=="}}"#;
    let map = r#"{"kind":"ConfigMap","metadata":{"name":"c"},"data":{"p":"plain"}}"#;
    send(&proxy, "POST", "/api/v1/namespaces/a/secrets", "secret", secret).await;
    send(&proxy, "PUT", "/api/v1/namespaces/a/configmaps/c", "map", map).await;
    send(&proxy, "GET", "/api/v1/pods", "pods", "").await;
    send(&proxy, "GET", "/version", "version", "").await;
    assert_eq!(proxy.metric("apiserver_audit_event_total").await, 8);
    assert_eq!(proxy.metric("apiserver_audit_level_total{level=\"RequestResponse\"}").await, 3);
    assert_eq!(proxy.metric("apiserver_audit_level_total{level=\"Metadata\"}").await, 1);
    for (sink, events) in [("full", 3), ("meta", 8), ("text", 8), ("siem", 4)] {
        let name = format!("kube_audit_proxy_backend_events_total{{backend=\"{sink}\"}}");
        assert_eq!(proxy.metric(&name).await, events, "{sink}");
    }
    let (_, ready) = client::admin(proxy.admin, "/readyz?verbose").await.unwrap();
    for sink in ["full", "meta", "text", "siem"] {
        assert!(ready.contains(&format!("[+]audit-{sink} ok")), "{ready}");
    }
    assert!(proxy.stop().await.success());

    let mut full = AuditLog::new(&proxy.dir.path("full.log"));
    let mut meta = AuditLog::new(&proxy.dir.path("meta.log"));
    for id in ["secret", "map", "pods"] {
        assert_eq!(stages(&full.of(id)), ["RequestResponse ResponseComplete"], "{id}");
        let both = ["Metadata RequestReceived", "Metadata ResponseComplete"];
        assert_eq!(stages(&meta.of(id)), both, "{id}");
        assert!(meta.of(id).iter().all(|e| !e.line.contains("Object\":")), "no body at Metadata");
    }
    assert!(full.of("version").is_empty() && meta.of("version").len() == 2);
    // Each has what the other omits.
    let whole = &full.of("secret")[0];
    assert_eq!(whole.text("/requestObject/data/p"), "aHVudGVyMg==");
    assert_eq!(whole.text("/responseObject/data/p"), "aHVudGVyMg==");
    assert_eq!(whole.at("/requestObject/metadata/managedFields"), None);
    let redacted = &items(&taken, "secret")[1];
    assert_eq!(redacted["level"], "Request");
    assert_eq!(redacted["requestObject"]["data"]["p"], "REDACTED(12 bytes)", "{redacted}");
    assert!(redacted["requestObject"]["metadata"]["managedFields"].is_array());
    assert_eq!(redacted.get("responseObject"), None);
    assert_eq!(items(&taken, "map")[1]["requestObject"]["data"]["p"], "plain");
    assert!(items(&taken, "pods").is_empty() && items(&taken, "version").is_empty());
    // Names that occur only in the body are in the events of all sinks.
    for event in [&whole.value, &meta.of("secret")[1].value, redacted] {
        assert_eq!(event["objectRef"]["name"], "s");
    }
    let text = audit_log::lines(&proxy.dir.path("text.log"));
    assert_eq!(text.iter().filter(|line| line.contains(" AUDIT: id=")).count(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_and_a_receiver_that_hangs_delay_nothing() {
    const REQUESTS: usize = 1_000;
    let upstream = echo().await;
    let receiver = FakeUpstream::start(Protocols::Http1, |_| std::future::pending()).await;
    let sinks = "
- {name: log, type: file, path: DIR/audit.log, policy-file: DIR/meta.yaml, mode: blocking-strict}
- {name: pipe, type: file, path: DIR/pipe, policy-file: DIR/meta.yaml, mode: batch, batch-buffer-size: 100}
- {name: siem, type: webhook, config-file: DIR/siem.conf, policy-file: DIR/meta.yaml, batch-buffer-size: 100, batch-max-size: 10, batch-throttle-enable: false}
";
    let conf = receiver_of(receiver.addr);
    let builder = builder(&upstream, sinks, &[("meta.yaml", METADATA), ("siem.conf", &conf)]);
    let pipe = builder.dir().path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opened for both, so that the pipe has a reader.
    let reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let proxy = builder.start().await;
    let target = format!("/api/v1/pods?padding={}", "p".repeat(1_000));
    let load = async |name: &'static str| {
        let sender = client::http2::<client::Short>(proxy.addr, Some("alice")).await.unwrap();
        let mut running = tokio::task::JoinSet::new();
        for stream in 0..8 {
            let (mut sender, target) = (sender.clone(), target.clone());
            running.spawn(async move {
                let mut longest = Duration::ZERO;
                for number in (stream..REQUESTS).step_by(8) {
                    let id = format!("{name}-{number}");
                    let asked = Instant::now();
                    let headers = [("audit-id", id.as_str())];
                    let answer = client::h2_get(&mut sender, &target, &headers).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    client::whole(answer).await.unwrap();
                    longest = longest.max(asked.elapsed());
                }
                longest
            });
        }
        running.join_all().await.into_iter().max().unwrap()
    };
    // By then the pipe and the queue are full.
    load("first").await;
    metric_is(
        &proxy,
        "kube_audit_proxy_backend_errors_total{backend=\"pipe\",plugin=\"buffered\"}",
        |n| n > 0,
    )
    .await;
    metric_is(
        &proxy,
        "kube_audit_proxy_backend_errors_total{backend=\"siem\",plugin=\"buffered\"}",
        |n| n > 0,
    )
    .await;
    let before = proxy.process.resident();
    let longest = load("second").await;
    // The webhook's own time limit is 30 s; the pipe has none.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    let grown = proxy.process.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "grown by {grown} bytes while 4 MB of events were lost");
    assert_eq!(
        proxy.metric("kube_audit_proxy_backend_errors_total{backend=\"log\",plugin=\"log\"}").await,
        0
    );
    assert_eq!(audit_log::lines(&proxy.dir.path("audit.log")).len(), 4 * REQUESTS);
    drop(reader);
}

#[tokio::test]
async fn each_policy_is_reloaded_by_itself() {
    let upstream = echo().await;
    let sinks = "
- {name: one, type: file, path: DIR/one.log, policy-file: DIR/one.yaml}
- {name: two, type: file, path: DIR/two.log, policy-file: DIR/two.yaml}
";
    let files = [("one.yaml", METADATA), ("two.yaml", METADATA)];
    let proxy = builder(&upstream, sinks, &files).start().await;
    let mut logs = ["one.log", "two.log"].map(|log| AuditLog::new(&proxy.dir.path(log)));
    let mut seen = async |id: &str| {
        assert_eq!(get(&proxy, id).await, Some(200));
        [stages(&logs[0].of(id)).len(), stages(&logs[1].of(id)).len()]
    };
    let of = |name: &str, sink: &str| format!("kube_audit_proxy_{name}{{backend=\"{sink}\"}}");
    assert_eq!(seen("before").await, [2, 2]);
    proxy.dir.write("two.yaml", LATE);
    metric_is(&proxy, &of("policy_generation", "two"), |generation| generation == 2).await;
    assert_eq!(seen("after").await, [2, 1]);
    assert_eq!(proxy.metric(&of("policy_generation", "one")).await, 1);

    proxy.dir.write("two.yaml", "rules: [");
    metric_is(&proxy, &of("policy_reload_failures_total", "two"), |failures| failures > 0).await;
    proxy.dir.write("one.yaml", &METADATA.replace("Metadata", "None"));
    metric_is(&proxy, &of("policy_generation", "one"), |generation| generation == 2).await;
    assert_eq!(seen("last good").await, [0, 1]);
    assert_eq!(proxy.metric(&of("policy_generation", "two")).await, 2);
    assert_eq!(proxy.metric(&of("policy_reload_failures_total", "one")).await, 0);
}

#[tokio::test]
async fn a_failing_strict_sink_rejects_requests_while_others_continue() {
    let upstream = echo().await;
    for (policy, forwarded) in [(METADATA, 0), (LATE, 1)] {
        let sinks = "
- {name: strict, type: file, path: /dev/full, policy-file: DIR/strict.yaml, mode: blocking-strict}
- {name: lenient, type: file, path: /dev/full, policy-file: DIR/meta.yaml}
- {name: log, type: file, path: DIR/audit.log, policy-file: DIR/meta.yaml}
";
        let sinks = sinks.replacen("path: /dev/full", "path: /dev/../dev/full", 1);
        let files = [("strict.yaml", policy), ("meta.yaml", METADATA)];
        let proxy = builder(&upstream, &sinks, &files).start().await;
        upstream.take_seen();
        for number in 0..5 {
            let code = get(&proxy, &format!("refused-{number}")).await;
            assert_ne!(code, Some(200), "{number}");
        }
        // Without `RequestReceived`, the first request detects the failure, and the proxy may probe
        // /dev/full from time to time.
        let seen = upstream.take_seen().len();
        assert!((forwarded..=forwarded * 2).contains(&seen), "{seen} forwarded");
        let rejected = proxy.metric("apiserver_audit_requests_rejected_total").await;
        assert_eq!(rejected as usize + seen, 5);
        let mut log = AuditLog::new(&proxy.dir.path("audit.log"));
        let received: Vec<usize> =
            (0..5).map(|number| log.of(&format!("refused-{number}")).len()).collect();
        assert!(received.iter().all(|&count| count > 0), "{received:?}");
        let (code, ready) = client::admin(proxy.admin, "/readyz?verbose").await.unwrap();
        assert_eq!(code, 500);
        assert!(ready.contains("[-]audit-strict failed") && ready.contains("[+]audit-log ok"));
    }
}

/// A webhook endpoint that can be stopped.
struct Receiver {
    server: FakeUpstream,
    taken: Taken,
    down: Arc<AtomicBool>,
}

async fn receiver() -> Receiver {
    let (taken, down) = (Taken::default(), Arc::new(AtomicBool::new(false)));
    let (take, is_down) = (taker(&taken), Arc::clone(&down));
    let server = FakeUpstream::start(Protocols::Http1, move |request| {
        let taking = (!is_down.load(Ordering::Relaxed)).then(|| take(request));
        async move {
            match taking {
                Some(taking) => taking.await,
                None => json(503, ""),
            }
        }
    })
    .await;
    Receiver { server, taken, down }
}

fn strict_webhook(upstream: &FakeUpstream, receiver: &Receiver, backoff: &str) -> Builder {
    let sinks = "
- {name: log, type: file, path: DIR/audit.log, policy-file: DIR/meta.yaml}
- {name: siem, type: webhook, config-file: DIR/siem.conf, policy-file: DIR/late.yaml, mode: blocking-strict, initial-backoff: BACKOFF}
";
    let conf = receiver_of(receiver.server.addr);
    let files = [("meta.yaml", METADATA), ("late.yaml", LATE), ("siem.conf", &conf)];
    builder(upstream, &sinks.replace("BACKOFF", backoff), &files)
}

#[tokio::test]
async fn a_strict_webhook_rejects_all_requests_during_an_outage() {
    let (upstream, receiver) = (echo().await, receiver().await);
    let proxy = strict_webhook(&upstream, &receiver, "20ms").start().await;
    assert_eq!(get(&proxy, "before").await, Some(200));
    receiver.down.store(true, Ordering::Relaxed);
    // Its only event is the last one, so the request is forwarded, but its response is aborted.
    assert_ne!(get(&proxy, "unknown").await, Some(200));
    let forwarded = upstream.seen().len();
    assert_eq!(forwarded, 2);
    for number in 0..10 {
        assert_eq!(get(&proxy, &format!("refused-{number}")).await, Some(500));
    }
    assert_eq!(upstream.seen().len(), forwarded);
    assert_eq!(proxy.metric("apiserver_audit_requests_rejected_total").await, 10);
    assert_eq!(proxy.metric("kube_audit_proxy_delivery_healthy{backend=\"siem\"}").await, 0);
    let (code, ready) = client::admin(proxy.admin, "/readyz").await.unwrap();
    assert_eq!(code, 500);
    let expected = "audit-siem failed: the webhook does not accept events: it responded with 503";
    assert!(ready.contains(expected), "{ready}");

    receiver.down.store(false, Ordering::Relaxed);
    metric_is(&proxy, "kube_audit_proxy_delivery_healthy{backend=\"siem\"}", |n| n == 1).await;
    assert_eq!(get(&proxy, "after").await, Some(200));
    assert_eq!(client::admin(proxy.admin, "/readyz").await.unwrap(), (200, "ok".into()));
    for id in ["before", "unknown", "after"] {
        assert_eq!(items(&receiver.taken, id).len(), 1, "{id}");
    }
    assert!(items(&receiver.taken, "refused-0").is_empty());
}

#[tokio::test]
async fn requests_wait_for_a_strict_webhook_whose_state_is_unknown() {
    let (upstream, receiver) = (echo().await, receiver().await);
    let proxy = Arc::new(strict_webhook(&upstream, &receiver, "300ms").start().await);
    receiver.down.store(true, Ordering::Relaxed);
    let ask = |id: &'static str| {
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move { get(&proxy, id).await })
    };
    let tried = |times: usize| {
        let server = &receiver.server;
        wait_for("an attempt", move || (server.seen().len() >= times).then_some(()))
    };
    let first = ask("first");
    metric_is(&proxy, "kube_audit_proxy_delivery_healthy{backend=\"siem\"}", |n| n == 0).await;
    let second = ask("second");
    let mut log = AuditLog::new(Path::new(&proxy.dir.path("audit.log")));
    log.wait("second", 1).await;
    tried(3).await;
    assert_eq!(upstream.seen().len(), 1, "the second waits before it is forwarded");
    receiver.down.store(false, Ordering::Relaxed);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Some(200), Some(200)));
    assert_eq!(proxy.metric("apiserver_audit_requests_rejected_total").await, 0);
    for id in ["first", "second"] {
        assert_eq!(items(&receiver.taken, id).len(), 1, "{id}");
    }
}

#[tokio::test]
async fn events_name_the_proxy_if_configured() {
    let upstream = echo().await;
    for (flag, expected) in [(None, None), (Some("--audit-node-name=cp-1"), Some("cp-1"))] {
        let mut builder = Builder::new(upstream.addr);
        if let Some(flag) = flag {
            builder = builder.flag(flag);
        }
        let proxy = builder.start().await;
        assert_eq!(get(&proxy, "named").await, Some(200));
        for event in proxy.audit_log().of("named") {
            let node = event.at("/annotations/kube-audit-proxy~1node");
            assert_eq!(node.and_then(Value::as_str), expected, "{}", event.line);
        }
    }
}

#[tokio::test]
async fn a_failed_start_names_the_sink_and_its_position() {
    let (upstream, dir) = (echo().await, TempDir::new());
    for (sink, expected) in [
        (
            "{name: a, type: file, path: DIR/, policy-file: DIR/policy.yaml}",
            "config.yaml:2:31: sinks[0]: path: the audit log",
        ),
        ("{name: a, type: file, path: DIR/x.log, policy-file: DIR/none.yaml}", "/none.yaml"),
        (
            "{name: a, type: webhook, config-file: DIR/none, policy-file: DIR/policy.yaml}",
            "sinks[0]: config-file: the webhook's kubeconfig: cannot read",
        ),
    ] {
        let (code, said) = builder(&upstream, &format!("- {sink}\n"), &[]).run_to_end().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(expected) && said.contains("sinks[0]"), "{said}");
        assert!(!said.contains("--audit-"), "{said}");
    }
    drop(dir);
}
