//! Several API servers: dead, hanging and restarted ones cause no failed request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::client::{self, Short};
use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, empty, json};
use crate::support::{DEADLINE, in_time};

const PODS: &str = "/api/v1/namespaces/team-a/pods";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const UNKNOWN: &str = "/annotations/kube-audit-proxy~1outcome-unknown";
/// Maximum delay that a dead server may cause: one second, and some more on a busy machine.
const DELAY: Duration = Duration::from_secs(3);

/// Returns an API server that does not respond while `hung`.
async fn server(addr: &str, hung: &watch::Sender<bool>) -> FakeUpstream {
    let hung = hung.subscribe();
    FakeUpstream::start_on(addr.parse().unwrap(), Protocols::Http2, move |request| {
        let mut hung = hung.clone();
        async move {
            let _ = hung.wait_for(|hung| !hung).await;
            respond(request).await
        }
    })
    .await
}

async fn respond(mut request: Request<Incoming>) -> Answered {
    if let Some(upgrade) = request.headers().get("upgrade").cloned() {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            TokioIo::new(upgraded).write_all(b"hello").await.unwrap();
        });
        let response = http::Response::builder().status(101).header("connection", "Upgrade");
        return Ok(response.header("upgrade", upgrade).body(empty())?);
    }
    let is_review = request.uri().path() == REVIEWS;
    request.into_body().collect().await?;
    match is_review {
        true => json(
            201,
            r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"jane"}}}"#,
        ),
        false => json(200, r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"}}"#),
    }
}

fn builder(servers: &[SocketAddr]) -> Builder {
    let more = servers[1..].iter().map(|addr| format!("--upstream-server=https://{addr}"));
    more.fold(Builder::new(servers[0]), |builder, flag| builder.flag(&flag))
}

/// Returns a port on which nothing listens.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Accepts connections but never responds.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    addr
}

async fn ready(proxy: &Proxy) -> (u16, String) {
    client::admin(proxy.admin, "/readyz?verbose").await.unwrap()
}

