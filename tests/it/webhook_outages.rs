//! A webhook endpoint that is down for a while, and one that is too slow: the effects on events and
//! requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::client::{self, Short};
use crate::support::proxy::{Builder, Proxy, resident};
use crate::support::tally::Tally;
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{DEADLINE, TempDir, audit_log};
use crate::webhook::{SPOOL, Taken, arrived, kubeconfig, taker};

const BUFFERED: &str = "apiserver_audit_error_total{plugin=\"buffered\"}";
const WEBHOOK: &str = "apiserver_audit_error_total{plugin=\"webhook\"}";
const HEALTHY: &str = "kube_audit_proxy_delivery_healthy{backend=\"webhook\"}";
/// Requests in flight at a time.
const STREAMS: usize = 8;
/// No request waits for a webhook in batch mode, whose own time limit is 30 s.
const DELAYED: Duration = Duration::from_secs(5);

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Sends the requests `load-NUMBER`. Returns how long the slowest took.
async fn load(proxy: &Proxy, numbers: std::ops::Range<usize>, padding: usize) -> Duration {
    let sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let target = format!("/api/v1/pods?padding={}", "p".repeat(padding));
    let mut running = JoinSet::new();
    for stream in 0..STREAMS {
        let (mut sender, target) = (sender.clone(), target.clone());
        let numbers = (numbers.start + stream..numbers.end).step_by(STREAMS);
        running.spawn(async move {
            let mut longest = Duration::ZERO;
            for number in numbers {
                let (id, asked) = (format!("load-{number}"), Instant::now());
                let headers = [("audit-id", id.as_str())];
                let answer = client::h2_get(&mut sender, &target, &headers).await.unwrap();
                assert_eq!(answer.status(), 200, "{id}");
                client::whole(answer).await.unwrap();
                longest = longest.max(asked.elapsed());
            }
            longest
        });
    }
    running.join_all().await.into_iter().max().unwrap()
}

async fn until(proxy: &Proxy, name: &str, value: u64) {
    let started = Instant::now();
    while proxy.metric(name).await != value {
        assert!(started.elapsed() < DEADLINE, "{name} does not become {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The outage lasts for many attempts; the initial backoff is 20 ms here instead of 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_webhook_endpoint_receives_everything_from_the_spool() {
    const EACH: usize = 150;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let addr = receiver.addr;
    let mut proxy = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, addr))
        .flag("--audit-webhook-initial-backoff=20ms")
        .flag("--audit-webhook-batch-max-size=25")
        .flag("--audit-webhook-batch-max-wait=20ms")
        .flag("--audit-webhook-batch-throttle-enable=false")
        .flag(&format!("--audit-webhook-spool-dir={}", dir.path("spool").display()))
        .start()
        .await;
    load(&proxy, 0..EACH, 0).await;
    receiver.stop().await;
    let down = Instant::now();
    let longest = load(&proxy, EACH..2 * EACH, 0).await;
    assert!(longest < DELAYED, "{longest:?}");
    until(&proxy, HEALTHY, 0).await;
    // More attempts have failed than a batch gets without a spool.
    let failures = "kube_audit_proxy_delivery_failures_total{backend=\"webhook\"}";
    while proxy.metric(failures).await < 6 {
        assert!(down.elapsed() < DEADLINE, "it is not tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let spooled = proxy.metric(SPOOL).await;
    assert!(spooled > 0);
    let receiver = FakeUpstream::start_on(addr, Protocols::Http1, taker(&taken)).await;
    until(&proxy, HEALTHY, 1).await;
    load(&proxy, 2 * EACH..3 * EACH, 0).await;
    until(&proxy, SPOOL, 0).await;
    let lost = (proxy.metric(WEBHOOK).await + proxy.metric(BUFFERED).await) as usize;
    assert!(proxy.stop().await.success());
    let arrived = arrived(&taken, "load-", 3 * EACH);
    let (requests, events) = (3 * EACH, arrived.iter().sum());
    Tally { requests, events, refused: 0, lost }.print("receiver down and back, spool");
    println!("  {spooled} bytes in the spool, slowest request {longest:?}");
    // A batch whose response was interrupted by the end of the endpoint is sent again: at least
    // once.
    assert!(arrived.iter().all(|&count| count >= 2), "{arrived:?}");
    assert_eq!(lost, 0);
    assert_eq!(audit_log::lines(&proxy.log).len(), 2 * requests, "the log has them all");
    drop(receiver);
}

/// Returns the maximum of the resident memory until it is stopped.
fn watch_memory(proxy: &Proxy) -> (Arc<AtomicBool>, std::thread::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, id) = (Arc::clone(&stop), proxy.process.id());
    let most = std::thread::spawn(move || {
        let mut most = 0;
        while !stopped.load(Ordering::Relaxed) {
            most = most.max(resident(id));
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    (stop, most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_slow_costs_no_memory_and_delays_nobody() {
    const REQUESTS: usize = 2_000;
    const PADDING: usize = 2_500;
    /// Maximum size of waiting events: 400 in the queue, 16 batches of 10 in flight.
    const WAITING: u64 = 560 * 3_500;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let take = taker(&taken);
    let receiver = FakeUpstream::start(Protocols::Http1, move |request| {
        let taking = take(request);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            taking.await
        }
    })
    .await;
    let mut proxy = Builder::new(upstream.addr)
        .flag("--audit-log-mode=blocking-strict")
        .flag(&kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-batch-buffer-size=400")
        .flag("--audit-webhook-batch-max-size=10")
        .flag("--audit-webhook-batch-max-wait=20ms")
        .flag("--audit-webhook-batch-throttle-enable=false")
        .start()
        .await;
    // Until the queue is full: later events are lost and do not evict earlier ones.
    load(&proxy, 0..REQUESTS, PADDING).await;
    assert!(proxy.metric(BUFFERED).await > 0, "it is too slow");
    let before = proxy.process.resident();
    let (stop, most) = watch_memory(&proxy);
    let longest = load(&proxy, REQUESTS..2 * REQUESTS, PADDING).await;
    stop.store(true, Ordering::Relaxed);
    let most = most.join().unwrap();
    assert!(longest < DELAYED, "{longest:?}");
    let ready = client::admin(proxy.admin, "/readyz").await.unwrap();
    assert_eq!(ready, (200, "ok".into()), "slow is not broken");
    assert_eq!(proxy.metric(WEBHOOK).await, 0, "what was sent has arrived");
    assert!(proxy.stop().await.success());
    let said = proxy.process.stderr();
    let told = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Error in audit plugin 'buffered' affecting ")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    });
    let lost = told.sum();
    let events = arrived(&taken, "load-", 2 * REQUESTS).iter().sum();
    let requests = 2 * REQUESTS;
    Tally { requests, events, refused: 0, lost }.print("receiver slow");
    println!(
        "  memory {} KiB before, at most {} KiB while 13 MB of events came; slowest request {longest:?}",
        before >> 10,
        most >> 10
    );
    assert_eq!(events + lost, 2 * requests, "events that did not arrive were logged as lost");
    let grown = most.saturating_sub(before);
    assert!(grown < WAITING + (4 << 20), "grown by {grown} bytes");
    assert_eq!(audit_log::lines(&proxy.log).len(), 2 * requests, "the log has them all");
}
