//! Compares the audit log of a real kube-apiserver with the proxy's, for the same requests, line by
//! line.
//!
//! Needs `KUBEBUILDER_ASSETS`, the directory with `etcd` and `kube-apiserver`; skipped without it.
//! `LIVE_REQUESTS` is the number of generated requests in addition to those of the corpus,
//! `LIVE_SEED` the seed.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::compare::{self, Members, Report, Sent};
use crate::support::corpus::{self, Exchange};
use crate::support::proxy::Builder;
use crate::support::{audit_log, http1, in_time};

const POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: RequestResponse\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_logs_agree_if_the_proxy_is_a_front_proxy() {
    beside("request-header").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_logs_agree_if_the_proxy_impersonates() {
    beside("impersonate").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_logs_agree_on_authorization() {
    beside_with("impersonate", true).await;
}

/// A request, and the client's view of the response.
struct Asked {
    /// The audit ID.
    id: String,
    what: String,
    wire: Vec<u8>,
    body: Vec<u8>,
    /// `None` if the connection was closed without a response.
    status: Option<u16>,
    in_yaml: bool,
}

async fn beside(identity: &'static str) {
    beside_with(identity, false).await;
}

async fn beside_with(identity: &'static str, annotates: bool) {
    let Some(assets) = Cluster::assets() else {
        return println!(
            "not run: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver"
        );
    };
    let policy = crate::support::TempDir::new();
    let mut cluster = Cluster::start(&assets, &policy.write("policy.yaml", POLICY)).await;
    // The permission that the proxy needs to impersonate any user.
    let binding = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"proxy"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"audit-proxy"}]}"#;
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let json = ["Content-Type: application/json"];
    let request = http1::request("POST", path, &json, binding.as_bytes());
    let bound = http1::exchange(cluster.addr, Some("admin"), &request).await.unwrap();
    assert_eq!(bound.head.status, 201);

    let builder = Builder::new(cluster.addr).identity(identity).policy(POLICY);
    let builder = builder.service_accounts().flag("--audit-redact=none");
    let builder = match identity {
        "request-header" => builder.front_proxies(),
        _ => builder,
    };
    let builder = match annotates {
        // With a long timeout, and without a cache that could return an earlier result.
        true => builder
            .flag("--audit-authorization-annotations")
            .flag("--audit-authorization-timeout=20s")
            .flag("--audit-authorization-cache-ttl=0s"),
        false => builder,
    };
    let mut proxy = builder.start().await;
    let mut all = Vec::new();
    for (number, exchange) in requests().into_iter().enumerate() {
        let id = format!("live-{number}");
        let (wire, body) = wire(&exchange, &id);
        let answer =
            http1::exchange(proxy.addr, corpus::certificate(exchange.user.as_deref()), &wire);
        let answer = in_time(&format!("an answer to {}", exchange.name), answer).await.ok();
        let in_yaml = answer.as_ref().is_some_and(|a| a.head.get("content-type").contains("yaml"));
        let status = answer.map(|answer| answer.head.status);
        let what = format!(
            "{id} {:?}: {} {} by {}, answered {status:?}",
            exchange.name,
            exchange.method,
            exchange.uri,
            exchange.user.as_deref().unwrap_or("nobody")
        );
        all.push(Asked { id, what, wire, body, status, in_yaml });
    }
    let mut missing = Vec::new();
    for reason in ["timeout", "throttled", "error", "contradiction"] {
        let name = "kube_audit_proxy_authorization_annotations_missing_total";
        missing.push(proxy.metric(&format!("{name}{{reason=\"{reason}\"}}")).await);
    }
    assert!(proxy.stop().await.success());
    cluster.stop().await;
    compare(identity, &all, &cluster.log, &proxy.log).finish(&format!("live {identity}"));
    if annotates {
        let decided = |path: &Path| -> Vec<String> {
            let mut log = audit_log::AuditLog::new(path);
            let decision = "/annotations/authorization.k8s.io~1decision";
            let events = log.events().iter().filter(|event| event.at(decision).is_some());
            events.map(|event| event.audit_id().to_owned()).collect()
        };
        let (theirs, ours) = (decided(&cluster.log), decided(&proxy.log));
        let is_lost = |asked: &&Asked| theirs.contains(&asked.id) && !ours.contains(&asked.id);
        let lost: Vec<_> = all.iter().filter(is_lost).map(|asked| &asked.what).collect();
        assert!(lost.is_empty(), "without annotations ({missing:?}): {lost:#?}");
        assert!(ours.len() > 600, "{}", ours.len());
    }
}

/// Returns the requests of the corpus in the order in which they were recorded, then generated
/// ones.
fn requests() -> Vec<Exchange> {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap())
    };
    let mut random = Random(number("LIVE_SEED", 1).wrapping_mul(2).wrapping_add(1));
    let mut all = corpus::exchanges("all-requestresponse.jsonl");
    let recorded = all.len();
    for _ in 0..number("LIVE_REQUESTS", 400) {
        let exchange = all[random.below(recorded)].clone();
        all.push(random.changed(exchange));
    }
    all
}

