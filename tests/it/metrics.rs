//! `/metrics` after some traffic: valid in both formats, accepted by promtool, and consistent with
//! docs/metrics.md.

mod exposition;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::exposition::{Family, Format, parse};
use crate::support::proxy::{BINARY, Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, http1, wait_for};
use crate::webhook::{Taken, receiver_of, taker};

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Request}]\n---\n\
    apiVersion: audit.kube-audit-proxy.io/v1alpha1\nkind: PolicyExtension\nrules: [{action: Keep}]\n";
const AUTHENTICATION: &str =
    "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A proxy with every feature that has metrics, after requests of several kinds.
struct Busy {
    proxy: Proxy,
    _servers: [FakeUpstream; 3],
    _dir: TempDir,
}

async fn busy() -> Busy {
    let respond = |request: http::Request<hyper::body::Incoming>| async move {
        if request.uri().path() != REVIEWS {
            return json(200, "{}");
        }
        let body = request.into_body().collect().await?.to_bytes();
        let review: Value = serde_json::from_slice(&body)?;
        let known = review["spec"]["token"] == "jane";
        let status = match known {
            true => json!({"authenticated": true, "user": {"username": "jane"}}),
            false => json!({"authenticated": false}),
        };
        json(201, json!({"kind": "TokenReview", "status": status}).to_string())
    };
    let upstream = FakeUpstream::start(Protocols::Http2, respond).await;
    let second = FakeUpstream::start(Protocols::Http2, respond).await;
    let taken = Taken::default();
    let endpoint = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let dir = TempDir::new();
    let (key, authentication) = (dir.path("key.pem"), dir.write("authn.yaml", AUTHENTICATION));
    let keygen = Command::new(BINARY).args(["log", "keygen"]).arg(&key).output().unwrap();
    assert!(keygen.status.success());
    let builder = Builder::new(upstream.addr);
    builder.dir().write("policy.yaml", POLICY);
    builder.dir().write("siem.conf", &receiver_of(endpoint.addr));
    let sinks = format!(
        "- {{name: log, type: file, path: DIR/audit.log, policy-file: DIR/policy.yaml, \
           mode: blocking-strict, seal: true, seal-key-file: {}}}\n\
         - {{name: siem, type: webhook, config-file: DIR/siem.conf, policy-file: DIR/policy.yaml, \
           mode: batch, batch-max-wait: 100ms, spool-dir: DIR/spool}}\n\
         - {{name: otel, type: otlp, endpoint: 'http://127.0.0.1:9', policy-file: DIR/policy.yaml, \
           spool-dir: DIR/spool-otel}}\n",
        key.display()
    );
    let proxy = builder
        .sinks(&sinks)
        .flag(&format!("--authentication-config={}", authentication.display()))
        .flag("--authentication-token-review")
        .flag(&format!("--upstream-server=https://{}", second.addr))
        .start()
        .await;

    for (method, target, certificate, token) in [
        ("GET", "/api/v1/pods", Some("alice"), None),
        ("POST", "/api/v1/namespaces/a/configmaps", Some("alice"), None),
        ("FROB", "/version", Some("alice"), None),
        ("GET", "/api/v1/pods", None, Some("jane")),
        ("GET", "/api/v1/pods", None, Some("unknown")),
    ] {
        let token = token.map(|token| format!("Authorization: Bearer {token}"));
        let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
        let request = http1::request(method, target, token.as_deref().as_slice(), body);
        http1::exchange(proxy.addr, certificate, &request).await.unwrap();
    }
    proxy.process.signal("HUP");
    let reloads = "apiserver_authentication_config_controller_automatic_reloads_total";
    for (series, expected) in [
        ("kube_audit_proxy_requests_in_flight", 0),
        ("kube_audit_proxy_policy_generation{backend=\"log\"}", 2),
        (&format!("{reloads}{{status=\"success\"}}"), 1),
    ] {
        while proxy.metric(series).await != expected {
            tokio::task::yield_now().await;
        }
    }
    wait_for("events at the endpoint", || {
        taken.lock().unwrap().iter().any(|list| list["kind"] == "EventList").then_some(())
    })
    .await;
    Busy { proxy, _servers: [upstream, second, endpoint], _dir: dir }
}

/// Scrapes with the header `Accept: ACCEPT`; returns the content type and the text.
async fn scrape(proxy: &Proxy, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(proxy.admin).await.unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, text) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (content_type.unwrap().to_owned(), text.to_owned())
}

/// Returns all metrics in both formats, which have the same families and series.
async fn families(proxy: &Proxy) -> Vec<Family> {
    let (content_type, text) = scrape(proxy, "*/*").await;
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let families =
        parse(&text, Format::Prometheus).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let (content_type, text) = scrape(proxy, accept).await;
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let open = parse(&text, Format::OpenMetrics).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let shape = |families: &[Family]| -> BTreeSet<_> {
        families.iter().map(|family| (family.exposed_name(), family.labels.clone())).collect()
    };
    assert_eq!(shape(&families), shape(&open));
    families
}

