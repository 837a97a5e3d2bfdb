//! Shutdown ends within `--shutdown-timeout`, even if something hangs, and no event is lost without
//! being counted.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, client, http1, in_time, wait_for};
use crate::webhook::kubeconfig;

/// Tolerance for a busy machine.
const SLACK: Duration = Duration::from_millis(1_500);

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Returns an endpoint that reads requests and never responds.
async fn hanging() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| std::future::pending()).await
}

async fn get(proxy: &Proxy, id: &str) -> u16 {
    let line = format!("Audit-ID: {id}");
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await;
    answer.unwrap().head.status
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Stops the proxy, which must take less than `limit` plus the tolerance. Returns how long it took.
async fn stops_within(proxy: &mut Proxy, limit: Duration) -> Duration {
    let started = Instant::now();
    let status = proxy.stop().await;
    let took = started.elapsed();
    assert!(took < limit + SLACK, "took {took:?}:\n{}", proxy.process.stderr());
    assert!(status.success(), "{status}:\n{}", proxy.process.stderr());
    took
}

/// Returns the number of events that a backend has logged as lost.
fn told(proxy: &Proxy, sink: &str) -> usize {
    let said = proxy.process.stderr();
    let lines = said.lines().filter(|line| line.contains(&format!("sink=\"{sink}\"")));
    let counts = lines.filter_map(|line| {
        let (_, rest) = line.split_once(" affecting ")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    });
    counts.sum()
}

#[tokio::test]
async fn a_webhook_that_hangs_costs_no_more_than_the_timeout_and_its_events_are_counted() {
    let (upstream, receiver, dir) = (upstream().await, hanging().await, TempDir::new());
    let mut proxy = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-batch-max-size=2")
        .flag("--audit-webhook-batch-max-wait=1h")
        .flag("--audit-webhook-batch-throttle-qps=0.1")
        .flag("--audit-webhook-batch-throttle-burst=1")
        .flag("--shutdown-timeout=2s")
        .start()
        .await;
    // In flight, waiting for the throttle, and in the queue.
    for number in 0..11 {
        assert_eq!(get(&proxy, &format!("hangs-{number}")).await, 200);
    }
    wait_for("the first batch", || (!receiver.seen().is_empty()).then_some(())).await;
    stops_within(&mut proxy, Duration::from_secs(2)).await;
    assert_eq!(told(&proxy, "webhook"), 22, "{}", proxy.process.stderr());
    proxy.process.logs("the shutdown ended before the webhook accepted them").await;
}

#[tokio::test]
async fn a_webhook_that_requests_wait_for_may_hang_too() {
    for mode in ["blocking", "blocking-strict"] {
        let (upstream, receiver, dir) = (upstream().await, hanging().await, TempDir::new());
        let mut proxy = Builder::new(upstream.addr)
            .flag(&kubeconfig(&dir, receiver.addr))
            .flag(&format!("--audit-webhook-mode={mode}"))
            .flag("--shutdown-timeout=2s")
            .start()
            .await;
        let mut waiting = http1::Connection::open(proxy.addr, Some("alice")).await.unwrap();
        let request = http1::request("GET", "/api/v1/pods", &[], b"");
        waiting.send(&request).await.unwrap();
        wait_for("the event", || (!receiver.seen().is_empty()).then_some(())).await;
        stops_within(&mut proxy, Duration::from_secs(2)).await;
        // `RequestReceived`, and the last event.
        assert_eq!(told(&proxy, "webhook"), 2, "{mode}: {}", proxy.process.stderr());
    }
}

#[tokio::test]
async fn shutdown_does_not_wait_for_the_spool() {
    let (upstream, receiver, dir) = (upstream().await, hanging().await, TempDir::new());
    let spool = dir.path("spool");
    let mut proxy = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-batch-max-size=2")
        .flag(&format!("--audit-webhook-spool-dir={}", spool.display()))
        .start()
        .await;
    for number in 0..5 {
        assert_eq!(get(&proxy, &format!("spooled-{number}")).await, 200);
    }
    let took = stops_within(&mut proxy, Duration::from_secs(3)).await;
    println!("ended after {took:?}");
    let batches = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let texts = batches.map(|path| std::fs::read_to_string(path).unwrap());
    assert_eq!(texts.map(|text| text.matches("auditID").count()).sum::<usize>(), 10);
    assert_eq!(told(&proxy, "webhook"), 0);
}

/// Like standard output of `kube-audit-proxy | sleep 1000`.
#[tokio::test]
async fn a_stuck_reader_delays_shutdown_by_the_timeout_and_waiting_events_are_counted() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let pipe = dir.path("pipe");
    mkfifo(&pipe);
    let reading = pipe.clone();
    let reader = std::thread::spawn(move || std::fs::File::open(reading).unwrap());
    let mut proxy = Builder::new(upstream.addr)
        .flag(&format!("--audit-log-path={}", pipe.display()))
        .flag("--audit-log-mode=batch")
        .flag("--shutdown-timeout=2s")
        .start()
        .await;
    let reader = reader.join().unwrap();
    let padding = format!("/api/v1/pods?padding={}", "p".repeat(8_000));
    for number in 0..20 {
        let line = format!("Audit-ID: stuck-{number}");
        let answer = http1::get(proxy.addr, Some("alice"), &padding, &[&line]).await.unwrap();
        assert_eq!(answer.head.status, 200);
    }
    let healthy = "kube_audit_proxy_backend_healthy{backend=\"log\"}";
    let started = Instant::now();
    while proxy.metric(healthy).await == 1 {
        assert!(started.elapsed() < Duration::from_secs(20), "it is not noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // No request waits for it.
    let (code, text) = client::admin(proxy.admin, "/readyz?verbose").await.unwrap();
    assert!(code == 200 && text.contains("[-]audit-log failed: "), "{text}");
    stops_within(&mut proxy, Duration::from_secs(2)).await;
    let lost = told(&proxy, "log");
    // The events in the pipe count as written.
    use std::io::Read;
    let mut text = Vec::new();
    (&reader).take(1 << 20).read_to_end(&mut text).unwrap();
    let arrived = String::from_utf8(text).unwrap().matches('\n').count();
    assert!(lost > 0 && arrived > 0, "{lost} lost, {arrived} arrived");
    assert!(lost + arrived >= 40, "{lost} lost, {arrived} arrived");
    assert!(lost <= 40, "{lost}");
}

#[tokio::test]
async fn idle_clients_and_incomplete_requests_do_not_delay_shutdown() {
    let upstream = upstream().await;
    let mut proxy = Builder::new(upstream.addr).flag("--shutdown-timeout=60s").start().await;
    let _raw = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
    let idle = http1::Connection::open(proxy.addr, Some("alice")).await.unwrap();
    let mut half = http1::Connection::open(proxy.addr, Some("alice")).await.unwrap();
    half.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: a\r\nX-Half: ").await.unwrap();
    let mut used = http1::Connection::open(proxy.addr, Some("alice")).await.unwrap();
    used.send(&http1::request("GET", "/api/v1/pods", &[], b"")).await.unwrap();
    in_time("an answer", used.answer("GET")).await.unwrap();
    used.send(b"GET /api/v1/pods HT").await.unwrap();
    let mut admin = tokio::net::TcpStream::connect(proxy.admin).await.unwrap();
    admin.write_all(b"GET /livez HT").await.unwrap();
    // A client that uses HTTP/2 and reads nothing, so it does not react to GOAWAY.
    let mut silent = client::tls(proxy.addr, Some("alice"), &[b"h2"]).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    silent.flush().await.unwrap();
    let h2 = client::http2::<client::Short>(proxy.addr, Some("alice")).await.unwrap();
    stops_within(&mut proxy, Duration::from_secs(3)).await;
    drop((idle, half, used, silent, h2));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let (upstream, receiver, dir) = (upstream().await, hanging().await, TempDir::new());
    let mut proxy = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-batch-max-wait=1ms")
        .flag("--shutdown-timeout=10m")
        .start()
        .await;
    assert_eq!(get(&proxy, "twice-0").await, 200);
    wait_for("the event", || (!receiver.seen().is_empty()).then_some(())).await;
    proxy.process.signal("TERM");
    wait_for("the begin of the end", || {
        proxy.process.stderr().contains("shutting down").then_some(())
    })
    .await;
    assert!(proxy.process.ended().is_none());
    let started = Instant::now();
    proxy.process.signal("INT");
    proxy.process.wait().await;
    assert!(started.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", started.elapsed());
    assert_eq!(told(&proxy, "webhook"), 2, "{}", proxy.process.stderr());
}

#[tokio::test]
async fn named_pipes_in_place_of_files_are_rejected_without_blocking() {
    let dir = TempDir::new();
    let pipe = dir.path("pipe");
    mkfifo(&pipe);
    let addr = "127.0.0.1:1".parse().unwrap();
    let path = pipe.display().to_string();
    let log = Builder::new(addr).flag(&format!("--audit-log-path={path}"));
    let mut starting = log.spawn();
    let (code, said) = log.run_to_end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it is a named pipe that no process reads"), "{said}");
    starting.wait().await;
    for flag in ["--client-ca-file", "--token-auth-file", "--tls-cert-file", "--config"] {
        let (code, said) = Builder::new(addr).flag(&format!("{flag}={path}")).run_to_end().await;
        assert!(matches!(code, Some(1 | 2)), "{flag}: {said}");
        assert!(said.contains("it is a named pipe, where a regular file"), "{flag}: {said}");
    }
    let (code, said) = Builder::new(addr).policy_file(pipe).run_to_end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it is a named pipe, where a regular file is expected"), "{said}");
}

#[tokio::test]
async fn a_signal_ends_a_hanging_start() {
    let dir = TempDir::new();
    let pipe = dir.path("pipe");
    mkfifo(&pipe);
    let addr = "127.0.0.1:1".parse().unwrap();
    // It waits two seconds for a reader.
    let log = Builder::new(addr).flag(&format!("--audit-log-path={}", pipe.display()));
    let mut starting = log.spawn();
    // Signals are handled before any file is opened, and the lock file of the spool does not exist
    // yet.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    starting.signal("TERM");
    starting.wait().await;
    assert!(started.elapsed() < SLACK, "{:?}: {}", started.elapsed(), starting.stderr());
}

#[tokio::test]
async fn a_policy_replaced_by_a_named_pipe_blocks_nothing() {
    let upstream = upstream().await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    std::fs::remove_file(&proxy.policy).unwrap();
    mkfifo(&proxy.policy);
    wait_for("the complaint", || {
        proxy.process.stderr().contains("it is a named pipe, where a regular file").then_some(())
    })
    .await;
    assert_eq!(get(&proxy, "still").await, 200);
    assert_eq!(client::admin(proxy.admin, "/livez").await.unwrap().0, 200);
    stops_within(&mut proxy, Duration::from_secs(2)).await;
}
