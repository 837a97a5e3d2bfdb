//! Faults of the log: its disk, permissions, directory, or reader fails, and the proxy recovers
//! without a restart. Each fault is tested in each mode, and each test prints a line with its
//! counts.
//!
//! The test of a clock that is set back is `a_clock_that_is_set_back_does_not_change_the_order` of
//! `audit_log::rotate`.

mod backends;
mod disk;
mod moved;
mod recordings;
mod slow;

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::http1;
use crate::support::proxy::{Builder, Proxy};
use crate::support::tally::Tally;
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{DEADLINE, client, wait_for};

/// Number of requests before, during, and after a fault.
const EACH: usize = 20;
const LOST: &str = "apiserver_audit_error_total{plugin=\"log\"}";
const REJECTED: &str = "apiserver_audit_requests_rejected_total";
const HEALTHY: &str = "kube_audit_proxy_log_healthy{backend=\"log\"}";

/// Runs the test in each mode of a log concurrently.
async fn in_each_mode(test: impl AsyncFn(&'static str)) {
    tokio::join!(test("batch"), test("blocking"), test("blocking-strict"));
}

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await
}

/// Returns the status of a GET; `None` if the response was aborted.
async fn get(proxy: &Proxy, id: &str) -> Option<u16> {
    let line = format!("Audit-ID: {id}");
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await;
    answer.ok().map(|answer| answer.head.status)
}

/// A proxy whose log will fail.
struct Scene {
    upstream: FakeUpstream,
    proxy: Proxy,
    mode: &'static str,
    log: PathBuf,
    /// The log file as opened at the start, which can be read even if it was moved or deleted.
    first: File,
    requests: usize,
    /// Requests with a complete 200 response.
    passed: Vec<String>,
    refused: usize,
}

impl Scene {
    /// Starts a proxy, and sends some requests.
    async fn start(log: &Path, mode: &'static str, flags: &[&str]) -> Scene {
        let upstream = upstream().await;
        let mut builder = Builder::new(upstream.addr)
            .flag(&format!("--audit-log-path={}", log.display()))
            .flag(&format!("--audit-log-mode={mode}"));
        for flag in flags {
            builder = builder.flag(flag);
        }
        let proxy = builder.start().await;
        let (log, first) = (log.to_owned(), File::open(log).unwrap());
        let (passed, refused) = (Vec::new(), 0);
        let mut scene = Scene { upstream, proxy, mode, log, first, requests: 0, passed, refused };
        scene.send("before", EACH).await;
        assert_eq!(scene.passed.len(), EACH, "{mode}");
        wait_for("what is in the batch", || {
            (events_in(&scene.first).len() == 2 * EACH).then_some(())
        })
        .await;
        scene
    }

    fn is_strict(&self) -> bool {
        self.mode == "blocking-strict"
    }

    /// Sends `count` requests with the IDs `name-NUMBER`.
    async fn send(&mut self, name: &str, count: usize) {
        for number in 0..count {
            let id = format!("{name}-{number}");
            self.requests += 1;
            match get(&self.proxy, &id).await {
                Some(200) => self.passed.push(id),
                Some(500) | None => self.refused += 1,
                other => panic!("{id}: {other:?}"),
            }
        }
    }

    async fn readyz(&self) -> (u16, String) {
        client::admin(self.proxy.admin, "/readyz?verbose").await.unwrap()
    }

