//! Tokens that only the API server knows: what is asked, what is remembered, and what happens when
//! it cannot be asked or is asked too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{self, Short};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{http1, in_time, wait_for};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// How many questions are under way at the API server, and the most there were.
#[derive(Default)]
struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Knows the tokens `jane`, `old` (refused with a reason) and `deploy` (other audiences); takes
/// `time` for an answer.
async fn reviewing(time: Duration, load: Arc<Load>) -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, move |request| {
        let load = Arc::clone(&load);
        async move {
            if request.uri().path() != REVIEWS {
                return json(200, "{}");
            }
            let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
            load.most.fetch_max(now, Ordering::SeqCst);
            let body = request.into_body().collect().await?.to_bytes();
            tokio::time::sleep(time).await;
            load.now.fetch_sub(1, Ordering::SeqCst);
            let question: Value = serde_json::from_slice(&body)?;
            assert_eq!(question["kind"], "TokenReview");
            assert_eq!(question["spec"]["audiences"], json!(["api", "other"]));
            let status = match question["spec"]["token"].as_str() {
                Some("jane") => json!({
                    "authenticated": true, "audiences": ["api"],
                    "user": {"username": "jane", "uid": "42", "groups": ["dev"], "extra": {"k": ["v"]}},
                }),
                Some("deploy") => json!({
                    "authenticated": true, "audiences": ["vault"], "user": {"username": "deploy"},
                }),
                Some("old") => json!({"error": "it has expired"}),
                _ => json!({}),
            };
            json(201, json!({"kind": "TokenReview", "status": status}).to_string())
        }
    })
    .await
}

async fn proxy(upstream: &FakeUpstream, identity: &'static str) -> Proxy {
    Builder::new(upstream.addr)
        .identity(identity)
        .flag("--authentication-token-review")
        .flag("--api-audiences=api,other")
        .start()
        .await
}

async fn get(proxy: &Proxy, token: &str, id: &str) -> u16 {
    let lines = [format!("Authorization: Bearer {token}"), format!("Audit-ID: {id}")];
    let lines = lines.each_ref().map(String::as_str);
    http1::get(proxy.addr, None, TARGET, &lines).await.unwrap().head.status
}

/// How often the API server was asked.
fn reviews(upstream: &FakeUpstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.target == REVIEWS).count()
}

#[tokio::test]
async fn the_api_server_says_whose_a_token_is() {
    for identity in ["request-header", "impersonate"] {
        let upstream = reviewing(Duration::ZERO, Arc::default()).await;
        let proxy = proxy(&upstream, identity).await;
        assert_eq!(get(&proxy, "jane", "jane").await, 200, "{identity}");
        let event = &proxy.audit_log().wait_end("jane").await[0];
        let expected = json!({
            "username": "jane", "uid": "42", "groups": ["dev", "system:authenticated"],
            "extra": {"k": ["v"]},
        });
        assert_eq!(event.value["user"], expected);
        for token in ["old", "deploy", "nobody", "a.b.c"] {
            assert_eq!(get(&proxy, token, token).await, 401, "{identity}, {token}");
        }
        assert_eq!(get(&proxy, "carol-token", "carol").await, 200, "{identity}");
        assert_eq!(get(&proxy, &"a".repeat(20 << 10), "long").await, 401, "{identity}");
        let seen = upstream.seen();
        assert_eq!(reviews(&upstream), 5, "none about a token of the file, nor one too long");
        let question = seen.iter().find(|seen| seen.target == REVIEWS).unwrap();
        let name = question.all("x-remote-user");
        match identity {
            "request-header" => assert_eq!(name, ["kube-audit-proxy"]),
            _ => assert!(name.is_empty(), "its own certificate says who it is"),
        }
        assert!(!proxy.process.stderr().contains("jane"), "tokens and users are not logged");
    }
}

#[tokio::test]
async fn answers_are_remembered_and_asked_for_once() {
    let upstream = reviewing(Duration::from_millis(300), Arc::default()).await;
    let proxy = Arc::new(proxy(&upstream, "request-header").await);
    let mut sending = JoinSet::new();
    for index in 0..40 {
        let proxy = Arc::clone(&proxy);
        let token = if index % 2 == 0 { "jane" } else { "nobody" };
        sending.spawn(async move { (token, get(&proxy, token, &index.to_string()).await) });
    }
    for (token, code) in sending.join_all().await {
        assert_eq!(code, if token == "jane" { 200 } else { 401 }, "{token}");
    }
    assert_eq!(reviews(&upstream), 2);
    assert_eq!(get(&proxy, "jane", "again").await, 200);
    assert_eq!(get(&proxy, "nobody", "again").await, 401);
    assert_eq!(reviews(&upstream), 2);
}

