//! Replays `decisions.jsonl`: for each policy and request, the stages and levels that
//! kube-apiserver logged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::Response;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::audit_log;
use crate::support::corpus::{self, StageAtLevel, Verdict};
use crate::support::http1::Connection;
use crate::support::in_time;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{BoxError, FakeUpstream, Protocols, full};

/// Number of policies at a time, and of connections for each.
const PROXIES: usize = 4;
const CONNECTIONS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_is_kube_apiservers() {
    let mut policies = BTreeMap::<String, Vec<Verdict>>::new();
    for verdict in corpus::verdicts() {
        policies.entry(verdict.policy.clone()).or_default().push(verdict);
    }
    let permits = Arc::new(Semaphore::new(PROXIES));
    let mut running = JoinSet::new();
    for (policy, verdicts) in policies {
        let permits = Arc::clone(&permits);
        running.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            one_policy(&policy, verdicts).await
        });
    }
    let mut total = Tally::default();
    for tally in running.join_all().await {
        total.equal += tally.equal;
        total.superset += tally.superset;
        total.different.extend(tally.different);
    }
    println!("decisions: {} equal", total.equal);
    println!("forgiven: {} that kube-apiserver fails to log", total.superset);
    let count = total.different.len();
    total.different.truncate(60);
    assert!(count == 0, "{count} decisions differ:\n{}", total.different.join("\n"));
    assert!(total.equal > 3000, "too few compared");
}

#[derive(Default)]
struct Tally {
    equal: usize,
    /// Requests that kube-apiserver fails to log and the proxy does log.
    superset: usize,
    different: Vec<String>,
}

async fn one_policy(policy: &str, verdicts: Vec<Verdict>) -> Tally {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        let status = request.headers().get("x-test-status").ok_or("no status wanted")?;
        let status: u16 = status.to_str()?.parse()?;
        let response =
            Response::builder().status(status).header("content-type", "application/json");
        Ok::<_, BoxError>(response.body(full("{}\n"))?)
    })
    .await;
    let file = corpus::path("policies").join(policy);
    let builder = Builder::new(upstream.addr).policy_file(file);
    let mut proxy = builder.front_proxies().service_accounts().start().await;
    let verdicts = Arc::new(verdicts);
    send_all(&verdicts, &proxy).await;
    assert_eq!(proxy.stop().await.code(), Some(0));
    compare(policy, &verdicts, &proxy)
}

/// Requests of one user share a few connections, as a client's do.
async fn send_all(verdicts: &Arc<Vec<Verdict>>, proxy: &Proxy) {
    let mut users = HashMap::<Option<String>, Vec<usize>>::new();
    for (index, verdict) in verdicts.iter().enumerate() {
        let certificate = corpus::certificate(verdict.user.as_deref());
        users.entry(certificate.map(str::to_owned)).or_default().push(index);
    }
    let mut sending = JoinSet::new();
    for (certificate, indices) in users {
        let share = indices.len().div_ceil(CONNECTIONS).max(8);
        for part in indices.chunks(share) {
            let (verdicts, certificate) = (Arc::clone(verdicts), certificate.clone());
            let (part, addr) = (part.to_vec(), proxy.addr);
            sending.spawn(async move {
                let mut connection = None;
                for index in part {
                    let open = match connection.take() {
                        Some(open) => open,
                        None => Connection::open(addr, certificate.as_deref()).await.unwrap(),
                    };
                    connection = send(open, index, &verdicts[index]).await;
                }
            });
        }
    }
    sending.join_all().await;
}

/// Sends one request; returns the connection unless the proxy closes it.
async fn send(mut connection: Connection, index: usize, verdict: &Verdict) -> Option<Connection> {
    let mut headers = corpus::with_valid_token(verdict.user.as_deref(), &verdict.headers);
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
    add("Host", "127.0.0.1:6443".to_owned());
    add("Audit-ID", format!("decision-{index}"));
    add("X-Test-Status", verdict.status.to_string());
    let body: &[u8] = match verdict.method.as_str() {
        "POST" | "PUT" | "PATCH" => b"{}",
        _ => b"",
    };
    if !body.is_empty() {
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    let request = corpus::wire(&verdict.method, &verdict.uri, &headers, body);
    let what = format!("{} {} ({})", verdict.method, verdict.uri, verdict.name);
    let answer = async {
        connection.send(&request).await?;
        connection.answer(&verdict.method).await
    };
    let answer = in_time(&what, answer).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let is_open = !answer.head.get("connection").eq_ignore_ascii_case("close");
    is_open.then_some(connection)
}

fn compare(policy: &str, verdicts: &[Verdict], proxy: &Proxy) -> Tally {
    #[derive(serde::Deserialize)]
    struct Line {
        #[serde(rename = "auditID")]
        audit_id: String,
        #[serde(flatten)]
        stage: StageAtLevel,
    }
    let mut written = HashMap::<String, Vec<StageAtLevel>>::new();
    for line in audit_log::lines(&proxy.log) {
        let line: Line = serde_json::from_str(&line).unwrap();
        written.entry(line.audit_id).or_default().push(line.stage);
    }
    let mut tally = Tally::default();
    for (index, verdict) in verdicts.iter().enumerate() {
        let ours = written.remove(&format!("decision-{index}")).unwrap_or_default();
        if ours == verdict.events {
            tally.equal += 1;
        } else if corpus::is_lost_upstream(&verdict.name) && ours.starts_with(&verdict.events) {
            tally.superset += 1;
        } else {
            let Verdict { name, method, uri, user, events, .. } = verdict;
            let user = user.as_deref().unwrap_or("anonymous");
            tally.different.push(format!(
                "{policy}: {name:?} ({user} {method} {uri})\n   recorded {}\n   written  {}",
                short(events),
                short(&ours)
            ));
        }
    }
    for (id, stages) in written {
        tally.different.push(format!("{policy}: nobody's request {id}: {}", short(&stages)));
    }
    tally
}

fn short(stages: &[StageAtLevel]) -> String {
    let one = |stage: &StageAtLevel| format!("{} {}", stage.level, stage.stage);
    match stages {
        [] => "nothing".to_owned(),
        _ => stages.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