    /// Sends requests until the proxy reports that the log fails for this reason. From then on a
    /// strict proxy rejects all requests, and others forward all.
    async fn fails_for(&mut self, reason: &str) {
        let started = Instant::now();
        let mut number = 0;
        let text = loop {
            self.send(&format!("noticed-{number}"), 1).await;
            number += 1;
            let text = self.readyz().await.1;
            if text.contains("[-]audit-log failed: ") {
                break text;
            }
            assert!(started.elapsed() < DEADLINE, "{}: is not noticed", self.mode);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(text.contains(reason), "{text}");
        assert_eq!(self.proxy.metric(HEALTHY).await, 0);
        let (passed, refused) = (self.passed.len(), self.refused);
        let (seen, rejected) = (self.upstream.seen().len(), self.proxy.metric(REJECTED).await);
        self.send("meanwhile", EACH).await;
        // The disk has been checked more than once by then.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        // A log that no request waits for does not take the proxy out of service.
        let code = if self.mode == "batch" { 200 } else { 500 };
        let (now, text) = self.readyz().await;
        assert_eq!(now, code, "{}: {text}", self.mode);
        assert!(text.contains("[-]audit-log failed: "), "{}: it stays so: {text}", self.mode);
        self.send("later", EACH).await;
        if self.is_strict() {
            assert_eq!(self.passed.len(), passed, "a strict proxy refuses");
            assert_eq!(self.upstream.seen().len(), seen, "and forwards nothing");
            let now = self.proxy.metric(REJECTED).await;
            assert_eq!(now, rejected + 2 * EACH as u64);
        } else {
            assert_eq!(self.refused, refused, "{} delays and refuses nothing", self.mode);
            assert!(self.proxy.metric(LOST).await > 0, "{}: losses are counted", self.mode);
        }
        self.proxy.process.logs("Error in audit plugin 'log' affecting ").await;
        self.proxy.process.logs(reason).await;
    }

    /// Waits until the log is writable again, without a request that probes it.
    async fn heals(&mut self) {
        let started = Instant::now();
        while !self.readyz().await.1.contains("[+]audit-log ok") {
            assert!(started.elapsed() < DEADLINE, "{}: does not heal", self.mode);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.proxy.metric(HEALTHY).await, 1);
        self.proxy.process.logs("is writable again").await;
        let refused = self.refused;
        self.send("after", EACH).await;
        assert_eq!(self.refused, refused, "{}: healthy again", self.mode);
    }

    /// Checks that the change of the log had no effect: no request is rejected, and no event is
    /// lost.
    async fn does_not_care(&mut self) {
        let refused = self.refused;
        self.send("meanwhile", EACH).await;
        // The change has been detected by then.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let (code, text) = self.readyz().await;
        assert!(code == 200 && text.contains("[+]audit-log ok"), "{}: {text}", self.mode);
        self.send("after", EACH).await;
        assert_eq!(self.refused, refused, "{}", self.mode);
    }

    /// Stops the proxy, and checks that each event is in one of the files or was counted as lost.
    /// `others` are files that were the log meanwhile, in addition to the first and the last one.
    async fn ends(mut self, what: &str, others: &[PathBuf]) -> Proxy {
        let handed = self.proxy.metric("apiserver_audit_event_total").await as usize;
        let mode = self.mode;
        assert!(self.proxy.stop().await.success());
        let mut found: HashSet<_> = events_in(&self.first).into_iter().collect();
        for path in others.iter().chain([&self.log]) {
            found.extend(events_in(&File::open(path).unwrap()));
        }
        let is_there = |id: &str, stage: &str| found.contains(&(id.to_owned(), stage.to_owned()));
        let whole = |id: &str| is_there(id, "RequestReceived") && is_there(id, "ResponseComplete");
        if self.is_strict() {
            self.passed.iter().for_each(|id| assert!(whole(id), "{what}: {id} passed"));
        }
        let after = (0..EACH).map(|number| format!("after-{number}"));
        after.for_each(|id| assert!(whole(&id), "{what}, {mode}: {id}"));
        let (requests, refused) = (self.requests, self.refused);
        let (events, lost) = (found.len(), handed - found.len());
        Tally { requests, events, refused, lost }.print(&format!("{what}, {mode}"));
        let said = self.proxy.process.stderr();
        assert_eq!(lost, told_lost(&said), "{what}, {mode}: missing events were logged as lost");
        self.proxy
    }
}

/// Returns the number of lost events according to the proxy's own log.
fn told_lost(said: &str) -> usize {
    let counts = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Error in audit plugin 'log' affecting ")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    });
    counts.sum()
}

/// Returns ID and stage of each event in the file. Checks that each occurs once and that every line
/// is an event.
fn events_in(mut file: &File) -> Vec<(String, String)> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    let event = |line: &str| {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("a line is not an event ({error}):\n{line}"));
        (value["auditID"].as_str().unwrap().to_owned(), value["stage"].as_str().unwrap().to_owned())
    };
    let events: Vec<_> = text.lines().map(event).collect();
    let distinct: HashSet<_> = events.iter().collect();
    assert_eq!(distinct.len(), events.len(), "an event is there twice");
    events
}