/// Deterministic pseudo-random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// Returns the request with one or two changes that affect the record.
    fn changed(&mut self, mut exchange: Exchange) -> Exchange {
        exchange.name = format!("made of {}", exchange.name);
        for _ in 0..1 + self.below(2) {
            match self.below(6) {
                0 => {
                    let methods =
                        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FROB"];
                    self.one(&methods).clone_into(&mut exchange.method);
                }
                1 => {
                    const ACCEPT: [&str; 9] = [
                        "application/yaml",
                        "application/vnd.kubernetes.protobuf",
                        "application/json;as=Table;v=v1;g=meta.k8s.io",
                        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                        "application/json; charset=utf-8",
                        "*/*",
                        "text/html",
                        "bad",
                    ];
                    set(&mut exchange, "Accept", self.one(&ACCEPT));
                }
                2 => {
                    const QUERY: [&str; 11] = [
                        "limit=1",
                        "limit=x",
                        "dryRun=All",
                        "dryRun=foo",
                        "fieldSelector=metadata.name%3Done",
                        "fieldManager=m&force=true",
                        "fieldValidation=Strict",
                        "pretty=true",
                        "resourceVersion=x",
                        "timeout=bad",
                        "a=%zz",
                    ];
                    let mark = if exchange.uri.contains('?') { '&' } else { '?' };
                    let query = self.one(&QUERY);
                    write!(exchange.uri, "{mark}{query}").unwrap();
                }
                3 => {
                    const TYPES: [&str; 7] = [
                        "application/json",
                        "application/yaml",
                        "application/merge-patch+json",
                        "application/strategic-merge-patch+json",
                        "application/json-patch+json",
                        "application/apply-patch+yaml",
                        "text/plain",
                    ];
                    if exchange.body.is_some() {
                        set(&mut exchange, "Content-Type", self.one(&TYPES));
                    }
                }
                4 => {
                    let who = ["alice", "system:node:n1", "system:anonymous", "", "nobody@x"];
                    set(&mut exchange, "Impersonate-User", self.one(&who));
                    if self.below(3) == 0 {
                        let group = self.one(&["dev", "system:masters", ""]);
                        set(&mut exchange, "Impersonate-Group", group);
                    }
                }
                _ => {
                    let parts = ["/", "/status", "/scale", "/x", "/%2e", "/a%2Fb", "//"];
                    let at = exchange.uri.find('?').unwrap_or(exchange.uri.len());
                    exchange.uri.insert_str(at, self.one(&parts));
                }
            }
        }
        exchange
    }
}

fn set(exchange: &mut Exchange, name: &str, value: &str) {
    exchange.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    exchange.headers.push((name.to_owned(), value.to_owned()));
}

/// Returns the request as sent with this audit ID, and its body.
fn wire(exchange: &Exchange, id: &str) -> (Vec<u8>, Vec<u8>) {
    let body = exchange.body.as_deref().map(corpus::decode).unwrap_or_default();
    let mut headers = corpus::with_valid_token(exchange.user.as_deref(), &exchange.headers);
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("audit-id"));
    headers.push(("Audit-ID".to_owned(), id.to_owned()));
    (corpus::wire(&exchange.method, &exchange.uri, &headers, &body), body)
}

