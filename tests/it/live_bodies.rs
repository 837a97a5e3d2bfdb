//! Compares the events of hostile bodies with those of a real kube-apiserver: they are equal, or
//! the proxy's event has an annotation that gives the reason.
//!
//! Needs `KUBEBUILDER_ASSETS`, the directory with `etcd` and `kube-apiserver`. `LIVE_BODIES` is the
//! number of bodies, `LIVE_SEED` the seed; `LIVE_BODIES_OUT` names a file for the cases that
//! differ.

mod cbor;
mod compare;
mod generate;
mod json;
mod lines;
mod protobuf;
mod yaml;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;
use crate::support::http1::{self, Connection};
use crate::support::proxy::Builder;
use crate::support::{TempDir, in_time};
use generate::{Case, Random};
use lines::Ends;

const POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: RequestResponse\n";

/// Number of concurrent requests.
const CONNECTIONS: usize = 8;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_are_recorded_as_by_kube_apiserver() {
    let Some(assets) = Cluster::assets() else {
        return println!(
            "not run: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver"
        );
    };
    let policy = TempDir::new();
    // No controller creates the ServiceAccount that Pods need.
    let flags = [
        "--feature-gates=CBORServingAndStorage=true",
        "--disable-admission-plugins=ServiceAccount",
    ];
    let policy_file = policy.write("policy.yaml", POLICY);
    let mut cluster = Cluster::start_with(&assets, &policy_file, &flags).await;
    prepare(cluster.addr).await;
    let mut proxy = Builder::new(cluster.addr)
        .identity("request-header")
        .policy(POLICY)
        .flag("--audit-redact=none")
        .start()
        .await;
    let mut random = Random::new(number("LIVE_SEED", 1));
    let cases: Vec<Case> =
        (0..number("LIVE_BODIES", 1500)).map(|_| generate::case(&mut random)).collect();
    let cases = std::sync::Arc::new(cases);
    let mut clients = JoinSet::new();
    for first in 0..CONNECTIONS {
        let (cases, addr) = (cases.clone(), proxy.addr);
        clients.spawn(async move {
            for index in (first..cases.len()).step_by(CONNECTIONS * 200) {
                send(addr, &cases, (index..cases.len()).step_by(CONNECTIONS).take(200)).await;
            }
        });
    }
    clients.join_all().await;
    assert!(proxy.stop().await.success());
    cluster.stop().await;
    report(&cases, &lines::ends(&cluster.log), &lines::ends(&proxy.log).events);
}

/// Sends these cases on one connection.
async fn send(addr: SocketAddr, cases: &[Case], indexes: impl Iterator<Item = usize>) {
    let mut connection = None;
    for index in indexes {
        let case = &cases[index];
        let id = format!("Audit-ID: body-{index}");
        let mut headers = vec![id.as_str()];
        headers.extend(case.headers.iter().map(String::as_str));
        let request = http1::request(case.method, &case.uri, &headers, &case.body);
        let exchange = async {
            if connection.is_none() {
                connection = Some(Connection::open(addr, Some("admin")).await?);
            }
            let open = connection.as_mut().expect("it is open");
            open.send(&request).await?;
            open.answer(case.method).await
        };
        let answer = in_time("an answer", exchange).await;
        if answer.is_err() {
            connection = None;
        }
    }
}

/// Creates the objects that patches and updates are sent to.
async fn prepare(addr: SocketAddr) {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true
                }}
            }]
        }
    });
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    post(addr, crds, &crd).await;
    for kind in generate::KINDS {
        let object = kind.object("base");
        // A new resource is served a moment later.
        let mut tries = 0;
        while !post(addr, &kind.collection(), &object).await {
            tries += 1;
            assert!(tries < 100, "{} is not served", kind.kind);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

async fn post(addr: SocketAddr, path: &str, object: &Value) -> bool {
    let headers = ["Content-Type: application/json"];
    let request = http1::request("POST", path, &headers, object.to_string().as_bytes());
    http1::exchange(addr, Some("admin"), &request).await.unwrap().head.status == 201
}

fn report(cases: &[Case], kube: &Ends, proxy: &HashMap<String, Value>) {
    let (mut counts, mut silent) = (BTreeMap::<String, usize>::new(), Vec::new());
    let mut out = std::env::var("LIVE_BODIES_OUT")
        .ok()
        .map(|path| std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap());
    let mut compared = 0;
    for (index, case) in cases.iter().enumerate() {
        let id = format!("body-{index}");
        let ours = proxy.get(&id);
        let Some(theirs) = kube.events.get(&id) else {
            let (kind, line) = match (ours, kube.unreadable.get(&id)) {
                (None, _) => ("not sent".to_owned(), ""),
                (_, Some((why, line))) => {
                    (format!("kube-apiserver's line cannot be read: {why}"), line.as_str())
                }
                (Some(ours), None) => {
                    // kube-apiserver cannot encode the event of a patch that is not JSON.
                    let is_json = serde_json::from_slice::<IgnoredAny>(&case.body).is_ok();
                    if is_json || ours["verb"] != "patch" {
                        silent.push(format!("{case:?}\n  kube-apiserver has no event"));
                    }
                    let (verb, code) = (&ours["verb"], &ours["responseStatus"]["code"]);
                    (format!("kube-apiserver lost the event: {verb} {code}"), "")
                }
            };
            if let Some(out) = &mut out {
                let row =
                    json!({"kind": kind, "case": format!("{case:?}"), "kube": line, "proxy": ours});
                writeln!(out, "{row}").unwrap();
            }
            *counts.entry(kind).or_default() += 1;
            continue;
        };
        let ours = ours.unwrap_or_else(|| panic!("the proxy has no event of {case:?}"));
        compared += 1;
        let differences = compare::events(theirs, ours);
        let marks = compare::marks(ours);
        let kind = match (differences.is_empty(), marks.is_empty()) {
            (true, _) if theirs["requestObject"].is_null() => "equal, without an object".to_owned(),
            (true, true) => "equal".to_owned(),
            (true, false) => "equal and annotated".to_owned(),
            (false, false) => format!("differs, annotated: {marks}"),
            (false, true) => "differs silently".to_owned(),
        };
        *counts.entry(kind).or_default() += 1;
        if differences.is_empty() {
            continue;
        }
        if let Some(out) = &mut out {
            let body = BASE64_STANDARD.encode(&case.body);
            let text = String::from_utf8_lossy(&case.body);
            let row = json!({
                "method": case.method, "uri": case.uri, "headers": case.headers, "body": body,
                "text": text, "differences": differences, "marks": marks,
                "kube": theirs, "proxy": ours
            });
            writeln!(out, "{row}").unwrap();
        }
        if marks.is_empty() {
            silent.push(format!("{case:?}\n  {differences:?}"));
        }
    }
    println!("{compared} compared: {counts:#?}");
    let shown = silent.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(silent.is_empty(), "{} differ silently:\n{shown}", silent.len());
    let equal: usize =
        counts.iter().filter(|(kind, _)| kind.starts_with("equal")).map(|(_, count)| count).sum();
    assert!(compared > 0 && equal * 1000 >= compared * 995, "{equal} of {compared} are equal");
}
