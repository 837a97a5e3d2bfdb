//! `kill -9` under load: the log contains everything that a client or the API server has seen.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::client::{self, Short};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, audit_log, wait_for};

const CLIENTS: usize = 8;

/// Returns the number of rounds: 12, or the value of `CRASH_ROUNDS`.
fn rounds() -> usize {
    std::env::var("CRASH_ROUNDS").map_or(12, |text| text.parse().unwrap())
}

/// Kills the proxy when this many requests have a complete response; returns their IDs.
async fn killed_under_load(mut proxy: Proxy, round: usize, answers: usize) -> Vec<String> {
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (addr, answered) = (proxy.addr, Arc::clone(&answered));
        clients.spawn(async move {
            let Ok(mut sender) = client::http2::<Short>(addr, Some("alice")).await else { return };
            for number in 0.. {
                let id = format!("{round}-{client}-{number}");
                let headers = [("audit-id", id.as_str())];
                let answer = client::h2_get(&mut sender, "/api/v1/pods", &headers).await;
                let Ok(answer) = answer else { return };
                assert_eq!(answer.status(), 200);
                if client::whole(answer).await.is_err() {
                    return;
                }
                answered.lock().unwrap().push(id);
            }
        });
    }
    let enough = || (answered.lock().unwrap().len() >= answers).then_some(());
    wait_for("answers", enough).await;
    // Vary the delay after the last response.
    tokio::time::sleep(Duration::from_micros(round as u64 * 791 % 5_000)).await;
    proxy.process.signal("KILL");
    proxy.process.wait().await;
    clients.join_all().await;
    std::mem::take(&mut *answered.lock().unwrap())
}

/// Returns the stages of each request in the log, whose every line must be an event.
fn stages(log: &Path) -> HashMap<String, Vec<String>> {
    let mut stages: HashMap<String, Vec<String>> = HashMap::new();
    for line in audit_log::lines(log) {
        let event: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("a torn line: {line}"));
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        stages.entry(text("auditID")).or_default().push(text("stage"));
    }
    stages
}

async fn rounds_of(mode: &str, sync: &str) {
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let dir = TempDir::new();
    let log = dir.path("audit.log");
    let start = || {
        Builder::new(upstream.addr)
            .flag(&format!("--audit-log-mode={mode}"))
            .flag(&format!("--audit-log-sync={sync}"))
            .flag(&format!("--audit-log-path={}", log.display()))
            .start()
    };
    let (mut answered, mut forwarded) = (Vec::new(), HashSet::new());
    for round in 0..rounds() {
        // Different in each round, but reproducible.
        let answers = 1 + round * 37 % 50;
        answered.extend(killed_under_load(start().await, round, answers).await);
        let seen = upstream.take_seen();
        forwarded.extend(seen.iter().map(|seen| seen.all("audit-id")[0].to_owned()));
        if round % 2 == 1 {
            // Adds a partial line like a crash can leave it.
            let mut torn = std::fs::read(&log).unwrap();
            torn.extend_from_slice(b"{\"kind\":\"Event\",\"apiVersion\":\"aud");
            std::fs::write(&log, torn).unwrap();
        }
    }
    let mut last = start().await;
    assert!(last.stop().await.success());
    let stages = stages(&log);
    println!("{} answered, {} forwarded", answered.len(), forwarded.len());
    for id in &answered {
        assert_eq!(stages[id], ["RequestReceived", "ResponseComplete"], "{id} was answered");
    }
    for id in &forwarded {
        assert!(stages.contains_key(id), "{id} was forwarded and has no record");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_unrecorded_however_it_ends() {
    rounds_of("blocking-strict", "always").await;
}

/// Without a sync, the operating system keeps the written bytes if only the process dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_takes_nothing_that_was_written() {
    rounds_of("blocking", "off").await;
}