/// Returns the lines of a log by audit ID.
fn by_id(log: &Path) -> HashMap<String, Vec<String>> {
    let mut all = HashMap::<String, Vec<String>>::new();
    for line in audit_log::lines(log) {
        let value: Value = serde_json::from_str(&line).unwrap();
        all.entry(value["auditID"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    all
}

fn compare(identity: &str, all: &[Asked], kube: &Path, proxy: &Path) -> Report {
    let (mut kube, mut proxy) = (by_id(kube), by_id(proxy));
    let mut report = Report::default();
    for asked in all {
        let recorded = kube.remove(&asked.id).unwrap_or_default();
        let written = proxy.remove(&asked.id).unwrap_or_default();
        if let Some(reason) = not_forwarded(asked, identity, &recorded, &written) {
            report.forgive(reason);
            continue;
        }
        if loses_the_end(asked, &recorded, &written) {
            report.forgive("ResponseComplete that kube-apiserver loses");
            let pair = (&recorded[0], &written[0]);
            compare_lines(&mut report, asked, identity, pair.0, pair.1);
            continue;
        }
        if stages(&recorded) != stages(&written) {
            let (recorded, written) = (stages(&recorded), stages(&written));
            let text = format!("{}\n   recorded {recorded:?}\n   written  {written:?}", asked.what);
            report.fail("stages", text);
            continue;
        }
        for (recorded, written) in recorded.iter().zip(&written) {
            compare_lines(&mut report, asked, identity, recorded, written);
        }
    }
    for (id, lines) in proxy {
        report.fail("lines of nobody's request", format!("{id}: {lines:?}"));
    }
    report
}

/// Returns why kube-apiserver has no event although the proxy has one, if that is expected.
fn not_forwarded(
    asked: &Asked,
    identity: &str,
    recorded: &[String],
    written: &[String],
) -> Option<&'static str> {
    if !recorded.is_empty() || written.is_empty() {
        return None;
    }
    let impersonates = http1::find(&asked.wire, b"\r\nImpersonate-").is_some();
    match asked.status {
        Some(401) => Some("refused by the proxy: 401"),
        Some(400 | 500) => Some("answered by the proxy: malformed"),
        Some(403) if impersonates && identity == "impersonate" => {
            Some("refused by the proxy: impersonation")
        }
        _ => None,
    }
}

/// Responses in YAML, and patches that cannot be parsed, cause events that kube-apiserver cannot
/// encode.
fn loses_the_end(asked: &Asked, recorded: &[String], written: &[String]) -> bool {
    let is_such = asked.in_yaml || asked.wire.starts_with(b"PATCH ");
    is_such
        && stages(recorded) == ["\"RequestReceived\""]
        && stages(written) == ["\"RequestReceived\"", "\"ResponseComplete\""]
}

fn stages(lines: &[String]) -> Vec<String> {
    let stage = |line: &String| {
        let members = Members::parse(line).expect("an event");
        members.get("stage").unwrap_or("").to_owned()
    };
    lines.iter().map(stage).collect()
}

fn compare_lines(
    report: &mut Report,
    asked: &Asked,
    identity: &str,
    recorded: &str,
    written: &str,
) {
    let mut pair = [recorded, written].map(|line| Members::parse(line).expect("an event"));
    if identity == "impersonate" {
        // kube-apiserver sees the proxy as the user, and has not evaluated impersonation when the
        // request begins.
        let [theirs, ours] = pair.each_ref().map(acting);
        let is_first = pair[0].get("stage") == Some("\"RequestReceived\"");
        let expected = if is_first { &proxy_itself() } else { &ours };
        if theirs != *expected {
            let text = format!("{}\n   recorded {theirs}\n   written  {ours}", asked.what);
            report.fail("who", text);
        }
        report.forgive("who asked, where the proxy impersonates");
        for members in &mut pair {
            for name in ["user", "impersonatedUser", "authenticationMetadata"] {
                members.set(name, None);
            }
        }
    }
    let [theirs, ours] = &mut pair;
    forgive_hop(report, asked, theirs, ours);
    if identity == "request-header" {
        forgive_node(report, theirs, ours);
    }
    if asked.body.is_empty() && theirs.get("requestObject").is_some() {
        report.forgive("requestObject made of an empty body");
        theirs.set("requestObject", None);
    }
    let sent = Sent {
        request: &asked.wire,
        body: &asked.body,
        response_in_yaml: asked.in_yaml,
        ..Sent::default()
    };
    let [recorded, written] = pair.map(|members| members.text());
    compare::event(report, &asked.what, &sent, (&recorded, &written));
}

/// For kube-apiserver the proxy is one more hop, and the previous ones are in one header.
fn forgive_hop(report: &mut Report, asked: &Asked, theirs: &mut Members, ours: &mut Members) {
    let addresses = |members: &Members| -> Vec<String> {
        let text = members.get("sourceIPs").unwrap_or("[]");
        serde_json::from_str(text).expect("addresses")
    };
    let names_hops = [&b"\r\nX-Forwarded-For:"[..], b"\r\nX-Real-Ip:"].iter().any(|name| {
        http1::find(&asked.wire.to_ascii_lowercase(), &name.to_ascii_lowercase()).is_some()
    });
    let (kubes, proxys) = (addresses(theirs), addresses(ours));
    if names_hops && kubes != proxys && proxys.iter().all(|address| kubes.contains(address)) {
        report.forgive("sourceIPs, where the proxy is one more hop");
        let same = ours.get("sourceIPs").map(str::to_owned);
        theirs.set("sourceIPs", same);
    }
}

/// Only the API server knows which mode allowed an impersonation, and therefore the groups of a
/// node.
fn forgive_node(report: &mut Report, theirs: &mut Members, ours: &Members) {
    let (Some(kubes), Some(proxys)) =
        (theirs.get("impersonatedUser"), ours.get("impersonatedUser"))
    else {
        return;
    };
    if kubes != proxys && kubes.replace("\"system:nodes\",", "") == proxys {
        report.forgive("groups of an impersonated node, known only to the API server");
        theirs.set("impersonatedUser", Some(proxys.to_owned()));
    }
}

fn proxy_itself() -> Value {
    serde_json::json!(["audit-proxy", null, ["audit-proxy", "system:authenticated"]])
}

/// Returns the user that the request was finally made as, without extra fields.
fn acting(members: &Members) -> Value {
    let text = members.get("impersonatedUser").or_else(|| members.get("user")).unwrap_or("null");
    let user: Value = serde_json::from_str(text).expect("a user");
    let mut groups: Vec<_> =
        user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    groups.sort_unstable();
    serde_json::json!([user["username"], user["uid"], groups])
}
