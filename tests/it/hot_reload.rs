//! The policy file changes under load: each request is recorded completely by one of the policies.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::client::conn::http2::SendRequest;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::audit_log::AuditLog;
use crate::support::client::{self, Short};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{audit_log, http1, wait_for};

const REQUESTS: usize = 20_000;
const FLIPS: usize = 50;
const CONNECTIONS: usize = 4;
const STREAMS: usize = 8;

/// Two policies that differ in level and stages, so that a mixture would be detected.
const POLICIES: [&str; 2] = [
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n",
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Request\n",
];
const RECORDS: [&str; 2] =
    ["Metadata RequestReceived, Metadata ResponseComplete", "Request ResponseComplete"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_agrees_with_one_policy() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let mut proxy = Builder::new(upstream.addr).policy(POLICIES[0]).start().await;
    let (sent, is_flipping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let mut load = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
        for _ in 0..STREAMS {
            load.spawn(requests(sender.clone(), Arc::clone(&sent), Arc::clone(&is_flipping)));
        }
    }
    let mut log = proxy.audit_log();
    for flip in 1..=FLIPS {
        // The changes are spread over the load.
        let due = REQUESTS * flip / (FLIPS + 1);
        wait_for("the load", || (sent.load(Ordering::Relaxed) >= due).then_some(())).await;
        change(&proxy, flip);
        proxy.process.signal("HUP");
        probe_until(&proxy, &mut log, flip, RECORDS[flip % 2]).await;
    }
    is_flipping.store(false, Ordering::Relaxed);
    let sent = load.join_all().await.concat();
    assert_eq!(proxy.stop().await.code(), Some(0));
    check_all(&proxy, &sent);
}

/// Sends requests until enough were sent and the last change is done; none may fail. Returns their
/// numbers.
async fn requests(
    mut sender: SendRequest<Short>,
    sent: Arc<AtomicUsize>,
    is_flipping: Arc<AtomicBool>,
) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        if number >= REQUESTS && !is_flipping.load(Ordering::Relaxed) {
            return numbers;
        }
        let id = format!("load-{number}");
        let target = "/api/v1/namespaces/team-a/configmaps/one";
        let response = client::h2_get(&mut sender, target, &[("audit-id", &id)]).await.unwrap();
        assert_eq!(response.status(), 200, "{id}");
        client::whole(response).await.unwrap();
        numbers.push(number);
    }
}

/// Activates the other policy, alternating between the ways in which files are changed.
fn change(proxy: &Proxy, flip: usize) {
    let text = POLICIES[flip % 2];
    match flip % 3 {
        0 => {
            let new = proxy.dir.write("policy.new", text);
            std::fs::rename(new, &proxy.policy).unwrap();
        }
        1 => swap(&proxy.dir.path(""), &proxy.policy, flip, text),
        _ => std::fs::write(&proxy.policy, text).unwrap(),
    }
}

/// Updates the file like the kubelet updates a ConfigMap: the file is a link through `..data`,
/// which is replaced.
fn swap(dir: &Path, policy: &Path, flip: usize, text: &str) {
    let version = format!("..version-{flip}");
    std::fs::create_dir(dir.join(&version)).unwrap();
    std::fs::write(dir.join(&version).join("policy.yaml"), text).unwrap();
    symlink(&version, dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if !policy.is_symlink() {
        symlink("..data/policy.yaml", dir.join("policy.link")).unwrap();
        std::fs::rename(dir.join("policy.link"), policy).unwrap();
    }
}

/// Waits until a request is recorded according to the new policy.
async fn probe_until(proxy: &Proxy, log: &mut AuditLog, flip: usize, record: &str) {
    for attempt in 0.. {
        let id = format!("probe-{flip}-{attempt}");
        let line = format!("Audit-ID: {id}");
        let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await.unwrap();
        assert_eq!(answer.head.status, 200);
        let events = log.wait_end(&id).await;
        let stages: Vec<_> =
            events.iter().map(|event| format!("{} {}", event.level(), event.stage())).collect();
        if stages.join(", ") == record {
            return;
        }
        assert!(attempt < 500, "flip {flip} was never taken over");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn check_all(proxy: &Proxy, sent: &[usize]) {
    let mut records = HashMap::<String, Vec<String>>::new();
    for line in audit_log::lines(&proxy.log) {
        let value: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let stage = format!("{} {}", text("level"), text("stage"));
        records.entry(text("auditID")).or_default().push(stage);
    }
    let mut by_policy = [0; 2];
    for number in sent {
        let id = format!("load-{number}");
        let stages =
            records.get(&id).unwrap_or_else(|| panic!("{id} is not in the log")).join(", ");
        let policy = RECORDS.iter().position(|record| *record == stages);
        by_policy[policy.unwrap_or_else(|| panic!("{id} agrees with neither: {stages}"))] += 1;
    }
    let sent = sent.len();
    println!("{sent} requests, {FLIPS} flips: {by_policy:?} records by policy");
    assert!(by_policy.iter().all(|&count| count > sent / 20), "one-sided: {by_policy:?}");
}