fn value(families: &[Family], series: &str) -> f64 {
    let mut samples = families.iter().flat_map(|family| &family.samples);
    let sample = samples.find(|sample| sample.series() == series);
    sample.unwrap_or_else(|| panic!("no {series}")).value
}

#[tokio::test]
async fn both_formats_are_well_formed_and_documented() {
    let mut busy = busy().await;
    let families = families(&busy.proxy).await;
    for (series, expected) in [
        ("kube_audit_proxy_requests_total{code=\"200\",verb=\"list\"}", 2.0),
        ("kube_audit_proxy_requests_total{code=\"401\",verb=\"list\"}", 1.0),
        ("kube_audit_proxy_requests_in_flight", 0.0),
        ("apiserver_delegated_authn_request_total{code=\"201\"}", 2.0),
        ("authentication_token_cache_fetch_total{status=\"ok\"}", 2.0),
        ("kube_audit_proxy_backend_healthy{backend=\"siem\"}", 1.0),
        ("kube_audit_proxy_log_healthy{backend=\"log\"}", 1.0),
        ("kube_audit_proxy_policy_generation{backend=\"log\"}", 2.0),
    ] {
        assert_eq!(value(&families, series), expected, "{series}");
    }
    let process = |name: &str| value(&families, &format!("process_{name}"));
    assert!(process("cpu_seconds_total") > 0.0);
    assert!(process("resident_memory_bytes") > 1e6);
    assert!(process("virtual_memory_bytes") >= process("resident_memory_bytes"));
    assert!(process("threads") >= 2.0);
    assert!(process("open_fds") >= 3.0 && process("open_fds") <= process("max_fds"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - process("start_time_seconds");
    assert!((-2.0..600.0).contains(&age), "started {age} s ago");

    let exposed: BTreeSet<String> = families.iter().map(described).collect();
    let documented = documented();
    let difference: Vec<_> = exposed.symmetric_difference(&documented).collect();
    assert!(difference.is_empty(), "not both exposed and in docs/metrics.md: {difference:#?}");
    assert!(busy.proxy.stop().await.success());
}

/// Returns the first columns of a family's row in docs/metrics.md.
fn described(family: &Family) -> String {
    let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {} | {} |", family.exposed_name(), family.kind, labels.join(", "))
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the rows of the tables in docs/metrics.md, without the last column.
fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root("docs/metrics.md")).unwrap();
    let mut documented = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let columns: Vec<_> = line.split('|').take(4).collect();
        if matches!(columns[2].trim(), "counter" | "gauge" | "histogram") {
            let row = columns.join("|") + "|";
            assert!(documented.insert(row), "twice: {line}");
        }
    }
    documented
}

/// Metrics that other documents name, which the test above does not compare with the proxy.
#[test]
fn documents_name_only_metrics_that_exist() {
    let known: BTreeSet<String> =
        documented().iter().map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    let mut files = vec![root("README.md"), root("ARCHITECTURE.md")];
    for folder in ["docs", "deploy", "config"] {
        files.extend(std::fs::read_dir(root(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let mut named = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e != "svg")) {
        let text = std::fs::read_to_string(file).unwrap();
        for prefix in ["kube_audit_proxy_", "apiserver_", "authentication_token_cache_"] {
            for (at, _) in text.match_indices(prefix) {
                let end = text[at..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let (name, rest) = text[at..].split_at(end.unwrap_or(text.len() - at));
                let is_known = match rest.starts_with('*') {
                    true => known.iter().any(|known| known.starts_with(name)),
                    false => known.contains(name),
                };
                assert!(is_known, "{}: there is no metric {name}", file.display());
                named += 1;
            }
        }
    }
    assert!(named > 40, "{named}");
}

/// Warnings of promtool about names that Kubernetes chose.
const OF_KUBERNETES: [&str; 1] = [
    "authentication_token_cache_active_fetch_count non-histogram and non-summary metrics should not \
     have \"_count\" suffix",
];

#[tokio::test]
async fn promtool_accepts_names_and_help() {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut promtool) = command.stderr(Stdio::piped()).spawn() else {
        eprintln!("skipped: promtool is not installed (Debian package prometheus)");
        return;
    };
    let busy = busy().await;
    let (_, text) = scrape(&busy.proxy, "text/plain").await;
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let reported = [output.stdout, output.stderr].concat();
    let reported = String::from_utf8(reported).unwrap();
    let faults: Vec<_> = reported.lines().filter(|line| !OF_KUBERNETES.contains(line)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    // 3 means lint findings, which are checked above; 1 means a syntax error.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", output.status);
}
