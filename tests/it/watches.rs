//! The memory cost of a thousand idle watches.

use std::sync::{Arc, Mutex};

use http::Response;

use crate::support::client::{self, Short};
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, streamed};
use crate::support::{in_time, wait_for};

const WATCHES: usize = 1_000;
/// kube-apiserver's limit of streams on one connection is 100.
const PER_CONNECTION: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_watches() {
    let open = Arc::new(Mutex::new(Vec::new()));
    let senders = Arc::clone(&open);
    let upstream = FakeUpstream::start(Protocols::Http2, move |_| {
        let (sender, body) = streamed();
        senders.lock().unwrap().push(sender);
        async { Ok(Response::new(body)) }
    })
    .await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    // The first watch allocates buffers that all watches share.
    let mut first = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let mut bodies = vec![watch(&mut first, usize::MAX).await];
    let before = proxy.process.resident();

    let mut senders = Vec::new();
    for number in 0..WATCHES {
        if number % PER_CONNECTION == 0 {
            senders.push(client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap());
        }
        bodies.push(watch(senders.last_mut().unwrap(), number).await);
    }
    wait_for("all watches upstream", || (open.lock().unwrap().len() > WATCHES).then_some(())).await;
    let after = proxy.process.resident();
    let each = after.saturating_sub(before) / WATCHES as u64;
    println!(
        "{WATCHES} idle watches: {} KB resident before, {} KB after",
        before >> 10,
        after >> 10
    );
    println!("{each} bytes per watch");
    assert!(each < 64 << 10, "{each} bytes per watch");

    // They are still open; they end with the proxy, and each has its last event.
    assert_eq!(proxy.stop().await.code(), Some(0));
    let mut log = proxy.audit_log();
    let ends = log.events().iter().filter(|event| event.is_end()).count();
    assert_eq!(ends, WATCHES + 1);
}

async fn watch(
    sender: &mut hyper::client::conn::http2::SendRequest<Short>,
    number: usize,
) -> hyper::body::Incoming {
    let target = format!("/api/v1/namespaces/ns-{number}/pods?watch=true");
    let response = in_time("a watch", client::h2_get(sender, &target, &[])).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}
