//! The audit log under load: batches, and a full disk. `rotation.rs` tests rotation.

use tokio::task::JoinSet;

use crate::support::audit_log;
use crate::support::client::{self, Short};
use crate::support::http1;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};

const STREAMS: usize = 16;

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Sends this many requests over one connection, several concurrently; their audit IDs are
/// `load-NUMBER`.
async fn load(proxy: &Proxy, count: usize) {
    let sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let mut running = JoinSet::new();
    for stream in 0..STREAMS {
        let mut sender = sender.clone();
        running.spawn(async move {
            for number in (stream..count).step_by(STREAMS) {
                let id = format!("load-{number}");
                let answer =
                    client::h2_get(&mut sender, "/api/v1/pods", &[("audit-id", &id)]).await;
                assert_eq!(answer.unwrap().status(), 200);
            }
        });
    }
    running.join_all().await;
}

fn assert_each_twice(lines: &[String], count: usize) {
    let mut seen = vec![0; count];
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = value["auditID"].as_str().unwrap().trim_start_matches("load-");
        seen[number.parse::<usize>().unwrap()] += 1;
    }
    let wrong: Vec<_> = (0..count).filter(|&number| seen[number] != 2).collect();
    assert!(wrong.is_empty(), "not two events each: {wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_a_batch_is_written_at_the_end() {
    let upstream = ok_upstream().await;
    let builder = Builder::new(upstream.addr).flag("--audit-log-mode=batch");
    let builder = builder.flag("--audit-log-batch-max-wait=1h");
    let mut proxy = builder.flag("--audit-log-batch-max-size=400").start().await;
    load(&proxy, 1_000).await;
    assert_eq!(proxy.stop().await.code(), Some(0));
    assert_each_twice(&audit_log::lines(&proxy.log), 1_000);
}

#[tokio::test]
async fn a_strict_proxy_forwards_nothing_that_it_cannot_record() {
    let upstream = ok_upstream().await;
    let builder = Builder::new(upstream.addr).flag("--audit-log-mode=blocking-strict");
    let builder = builder.flag("--audit-log-path=/dev/full");
    let proxy = builder.start().await;
    for method in ["GET", "POST", "DELETE"] {
        let request = http1::request(method, "/api/v1/namespaces/a/pods", &[], b"");
        let answer = http1::exchange(proxy.addr, Some("admin"), &request).await.unwrap();
        assert_eq!(answer.head.status, 500, "{method}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("failed to store audit event"), "{text}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    let (_, metrics) = client::admin(proxy.admin, "/metrics").await.unwrap();
    let rejected =
        metrics.lines().find(|l| l.starts_with("apiserver_audit_requests_rejected_total"));
    assert!(rejected.is_some_and(|line| line.ends_with(" 3")), "{rejected:?}");
}

#[tokio::test]
async fn a_blocking_proxy_continues_and_counts_lost_events() {
    let upstream = ok_upstream().await;
    let builder = Builder::new(upstream.addr).flag("--audit-log-path=/dev/full");
    let proxy = builder.start().await;
    let answer = http1::get(proxy.addr, Some("admin"), "/api/v1/pods", &[]).await.unwrap();
    assert_eq!(answer.head.status, 200);
    let (_, metrics) = client::admin(proxy.admin, "/metrics").await.unwrap();
    let errors = metrics.lines().filter(|line| line.starts_with("apiserver_audit_error_total"));
    let counts: Vec<_> = errors.filter_map(|line| line.rsplit(' ').next()).collect();
    assert!(counts.contains(&"2"), "{metrics}");
}

#[tokio::test]
async fn standard_output_is_a_log_too() {
    let upstream = ok_upstream().await;
    let mut proxy = Builder::new(upstream.addr).flag("--audit-log-path=-").start().await;
    let lines = ["Audit-ID: out"];
    http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &lines).await.unwrap();
    assert_eq!(proxy.stop().await.code(), Some(0));
    let printed = proxy.process.stdout();
    assert_eq!(printed.lines().filter(|line| line.contains("\"auditID\":\"out\"")).count(), 2);
}

/// In blocking mode, the first event is in the log before the API server receives the request, and
/// the last one before the client receives the end of the response.
#[tokio::test]
async fn events_are_stored_before_the_request_or_response_is_forwarded() {
    let log = std::sync::Arc::new(std::sync::OnceLock::<std::path::PathBuf>::new());
    let path = std::sync::Arc::clone(&log);
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let id = request.headers()["audit-id"].to_str().unwrap().to_owned();
        let lines = audit_log::lines(path.get().unwrap());
        async move {
            let is_stored = lines.iter().any(|line| line.contains(&format!("\"{id}\"")));
            json(if is_stored { 200 } else { 500 }, "{}")
        }
    })
    .await;
    let proxy = Builder::new(upstream.addr).start().await;
    log.set(proxy.log.clone()).unwrap();
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    for number in 0..100 {
        let id = format!("ahead-{number}");
        let line = format!("Audit-ID: {id}");
        let status = if number % 2 == 0 {
            let lines = [line.as_str()];
            let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &lines).await;
            answer.unwrap().head.status
        } else {
            let headers = [("audit-id", id.as_str())];
            let answer = client::h2_get(&mut sender, "/api/v1/pods", &headers).await.unwrap();
            let status = answer.status().as_u16();
            client::whole(answer).await.unwrap();
            status
        };
        assert_eq!(status, 200, "the API server got it before the log");
        let lines = audit_log::lines(&proxy.log);
        let mine = lines.iter().filter(|line| line.contains(&format!("\"{id}\"")));
        assert_eq!(mine.count(), 2, "the client had the whole answer before the log");
    }
}
