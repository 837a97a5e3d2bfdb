//! Events are sent to a webhook endpoint: in lists, with retries, and from the spool after an
//! outage.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::Value;

use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, audit_log, corpus, http1, wait_for};

pub const SPOOL: &str = "kube_audit_proxy_spool_bytes{backend=\"webhook\"}";

/// The lists that the endpoint has accepted.
pub type Taken = Arc<Mutex<Vec<Value>>>;

/// Returns the list in a request's body.
async fn list(request: Request<Incoming>) -> Option<Value> {
    let compressed = request.headers().contains_key("content-encoding");
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let mut text = Vec::new();
    if compressed {
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).ok()?;
    } else {
        text = body.to_vec();
    }
    serde_json::from_slice(&text).ok()
}

/// Writes a kubeconfig with this endpoint for `--audit-webhook-config-file`.
pub fn kubeconfig(dir: &TempDir, receiver: SocketAddr) -> String {
    let text = receiver_of(receiver);
    format!("--audit-webhook-config-file={}", dir.write("webhook.conf", &text).display())
}

/// Returns a kubeconfig with this endpoint.
pub fn receiver_of(receiver: SocketAddr) -> String {
    let pki = |name: &str| corpus::pki(name).display().to_string();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: r, user: u}}}}]\n\
         clusters: [{{name: r, cluster: {{server: \"https://{receiver}/v1/events\", \
         certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: u, user: {{client-certificate: \"{}\", client-key: \"{}\"}}}}]\n",
        pki("ca.crt"),
        pki("front-proxy-client.crt"),
        pki("front-proxy-client.key"),
    )
}

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Returns an endpoint that accepts everything.
pub fn taker(taken: &Taken) -> impl Fn(Request<Incoming>) -> TakerFuture + Send + Sync + 'static {
    let taken = Arc::clone(taken);
    move |request| {
        let taken = Arc::clone(&taken);
        Box::pin(async move {
            let list = list(request).await.ok_or("no list")?;
            taken.lock().unwrap().push(list);
            json(200, "")
        })
    }
}

pub type TakerFuture =
    std::pin::Pin<Box<dyn Future<Output = crate::support::upstream::Answered> + Send + 'static>>;

async fn get(proxy: &Proxy, id: &str) -> u16 {
    let line = format!("Audit-ID: {id}");
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await;
    answer.unwrap().head.status
}

/// Returns how often each of the requests `prefix-0`… has arrived with both events.
pub fn arrived(taken: &Taken, prefix: &str, count: usize) -> Vec<usize> {
    let mut seen = vec![0; count];
    for list in taken.lock().unwrap().iter() {
        for item in list["items"].as_array().unwrap() {
            let id = item["auditID"].as_str().unwrap();
            let number = id.strip_prefix(prefix).and_then(|number| number.parse::<usize>().ok());
            number.into_iter().for_each(|number| seen[number] += 1);
        }
    }
    seen
}

#[tokio::test]
async fn webhook_lists_are_like_kube_apiservers_and_contain_the_logged_events() {
    for compress in [false, true] {
        let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
        let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
        let mut proxy = Builder::new(upstream.addr)
            .flag(&kubeconfig(&dir, receiver.addr))
            .flag(&format!("--audit-webhook-compress={compress}"))
            .start()
            .await;
        for number in 0..3 {
            assert_eq!(get(&proxy, &format!("list-{number}")).await, 200);
        }
        assert_eq!(proxy.metric("apiserver_audit_event_total").await, 6);
        assert!(proxy.stop().await.success(), "what waits is sent at the end");
        let seen = receiver.seen();
        assert_eq!(seen.len(), 1, "one batch");
        assert_eq!((&*seen[0].method, &*seen[0].target), ("POST", "/v1/events?timeout=30s"));
        assert_eq!(seen[0].all("content-type"), ["application/json"]);
        assert_eq!(seen[0].all("accept"), ["application/json, */*"]);
        assert_eq!(seen[0].all("content-encoding").len(), usize::from(compress));
        assert!(seen[0].certificate.is_some());
        let list = taken.lock().unwrap().remove(0);
        assert_eq!(list["kind"], "EventList");
        let mut logged = Vec::new();
        for line in audit_log::lines(&proxy.log) {
            let mut event: Value = serde_json::from_str(&line).unwrap();
            let members = event.as_object_mut().unwrap();
            assert_eq!(members.remove("kind").unwrap(), "Event");
            assert_eq!(members.remove("apiVersion").unwrap(), "audit.k8s.io/v1");
            logged.push(event);
        }
        assert_eq!(list["items"].as_array().unwrap(), &logged);
    }
}

#[tokio::test]
async fn a_webhook_endpoint_that_fails_eventually_receives_everything() {
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let (asked, take) = (AtomicUsize::new(0), taker(&taken));
    let receiver = FakeUpstream::start(Protocols::Http1, move |request| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        // Four times, so that no batch fails all of its attempts.
        let taking = (number >= 4).then(|| take(request));
        async move {
            match (taking, number) {
                (Some(taking), _) => taking.await,
                (None, 0 | 3) => json(500, "not now"),
                (None, 1) => {
                    let mut answer = json(429, "")?;
                    answer.headers_mut().insert("retry-after", "1".parse().unwrap());
                    Ok(answer)
                }
                // The connection is closed before the response.
                (None, _) => Err("as the test wants it".into()),
            }
        }
    })
    .await;
    let mut proxy = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-initial-backoff=10ms")
        .flag("--audit-webhook-batch-max-size=5")
        .flag("--audit-webhook-batch-max-wait=50ms")
        .start()
        .await;
    for number in 0..10 {
        assert_eq!(get(&proxy, &format!("failing-{number}")).await, 200);
    }
    assert!(proxy.stop().await.success());
    let arrived = arrived(&taken, "failing-", 10);
    assert!(arrived.iter().all(|&count| count == 2), "{arrived:?}");
}

#[tokio::test]
async fn events_that_the_endpoint_never_accepts_are_lost_and_counted() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, |_| async { json(400, "") }).await;
    let proxy = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-initial-backoff=1ms")
        .flag("--audit-webhook-batch-max-wait=10ms")
        .start()
        .await;
    assert_eq!(get(&proxy, "lost").await, 200);
    let started = std::time::Instant::now();
    while proxy.metric("apiserver_audit_error_total{plugin=\"webhook\"}").await < 2 {
        assert!(started.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(receiver.seen().len() % 5, 0, "five attempts each");
}

#[tokio::test]
async fn a_strict_webhook_rejects_requests_whose_events_it_cannot_send() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, |_| async { json(500, "") }).await;
    let builder = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-mode=blocking-strict")
        .flag("--audit-webhook-initial-backoff=1ms");
    let proxy = builder.start().await;
    assert_eq!(get(&proxy, "refused").await, 500);
    assert!(upstream.seen().is_empty());
    assert_eq!(proxy.metric("apiserver_audit_requests_rejected_total").await, 1);
    // The log has accepted the event before; the webhook causes the rejection.
    assert_eq!(proxy.audit_log().of("refused").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_loses_nothing_though_receiver_and_proxy_are_down() {
    const EACH: usize = 100;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let addr = receiver.addr;
    receiver.stop().await;
    let start = || {
        Builder::new(upstream.addr)
            .flag(&kubeconfig(&dir, addr))
            .flag("--audit-webhook-initial-backoff=50ms")
            .flag("--audit-webhook-batch-max-size=10")
            .flag("--audit-webhook-batch-max-wait=20ms")
            .flag("--audit-webhook-batch-throttle-enable=false")
            .flag(&format!("--audit-webhook-spool-dir={}", dir.path("spool").display()))
            .start()
    };
    let files = || std::fs::read_dir(dir.path("spool")).unwrap().count();
    let events = || {
        let names = std::fs::read_dir(dir.path("spool")).unwrap().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let counts = names.filter_map(|name| {
            let rest = name.strip_suffix(".json")?.split_once('-')?.1;
            rest.parse::<usize>().ok()
        });
        counts.sum::<usize>()
    };
    // One process that is killed, and one that shuts down gracefully.
    let mut killed = start().await;
    for number in 0..EACH {
        assert_eq!(get(&killed, &format!("spool-{number}")).await, 200);
    }
    wait_for("all are in the spool", || (events() == 2 * EACH).then_some(())).await;
    assert!(killed.metric(SPOOL).await > 0);
    killed.process.signal("KILL");
    killed.process.wait().await;
    let mut ended = start().await;
    for number in EACH..2 * EACH {
        assert_eq!(get(&ended, &format!("spool-{number}")).await, 200);
    }
    assert!(ended.stop().await.success());
    assert_eq!(events(), 4 * EACH);

    let receiver = FakeUpstream::start_on(addr, Protocols::Http1, taker(&taken)).await;
    let proxy = start().await;
    wait_for("the spool is empty", || (files() == 0).then_some(())).await;
    let arrived = arrived(&taken, "spool-", 2 * EACH);
    assert!(arrived.iter().all(|&count| count == 2), "{arrived:?}");
    // The last batch is removed from the state just after its file.
    let started = std::time::Instant::now();
    while proxy.metric(SPOOL).await > 0 {
        assert!(started.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let lists = taken.lock().unwrap();
    let ids = lists.iter().flat_map(|list| list["items"].as_array().unwrap()).map(|item| {
        item["auditID"].as_str().unwrap().trim_start_matches("spool-").parse::<usize>().unwrap()
    });
    assert!(ids.is_sorted(), "in order");
    drop(receiver);
}

#[tokio::test]
async fn a_full_spool_drops_and_counts_the_newest_and_delays_no_request() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let down = "127.0.0.1:1".parse().unwrap();
    let mut proxy = Builder::new(upstream.addr)
        .flag(&kubeconfig(&dir, down))
        .flag("--audit-webhook-initial-backoff=50ms")
        .flag("--audit-webhook-batch-max-size=20")
        .flag("--audit-webhook-batch-max-wait=20ms")
        .flag("--audit-webhook-batch-throttle-enable=false")
        .flag(&format!("--audit-webhook-spool-dir={}", dir.path("spool").display()))
        .flag("--audit-webhook-spool-max-size=1")
        .start()
        .await;
    let padding = format!("/api/v1/pods?padding={}", "p".repeat(8_000));
    // Two events each, of more than 8 kB: 1.6 MB.
    for number in 0..100 {
        let line = format!("Audit-ID: full-{number}");
        let answer = http1::get(proxy.addr, Some("alice"), &padding, &[&line]).await.unwrap();
        assert_eq!(answer.head.status, 200);
    }
    let started = std::time::Instant::now();
    while proxy.metric("apiserver_audit_error_total{plugin=\"webhook\"}").await == 0 {
        assert!(started.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let kept = proxy.metric(SPOOL).await;
    assert!((800_000..=1 << 20).contains(&kept), "{kept}");
    assert!(proxy.stop().await.success());
    let lost = proxy.process.stderr();
    assert!(lost.contains("the webhook's spool is full; raise --audit-webhook-spool-max-size"));
    assert_eq!(audit_log::lines(&proxy.log).len(), 200, "the log has them all");
    let first = std::fs::read_dir(dir.path("spool")).unwrap().flatten().map(|e| e.path()).min();
    let first = std::fs::read_to_string(first.unwrap()).unwrap();
    assert!(first.contains("\"full-0\""), "the oldest stay");
}

#[tokio::test]
async fn a_webhook_endpoint_without_a_ca_is_verified_with_the_systems_cas() {
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let config = receiver_of(receiver.addr);
    let ca = corpus::pki("ca.crt").display().to_string();
    let config = config.replace(&format!(", certificate-authority: \"{ca}\""), "");
    assert!(!config.contains("certificate-authority"), "{config}");
    let flag = format!("--audit-webhook-config-file={}", dir.write("w", &config).display());
    for (roots, arrives) in [(ca.as_str(), true), ("/dev/null", false)] {
        taken.lock().unwrap().clear();
        let builder = Builder::new(upstream.addr).flag(&flag).env("SSL_CERT_FILE", roots);
        let builder = builder.env("SSL_CERT_DIR", "/nowhere");
        if !arrives {
            let (code, said) = builder.run_to_end().await;
            assert_eq!(code, Some(1));
            assert!(said.contains("--audit-webhook-config-file"), "{said}");
            assert!(said.contains("this system has no CA certificates to verify"), "{said}");
            continue;
        }
        let mut proxy = builder.start().await;
        assert_eq!(get(&proxy, "system-0").await, 200);
        assert!(proxy.stop().await.success());
        assert_eq!(arrived(&taken, "system-", 1), [2]);
    }
}

#[tokio::test]
async fn an_invalid_kubeconfig_error_names_the_flag() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    for (text, expected) in [
        (None, "the webhook's kubeconfig: cannot read"),
        (Some("clusters: ["), "webhook.conf:1:"),
        (
            Some("current-context: c\n"),
            "contexts: has no \"c\"; set current-context to one of none",
        ),
    ] {
        let path = dir.path("webhook.conf");
        text.into_iter().for_each(|text| drop(dir.write("webhook.conf", text)));
        let flag = format!("--audit-webhook-config-file={}", path.display());
        let (code, said) = Builder::new(upstream.addr).flag(&flag).run_to_end().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--audit-webhook-config-file: "), "{said}");
        assert!(said.contains(expected) && !said.contains("--kubeconfig"), "{said}");
    }
}
