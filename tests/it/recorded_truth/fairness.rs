//! One client can neither prevent the recording of others nor delay them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::task::JoinSet;

use super::REQUEST_RESPONSE;
use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{in_time, wait_for};

const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const YAML: &str = "Content-Type: application/yaml";
const JSON: &str = "Content-Type: application/json";

async fn accepting() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |request| async move {
        request.into_body().collect().await?;
        json(201, "{}")
    })
    .await
}

async fn put(proxy: &Proxy, user: &str, id: &str, body: &[u8]) -> Duration {
    let headers = [JSON, &format!("Audit-ID: {id}")];
    let request = http1::request("PUT", &format!("{CONFIG_MAPS}/{id}"), &headers, body);
    let started = Instant::now();
    let answer = in_time(id, http1::exchange(proxy.addr, Some(user), &request)).await.unwrap();
    assert_eq!(answer.head.status, 201);
    started.elapsed()
}

#[tokio::test]
async fn unfinished_bodies_take_no_memory_from_others() {
    let upstream = accepting().await;
    let budget = "--audit-total-body-bytes=25165824";
    let proxy = Builder::new(upstream.addr).policy(REQUEST_RESPONSE).flag(budget).start().await;
    // Fifty bodies of 3 MB without their last bytes.
    let mut unfinished = Vec::new();
    for number in 0..50 {
        let head = format!(
            "POST {CONFIG_MAPS} HTTP/1.1\r\nHost: h\r\n{JSON}\r\nAudit-ID: unfinished-{number}\r\n\
             Content-Length: 3000000\r\n\r\n{{\"data\":\""
        );
        let mut connection = Connection::open(proxy.addr, Some("alice")).await.unwrap();
        connection.send(head.as_bytes()).await.unwrap();
        connection.send(&vec![b'x'; 2_900_000]).await.unwrap();
        unfinished.push(connection);
    }
    wait_for("all of them", || (upstream.seen().len() == 50).then_some(())).await;
    let mut log = proxy.audit_log();
    for (user, size) in [("bob", 1300), ("admin", 60_000), ("bob", 1_000_000)] {
        let id = format!("{user}-{size}");
        let body = format!(
            "{{\"metadata\":{{\"name\":\"n\"}},\"data\":{{\"a\":\"{}\"}}}}",
            "y".repeat(size)
        );
        put(&proxy, user, &id, body.as_bytes()).await;
        let events = log.wait_end(&id).await;
        assert_eq!(events[1].text("/requestObject/data/a").len(), size, "{id}");
        assert_eq!(events[1].at("/annotations"), None, "{id}");
    }
    // Even a small body of the same user.
    put(&proxy, "alice", "small", br#"{"data":{"a":"z"}}"#).await;
    assert_eq!(log.wait_end("small").await[1].text("/requestObject/data/a"), "z");
}

#[tokio::test]
async fn a_body_without_memory_is_annotated_as_truncated() {
    let upstream = accepting().await;
    let budget = "--audit-total-body-bytes=1000000";
    let proxy = Builder::new(upstream.addr).policy(REQUEST_RESPONSE).flag(budget).start().await;
    let body = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "y".repeat(1_000_000));
    put(&proxy, "bob", "long", body.as_bytes()).await;
    let events = proxy.audit_log().wait_end("long").await;
    assert!(events[1].text("/requestObject/data/a").len() > 60_000);
    let annotation = |name: &str| events[1].text(&format!("/annotations/{name}")).to_owned();
    assert_eq!(annotation("audit.k8s.io~1truncated"), "true");
    let note = annotation("kube-audit-proxy~1request-object");
    assert!(note.contains("--audit-total-body-bytes"), "{note}");
}

/// Returns YAML that takes long to convert.
fn slow_yaml(lines: usize) -> Vec<u8> {
    let mut body = b"kind: ConfigMap\nmetadata: {name: slow}\ndata:\n".to_vec();
    for line in 0..lines {
        body.extend_from_slice(
            format!("  key-{line}: \"a value of some \\u006cength\"\n").as_bytes(),
        );
    }
    body
}

/// Sends one body as alice. Returns how long the response takes.
async fn post_slow(addr: SocketAddr, id: &str, body: &[u8]) -> Duration {
    let headers = [YAML, &format!("Audit-ID: {id}")];
    let request = http1::request("POST", CONFIG_MAPS, &headers, body);
    let started = Instant::now();
    let answer = in_time(id, http1::exchange(addr, Some("alice"), &request)).await.unwrap();
    assert_eq!(answer.head.status, 201);
    started.elapsed()
}