/// Waits until `/readyz` has this line.
async fn until_ready_has(proxy: &Proxy, code: u16, part: &str) {
    let start = Instant::now();
    loop {
        let (status, text) = ready(proxy).await;
        if status == code && text.contains(part) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{part:?} is not in:\n{status} {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn metric(proxy: &Proxy, name: &str, addr: SocketAddr) -> u64 {
    proxy.metric(&format!("kube_audit_proxy_upstream_endpoint_{name}{{endpoint=\"{addr}\"}}")).await
}

#[tokio::test]
async fn a_dead_server_causes_no_error_and_no_delay_of_a_second() {
    let steady = watch::channel(false).0;
    let healthy = server("127.0.0.1:0", &steady).await;
    let servers = [closed().await, silent().await, healthy.addr];
    let proxy = builder(&servers).flag("--authentication-token-review").start().await;
    // At once, before any health check has ended. One of the proxy's own reviews comes first.
    for (target, certificate, line) in [
        (PODS, None, "Authorization: Bearer some-token"),
        (PODS, Some("alice"), "X-Nothing: 1"),
        ("/version", Some("alice"), "X-Nothing: 1"),
    ] {
        let began = Instant::now();
        let answer = http1::get(proxy.addr, certificate, target, &[line]).await.unwrap();
        assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert!(began.elapsed() < DELAY, "{target} {:?}", began.elapsed());
    }
    let mut exec = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let lines = ["Connection: Upgrade", "Upgrade: SPDY/3.1", "Audit-ID: exec"];
    let target = "/api/v1/namespaces/team-a/pods/p1/exec?command=sh";
    exec.send(&http1::request("POST", target, &lines, b"")).await.unwrap();
    assert_eq!(in_time("an upgrade", exec.head()).await.unwrap().status, 101);
    assert_eq!(in_time("its greeting", exec.exactly(5)).await.unwrap(), b"hello");

    until_ready_has(&proxy, 200, &format!("[-]upstream-endpoints failed: {} is down", servers[0]))
        .await;
    until_ready_has(&proxy, 200, &format!("{} is down: no response to /readyz", servers[1])).await;
    assert_eq!(metric(&proxy, "healthy", servers[0]).await, 0);
    assert_eq!(metric(&proxy, "healthy", servers[1]).await, 0);
    assert_eq!(metric(&proxy, "healthy", servers[2]).await, 1);
    let failures = "kube_audit_proxy_upstream_endpoint_failures_total";
    let labels = format!("{{endpoint=\"{}\",reason=\"health_check\"}}", servers[0]);
    assert!(proxy.metric(&format!("{failures}{labels}")).await > 0);
    let (status, text) = ready(&proxy).await;
    assert!(status == 200 && text.contains("(ignored: other addresses are healthy)"), "{text}");
}

#[tokio::test]
async fn requests_are_spread_and_return_to_a_server_that_recovers() {
    let hung = watch::channel(false).0;
    let (first, second) = (server("127.0.0.1:0", &hung).await, server("127.0.0.1:0", &hung).await);
    let proxy = builder(&[first.addr, second.addr]).start().await;
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let start = Instant::now();
    let is_used = |fake: &FakeUpstream| fake.seen().iter().any(|seen| seen.target == PODS);
    while !(is_used(&first) && is_used(&second)) {
        assert!(start.elapsed() < DEADLINE, "one server got no request");
        let response = client::h2_get(&mut sender, PODS, &[]).await.unwrap();
        assert_eq!(response.status(), 200);
        client::whole(response).await.unwrap();
    }
    let addr = first.addr;
    first.stop().await;
    until_ready_has(&proxy, 200, &format!("{addr} is down: ")).await;
    let restarted = server(&addr.to_string(), &hung).await;
    until_ready_has(&proxy, 200, "[+]upstream-endpoints ok").await;
    while !is_used(&restarted) {
        assert!(start.elapsed() < DEADLINE, "no request after the restart");
        let response = client::h2_get(&mut sender, PODS, &[]).await.unwrap();
        assert_eq!(response.status(), 200);
        client::whole(response).await.unwrap();
    }
    assert_eq!(metric(&proxy, "requests_in_flight", addr).await, 0);
    // Without any healthy server, the proxy is not ready, and requests fail without having been
    // processed.
    let (restarted_addr, second_addr) = (restarted.addr, second.addr);
    restarted.stop().await;
    second.stop().await;
    until_ready_has(&proxy, 500, "[-]upstream failed: cannot connect to ").await;
    let answer = http1::get(proxy.addr, Some("alice"), PODS, &["Audit-ID: down"]).await.unwrap();
    assert_eq!((answer.head.status, answer.head.get("retry-after")), (503, "1"));
    let event = proxy.audit_log().wait_end("down").await.pop().unwrap();
    assert_eq!((event.code(), event.at(UNKNOWN)), (503, None));
    let _restarted = server(&restarted_addr.to_string(), &hung).await;
    let _second = server(&second_addr.to_string(), &hung).await;
    until_ready_has(&proxy, 200, "[+]upstream-endpoints ok").await;
}

#[tokio::test]
async fn a_server_that_is_not_ready_gets_no_requests() {
    let starting = FakeUpstream::start(Protocols::Http2, |request| async move {
        match request.uri().path() {
            "/readyz" => json(500, "[-]poststarthook failed"),
            _ => json(200, "{}"),
        }
    })
    .await;
    let hung = watch::channel(false).0;
    let healthy = server("127.0.0.1:0", &hung).await;
    let proxy = builder(&[starting.addr, healthy.addr]).start().await;
    let not_ready = format!("{} is not ready: /readyz returned 500", starting.addr);
    until_ready_has(&proxy, 200, &not_ready).await;
    // A front proxy's certificate names no user.
    let checks = starting.take_seen();
    assert_eq!(checks[0].all("x-remote-user"), ["kube-audit-proxy"]);
    for _ in 0..10 {
        let answer = http1::get(proxy.addr, Some("alice"), PODS, &[]).await.unwrap();
        assert_eq!(answer.head.status, 200);
    }
    assert!(starting.seen().iter().all(|seen| seen.target == "/readyz"), "{:?}", starting.seen());
    // If there is no other server, it gets the requests.
    healthy.stop().await;
    let answer = http1::get(proxy.addr, Some("alice"), PODS, &[]).await.unwrap();
    assert_eq!(answer.head.status, 200);
}

#[tokio::test]
async fn waiting_reads_move_away_from_a_server_that_hangs_and_writes_wait_for_it() {
    let (hangs, steady) = (watch::channel(false).0, watch::channel(false).0);
    let first = server("127.0.0.1:0", &hangs).await;
    let second = server("127.0.0.1:0", &steady).await;
    let proxy = builder(&[first.addr, second.addr]).start().await;
    until_ready_has(&proxy, 200, "[+]upstream-endpoints ok").await;
    hangs.send_replace(true);
    steady.send_replace(true);
    first.take_seen();
    let sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let send = |method: &'static str| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let request =
                Request::builder().method(method).uri(format!("https://kubernetes{PODS}"));
            sender.ready().await.unwrap();
            let sent = sender.send_request(request.body(Short::default()).unwrap()).await.unwrap();
            sent.status()
        })
    };
    // Enough requests that each server has both reads and writes; none is processed yet.
    let began = Instant::now();
    let reads: Vec<_> = (0..8).map(|_| send("GET")).collect();
    let writes: Vec<_> = (0..8).map(|_| send("POST")).collect();
    let arrived = |fake: &FakeUpstream| fake.seen().iter().any(|seen| seen.method == "POST");
    while !arrived(&first) {
        assert!(began.elapsed() < DEADLINE, "no write has arrived");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    steady.send_replace(false);
    for read in reads {
        assert_eq!(in_time("a read", read).await.unwrap(), StatusCode::OK);
    }
    assert!(writes.iter().any(|write| !write.is_finished()), "a write did not wait");
    hangs.send_replace(false);
    for write in writes {
        assert_eq!(in_time("a write", write).await.unwrap(), StatusCode::OK);
    }
    let posts = |fake: &FakeUpstream| fake.seen().iter().filter(|s| s.method == "POST").count();
    assert_eq!(posts(&first) + posts(&second), 8, "a write was sent twice");
}

/// The result of one request.
struct Outcome {
    id: String,
    is_read: bool,
    status: Option<u16>,
    took: Duration,
}

/// Sends reads and writes alternately until stopped.
async fn load(
    proxy: SocketAddr,
    name: String,
    pause: Duration,
    stop: watch::Receiver<bool>,
) -> Vec<Outcome> {
    let mut sender = client::http2::<Short>(proxy, Some("alice")).await.unwrap();
    let mut outcomes = Vec::new();
    while !*stop.borrow() {
        let (id, is_read) = (format!("{name}-{}", outcomes.len()), outcomes.len() % 4 != 0);
        let method = if is_read { "GET" } else { "POST" };
        let request = Request::builder().method(method).uri(format!("https://kubernetes{PODS}"));
        let request = request.header("audit-id", &id).body(Short::default()).unwrap();
        let began = Instant::now();
        sender.ready().await.unwrap();
        let status = match sender.send_request(request).await {
            Ok(response) => {
                let status = response.status().as_u16();
                client::whole(response).await.ok().map(|_| status)
            }
            Err(_) => None,
        };
        outcomes.push(Outcome { id, is_read, status, took: began.elapsed() });
        tokio::time::sleep(pause).await;
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_a_hung_and_a_restarted_server_cost_no_request_under_load() {
    let (steady, hangs) = (watch::channel(false).0, watch::channel(false).0);
    let killed = server("127.0.0.1:0", &steady).await;
    let hung = server("127.0.0.1:0", &hangs).await;
    let restarted = server("127.0.0.1:0", &steady).await;
    let servers = [killed.addr, hung.addr, restarted.addr];
    let mut proxy = builder(&servers).start().await;
    until_ready_has(&proxy, 200, "[+]upstream-endpoints ok").await;
    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let pause = pause_of_clients(CLIENTS);
            tokio::spawn(load(proxy.addr, format!("load-{number}"), pause, stopped.clone()))
        })
        .collect();
    let pause = || tokio::time::sleep(Duration::from_millis(400));
    pause().await;
    killed.stop().await;
    pause().await;
    hangs.send_replace(true);
    until_ready_has(&proxy, 200, &format!("{} is down: no response", servers[1])).await;
    restarted.stop().await;
    pause().await;
    let _restarted = server(&servers[2].to_string(), &steady).await;
    pause().await;
    pause().await;
    hangs.send_replace(false);
    until_ready_has(&proxy, 200, &format!("failed: {} is down", servers[0])).await;
    stop.send_replace(true);
    let mut outcomes = Vec::new();
    for client in clients {
        outcomes.extend(in_time("a client's last request", client).await.unwrap());
    }
    assert_eq!(metric(&proxy, "healthy", servers[0]).await, 0);
    assert_eq!(metric(&proxy, "healthy", servers[2]).await, 1);
    assert!(proxy.stop().await.success());
    let slowest = outcomes.iter().filter(|o| o.is_read).map(|o| o.took).max().unwrap();
    let mut log = proxy.audit_log();
    let ends = {
        let mut ends = std::collections::HashMap::new();
        for event in log.events().iter().filter(|event| event.is_end()) {
            let known = ends.insert(event.audit_id().to_owned(), event.clone());
            assert!(known.is_none(), "two ends: {}", event.line);
        }
        ends
    };
    let mut unknown: u32 = 0;
    for Outcome { id, is_read, status, .. } in &outcomes {
        let event = ends.get(id).unwrap_or_else(|| panic!("{id} has no event"));
        assert_eq!(Some(event.code()), status.map(u64::from), "{}", event.line);
        if *status != Some(200) {
            assert!(
                !is_read && event.at(UNKNOWN).is_some(),
                "not processed, but failed: {}",
                event.line
            );
            unknown += 1;
        }
    }
    println!("{} requests, {unknown} of unknown outcome, slowest read {slowest:?}", outcomes.len());
    assert!(outcomes.len() > 100, "{}", outcomes.len());
    // Requests that a server was processing when it was killed.
    assert!(unknown <= 2 * CLIENTS, "{unknown}");
    assert!(slowest < DELAY + PATIENCE, "{slowest:?}");
}

/// Number of clients in the test under load.
const CLIENTS: u32 = 24;

/// Returns the pause of each client between two requests, so that all together send 600 requests
/// per second, or as many as `LOAD_RATE` specifies.
pub fn pause_of_clients(clients: u32) -> Duration {
    let rate = std::env::var("LOAD_RATE").map_or(600, |text| text.parse().unwrap());
    Duration::from_secs(1) * clients / rate
}

/// Maximum time that a request waits while no server is healthy.
const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_body_of_which_the_server_may_have_seen_a_part_is_not_sent_twice() {
    let seen = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&seen);
    let breaking = move |request: Request<Incoming>| {
        let notify = Arc::clone(&notify);
        async move {
            if request.method() == "POST" {
                notify.notify_one();
                return Err("broken".into());
            }
            json(200, "{}")
        }
    };
    // Without ALPN for HTTP/2, a handler's error breaks the connection.
    let first = FakeUpstream::start(Protocols::Http1, breaking.clone()).await;
    let second = FakeUpstream::start(Protocols::Http1, breaking).await;
    let proxy = builder(&[first.addr, second.addr]).start().await;
    let request = http1::request("POST", PODS, &["Audit-ID: once"], b"{}");
    let answer = http1::exchange(proxy.addr, Some("alice"), &request).await.unwrap();
    in_time("the request", seen.notified()).await;
    assert_eq!(answer.head.status, 503);
    let event = proxy.audit_log().wait_end("once").await.pop().unwrap();
    assert!(event.at(UNKNOWN).is_some(), "{}", event.line);
    let posts = first.seen().into_iter().chain(second.seen()).filter(|s| s.method == "POST");
    assert_eq!(posts.count(), 1);
}
