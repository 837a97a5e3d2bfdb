//! A flood of different invalid tokens from one address: its cost for the proxy and the API server,
//! and its effect on other clients.
//!
//! With `KAP_FLOOD_SECONDS=20 KAP_FLOOD_RATE=10000`, and `KAP_BINARY` naming a release binary, the
//! test is a measurement.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{self, Short};
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{http1, in_time};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Number of connections of the flood.
const CONNECTIONS: usize = 100;
const PIPELINED: usize = 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Counts TokenReviews at the API server: all, current, and maximum of concurrent ones.
#[derive(Default)]
struct Load {
    all: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Accepts tokens that begin with `good`; takes 5 ms for a response.
async fn api_server(load: Arc<Load>) -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, move |request| {
        let load = Arc::clone(&load);
        async move {
            if request.uri().path() != REVIEWS {
                return json(200, "{}");
            }
            load.all.fetch_add(1, Ordering::SeqCst);
            let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
            load.most.fetch_max(now, Ordering::SeqCst);
            let body = request.into_body().collect().await?.to_bytes();
            tokio::time::sleep(Duration::from_millis(5)).await;
            load.now.fetch_sub(1, Ordering::SeqCst);
            let question: Value = serde_json::from_slice(&body)?;
            let token = question["spec"]["token"].as_str().unwrap_or("").to_owned();
            let status = match token.starts_with("good") {
                true => json!({"authenticated": true, "user": {"username": token}}),
                false => json!({}),
            };
            json(201, json!({"kind": "TokenReview", "status": status}).to_string())
        }
    })
    .await
}

/// Sends `count` requests with different tokens from one address, at most `rate` per second.
/// Returns the numbers of 401 and 503 responses.
async fn flood(addr: SocketAddr, part: usize, count: usize, rate: f64) -> (usize, usize) {
    let mut connection = {
        let stream = client::tls_from("127.0.0.2".parse().unwrap(), addr).await.unwrap();
        http1::Connection::over(stream)
    };
    let (mut refused, mut put_off) = (0, 0);
    let start = Instant::now();
    for first in (0..count).step_by(PIPELINED) {
        let due = start + Duration::from_secs_f64(first as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        let numbers = first..count.min(first + PIPELINED);
        let requests: Vec<u8> = numbers
            .clone()
            .flat_map(|number| {
                let token = format!("Authorization: Bearer bad-{part}-{number}");
                http1::request("GET", TARGET, &[&token], b"")
            })
            .collect();
        connection.send(&requests).await.unwrap();
        for _ in numbers {
            match connection.answer("GET").await.unwrap().head.status {
                401 => refused += 1,
                503 => put_off += 1,
                other => panic!("{other}"),
            }
        }
    }
    (refused, put_off)
}

/// Sends one request over an existing connection. Returns how long it took.
async fn timed(user: &mut SendRequest<Short>, token: &str) -> Duration {
    let start = Instant::now();
    let bearer = format!("Bearer {token}");
    let answer = client::h2_get(user, TARGET, &[("authorization", bearer.as_str())]).await.unwrap();
    assert_eq!(answer.status(), 200, "{token}");
    client::whole(answer).await.unwrap();
    start.elapsed()
}

/// Latencies in ascending order.
struct Times(Vec<Duration>);

impl Times {
    async fn of(user: &mut SendRequest<Short>, token: &str, count: usize) -> Times {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(timed(user, token).await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.sort_unstable();
        Times(times)
    }

    fn at(&self, part: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * part) as usize]
    }

    fn print(&self, what: &str) {
        println!("{what:<42} p50 {:>9.2?}  p99 {:>9.2?}", self.at(0.5), self.at(0.99));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_tokens_costs_little_and_harms_nobody() {
    let seconds = setting("KAP_FLOOD_SECONDS", 1) as usize;
    let rate = setting("KAP_FLOOD_RATE", 4000) as usize;
    let load = Arc::new(Load::default());
    let upstream = api_server(Arc::clone(&load)).await;
    let proxy = Builder::new(upstream.addr)
        .flag("--authentication-token-review")
        .flag("--authentication-token-review-cache-authenticated-ttl=100ms")
        .start()
        .await;
    let mut user = client::http2::<Short>(proxy.addr, None).await.unwrap();
    timed(&mut user, "carol-token").await;
    let count = 100 * seconds;
    let before = Times::of(&mut user, "carol-token", count).await;
    let asked_before = Times::of(&mut user, "good-known", count).await;
    let (memory, asked) = (proxy.process.resident(), load.all.load(Ordering::SeqCst));

    let started = Instant::now();
    let mut flooding = JoinSet::new();
    for part in 0..CONNECTIONS {
        let (count, rate) = (rate * seconds / CONNECTIONS, rate as f64 / CONNECTIONS as f64);
        flooding.spawn(flood(proxy.addr, part, count, rate));
    }
    let during = Times::of(&mut user, "carol-token", count).await;
    // Its cache entry expires repeatedly, so that TokenReviews are sent.
    let asked_during = Times::of(&mut user, "good-known", count).await;
    // From the flood's address: a token that was valid before; from another address: a new one.
    let beside = client::tls_from("127.0.0.2".parse().unwrap(), proxy.addr).await.unwrap();
    let mut beside = http1::Connection::over(beside);
    let lines = ["Authorization: Bearer good-known"];
    beside.send(&http1::request("GET", TARGET, &lines, b"")).await.unwrap();
    let answer = beside.answer("GET").await.unwrap();
    assert_eq!(answer.head.status, 200, "known from before, also behind the flood's address");
    timed(&mut user, "good-new").await;
    let codes =
        tokio::time::timeout(Duration::from_secs(60 + 2 * seconds as u64), flooding.join_all());
    let codes = codes.await.unwrap();
    let took = started.elapsed();

    let (refused, put_off) =
        codes.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let grown = proxy.process.resident().saturating_sub(memory);
    let asked = load.all.load(Ordering::SeqCst) - asked;
    let most = load.most.load(Ordering::SeqCst);
    println!(
        "{} bad tokens in {took:.1?}: {refused} times 401, {put_off} times 503",
        refused + put_off
    );
    println!("{asked} questions to the API server, at most {most} at a time");
    println!("resident {} KiB before, {} KiB more after", memory >> 10, grown >> 10);
    before.print("a user, before");
    during.print("a user, during");
    asked_before.print("a user who is asked about, before");
    asked_during.print("a user who is asked about, during");
    // TokenReviews of the flood's address, and of two users.
    assert!(most <= 48 + 4, "{most} questions at a time");
    // The initial budget, that of each second, those in flight, and those of the users.
    let allowed = 1000 + 110 * (took.as_secs() as usize + 1) + 64 + 4 * count;
    assert!(asked <= allowed, "{asked} questions, but {allowed} are allowed");
    assert!(grown < 48 << 20, "{grown} bytes more");
    in_time("the proxy after it", timed(&mut user, "good-after")).await;
}