/// Requests of each other user.
const COUNT: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_client_holds_up_nobody_else() {
    let upstream = accepting().await;
    let proxy = Builder::new(upstream.addr).policy(REQUEST_RESPONSE).start().await;
    // A body that takes long enough to convert, regardless of the speed of this machine.
    let (mut lines, mut alone) = (200, Duration::ZERO);
    let mut body = Vec::new();
    while alone < Duration::from_millis(500) && lines < 60_000 {
        lines *= 2;
        body = slow_yaml(lines);
        alone = post_slow(proxy.addr, &format!("alone-{lines}"), &body).await;
    }
    let mut quiet = Vec::new();
    for number in 0..COUNT {
        let id = format!("quiet-{number}");
        quiet.push(put(&proxy, "bob", &id, br#"{"data":{"a":"b"}}"#).await);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let mut hostile = JoinSet::new();
    for number in 0..4 {
        let (addr, body, ended) = (proxy.addr, body.clone(), ended.clone());
        hostile.spawn(async move {
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                post_slow(addr, &format!("hostile-{number}-{count}"), &body).await;
                count += 1;
            }
            count
        });
    }
    let before = upstream.seen().len();
    wait_for("the hostile requests", || (upstream.seen().len() >= before + 4).then_some(())).await;
    let mut times = Vec::new();
    for number in 0..COUNT {
        for user in ["bob", "admin"] {
            let id = format!("{user}-{number}");
            times.push(put(&proxy, user, &id, br#"{"data":{"a":"b"}}"#).await);
        }
    }
    ended.store(true, Ordering::Relaxed);
    times.sort();
    quiet.sort();
    let percentile = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
    let (median, p90, p99) =
        (percentile(&times, 50), percentile(&times, 90), percentile(&times, 99));
    let quiet_p99 = percentile(&quiet, 99);
    println!(
        "hostile: {alone:?} alone, {} bytes; others: median {median:?}, p90 {p90:?}, p99 {p99:?}, \
         without the hostile client p99 {quiet_p99:?}",
        body.len()
    );
    // Four conversions are always in progress. If a conversion blocked its worker thread, half of
    // the other requests would wait for one to four of them.
    assert!(p90 < alone / 2, "{p90:?}, {alone:?}");
    // Other work on the machine delays some requests in both runs.
    assert!(p99 < alone.max(3 * quiet_p99), "{p99:?}, {alone:?}, {quiet_p99:?}");
    let mut log = proxy.audit_log();
    for number in 0..COUNT {
        for user in ["bob", "admin"] {
            let events = log.wait_end(&format!("{user}-{number}")).await;
            assert_eq!(events[1].text("/requestObject/data/a"), "b");
            assert_eq!(events.len(), 2);
        }
    }
    for (number, count) in hostile.join_all().await.into_iter().enumerate() {
        assert!(count > 0, "{number}");
    }
    let events = log.wait_end("hostile-0-0").await;
    assert_eq!((events.len(), events[1].text("/objectRef/name")), (2, "slow"));
}

#[tokio::test]
async fn a_client_disconnecting_during_a_conversion_has_one_final_event() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        let answered = request.uri().path().ends_with("/answered");
        request.into_body().collect().await?;
        if answered {
            return json(200, "{}");
        }
        std::future::pending().await
    })
    .await;
    let mut proxy = Builder::new(upstream.addr).policy(REQUEST_RESPONSE).start().await;
    let body = slow_yaml(2000);
    for (id, code) in [("unanswered", 504), ("answered", 200)] {
        let headers = [YAML, &format!("Audit-ID: {id}")];
        let target = format!("{CONFIG_MAPS}/{id}");
        let request = http1::request("PUT", &target, &headers, &body);
        let mut connection = Connection::open(proxy.addr, Some("bob")).await.unwrap();
        connection.send(&request).await.unwrap();
        wait_for("the request", || (!upstream.take_seen().is_empty()).then_some(())).await;
        if id == "unanswered" {
            // The proxy has sent everything, because the API server has received it.
            tokio::task::yield_now().await;
        }
        drop(connection);
        let mut log = proxy.audit_log();
        let events = log.wait_end(id).await;
        assert_eq!(events.len(), 2);
        assert!([code, 504].contains(&events[1].code()), "{}", events[1].code());
    }
    assert!(proxy.stop().await.success());
    let mut log = proxy.audit_log();
    for id in ["unanswered", "answered"] {
        assert_eq!(log.of(id).len(), 2, "exactly one last event");
    }
}
