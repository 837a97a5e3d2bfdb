//! `--max-requests-inflight` and `--max-mutating-requests-inflight` among several users.

use std::sync::Arc;

use http::Response;
use tokio::sync::Semaphore;

use super::LIST;
use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json, streamed};
use crate::support::{in_time, wait_for};

const CURRENT: &str = "kube_audit_proxy_max_in_flight_current{request_kind=\"readOnly\"}";
const WAITING: &str = "kube_audit_proxy_max_in_flight_waiting{request_kind=\"readOnly\"}";

/// Returns an API server that responds to a request only when the test permits it.
async fn held() -> (FakeUpstream, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let handler_gate = Arc::clone(&gate);
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let gate = Arc::clone(&handler_gate);
        async move {
            gate.acquire().await?.forget();
            json(200, "{}")
        }
    });
    (upstream.await, gate)
}

async fn send(proxy: &Proxy, user: &str, target: &str) -> Connection {
    let mut connection = Connection::open(proxy.addr, Some(user)).await.unwrap();
    connection.send(&http1::request("GET", target, &[], b"")).await.unwrap();
    connection
}

async fn status(connection: &mut Connection) -> u16 {
    in_time("a response", connection.answer("GET")).await.unwrap().head.status
}

async fn wait_until(proxy: &Proxy, metric: &str, value: u64) {
    let start = std::time::Instant::now();
    while proxy.metric(metric).await != value {
        assert!(start.elapsed() < crate::support::DEADLINE, "{metric} is not {value}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_flood_of_one_user_does_not_block_another() {
    let (upstream, gate) = held().await;
    let proxy = Builder::new(upstream.addr).flag("--max-requests-inflight=2").start().await;
    let mut flood = [send(&proxy, "alice", LIST).await, send(&proxy, "alice", LIST).await];
    wait_for("two requests upstream", || (upstream.seen().len() == 2).then_some(())).await;
    assert_eq!(proxy.metric(CURRENT).await, 2);

    // Without other users, alice has the whole limit and no more.
    assert_eq!(status(&mut send(&proxy, "alice", LIST).await).await, 429);
    // Members of system:masters are not limited.
    let mut admin = send(&proxy, "admin", LIST).await;
    wait_for("the admin's request", || (upstream.seen().len() == 3).then_some(())).await;
    // Bob waits for his share, and gets the next slot although alice is waiting, too.
    let mut bob = send(&proxy, "bob", LIST).await;
    wait_until(&proxy, WAITING, 1).await;
    assert_eq!(status(&mut send(&proxy, "alice", LIST).await).await, 429);
    gate.add_permits(1);
    let first = async {
        let [one, two] = &mut flood;
        tokio::select! { s = status(one) => s, s = status(two) => s, s = status(&mut admin) => s }
    };
    // The fake responds in the order of arrival: to alice.
    assert_eq!(first.await, 200);
    wait_for("bob's request upstream", || (upstream.seen().len() == 4).then_some(())).await;
    assert_eq!(proxy.metric(CURRENT).await, 2);
    gate.add_permits(10);
    assert_eq!(status(&mut bob).await, 200);
    wait_until(&proxy, CURRENT, 0).await;
}

#[tokio::test]
async fn a_slot_is_held_until_the_response_ends() {
    let (sender, body) = streamed();
    let body = std::sync::Mutex::new(Some(body));
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let body = body.lock().unwrap().take();
        async move { Ok(Response::new(body.ok_or("only one")?)) }
    })
    .await;
    let proxy = Builder::new(upstream.addr).flag("--max-requests-inflight=1").start().await;
    let mut first = send(&proxy, "alice", LIST).await;
    let head = in_time("the head", first.head()).await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(status(&mut send(&proxy, "alice", LIST).await).await, 429);
    drop(sender);
    in_time("the end", first.body(&head, "GET")).await.unwrap();
    wait_until(&proxy, CURRENT, 0).await;

    // A client that disconnects frees its slot, too.
    let gone = send(&proxy, "alice", LIST).await;
    drop(gone);
    wait_until(&proxy, CURRENT, 0).await;
}

#[tokio::test]
async fn long_running_requests_do_not_count() {
    let (upstream, gate) = held().await;
    let proxy = Builder::new(upstream.addr).flag("--max-requests-inflight=1").start().await;
    let watch = format!("{LIST}?watch=1");
    let log = "/api/v1/namespaces/default/pods/x/log";
    let _long = [
        send(&proxy, "alice", &watch).await,
        send(&proxy, "alice", &watch).await,
        send(&proxy, "alice", log).await,
    ];
    wait_for("three requests upstream", || (upstream.seen().len() == 3).then_some(())).await;
    assert_eq!(proxy.metric(CURRENT).await, 0);
    let mut short = send(&proxy, "alice", LIST).await;
    gate.add_permits(4);
    assert_eq!(status(&mut short).await, 200);
}