#[tokio::test]
async fn nothing_is_remembered_for_no_time() {
    let upstream = reviewing(Duration::ZERO, Arc::default()).await;
    let proxy = Builder::new(upstream.addr)
        .flag("--authentication-token-review")
        .flag("--api-audiences=api,other")
        .flag("--authentication-token-review-cache-authenticated-ttl=0s")
        .flag("--authentication-token-review-cache-unauthenticated-ttl=0s")
        .start()
        .await;
    for round in 1..=2 {
        assert_eq!(get(&proxy, "jane", "a").await, 200);
        assert_eq!(get(&proxy, "nobody", "b").await, 401);
        assert_eq!(reviews(&upstream), 2 * round);
    }
}

#[tokio::test]
async fn an_api_server_that_cannot_be_asked_is_no_refusal() {
    let upstream = reviewing(Duration::ZERO, Arc::default()).await;
    let proxy = proxy(&upstream, "request-header").await;
    assert_eq!(get(&proxy, "jane", "before").await, 200);
    let addr = upstream.addr;
    upstream.stop().await;
    assert_eq!(get(&proxy, "tom", "down").await, 503);
    let events = proxy.audit_log().wait("down", 1).await;
    assert_eq!((events[0].code(), events[0].stage()), (503, "ResponseStarted"));
    assert_eq!(events[0].text("/user/username"), "");
    // Whoever refuses to answer has not refused the token.
    let forbidding =
        FakeUpstream::start_on(addr, Protocols::Http2, |_| async { json(403, "{}") }).await;
    assert_eq!(get(&proxy, "tom", "forbidden").await, 503);
    let says_why = || proxy.process.stderr().contains("system:auth-delegator").then_some(());
    wait_for("a hint at the right that is missing", says_why).await;
    assert_eq!(reviews(&forbidding), 1, "failures are not remembered, and asked once");
}

/// A flood of different tokens that are nobody's: few questions at a time, and users whose tokens
/// are known notice little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_tokens_is_bounded() {
    const FLOOD: usize = 6000;
    let load = Arc::new(Load::default());
    let upstream = reviewing(Duration::from_millis(20), Arc::clone(&load)).await;
    let proxy = proxy(&upstream, "request-header").await;
    assert_eq!(get(&proxy, "jane", "warm").await, 200);
    let mut user = client::http2::<Short>(proxy.addr, None).await.unwrap();
    let before = latency(&mut user).await;

    let mut flood = JoinSet::new();
    for part in 0..8 {
        let sender = client::http2::<Short>(proxy.addr, None).await.unwrap();
        flood.spawn(async move {
            let mut codes = Vec::new();
            for batch in (0..FLOOD / 8).collect::<Vec<_>>().chunks(50) {
                let answers = batch.iter().map(|index| {
                    let (mut sender, token) = (sender.clone(), format!("Bearer {part}-{index}"));
                    async move {
                        let headers = [("authorization", token.as_str())];
                        client::h2_get(&mut sender, TARGET, &headers).await.unwrap().status()
                    }
                });
                codes.extend(futures_util::future::join_all(answers).await);
            }
            codes
        });
    }
    let during = latency(&mut user).await;
    let codes = in_time("the flood's end", flood.join_all()).await.concat();
    assert_eq!(codes.len(), FLOOD);
    assert!(codes.iter().all(|code| matches!(code.as_u16(), 401 | 503)));
    let most = load.most.load(Ordering::SeqCst);
    println!("questions at a time: {most}; a user's request: {before:?} before, {during:?} during");
    assert!(most <= 64, "{most} questions at a time");
    assert!(during < Duration::from_secs(2), "{during:?}");
}

/// The median time of a user's request with a token that is known.
async fn latency(user: &mut hyper::client::conn::http2::SendRequest<Short>) -> Duration {
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let headers = [("authorization", "Bearer jane")];
        let answer = client::h2_get(user, TARGET, &headers).await.unwrap();
        assert_eq!(answer.status(), 200);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}
