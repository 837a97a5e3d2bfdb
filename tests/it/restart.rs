//! A restart without downtime: two processes share the port for a while, and no request fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use tokio::sync::watch;

use crate::several_servers::pause_of_clients;
use crate::support::client::{self, Short};
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{audit_log, in_time};

/// Clients that keep their connection.
const CLIENTS: u32 = 8;
const PODS: &str = "/api/v1/namespaces/team-a/pods";

/// Sends requests until stopped. Like client-go, opens a new connection when the server has sent
/// GOAWAY. Returns the IDs of the requests.
async fn client(addr: SocketAddr, name: String, stop: watch::Receiver<bool>) -> Vec<String> {
    let mut ids = Vec::new();
    let mut sender = client::http2::<Short>(addr, Some("alice")).await.unwrap();
    while !*stop.borrow() {
        if sender.ready().await.is_err() {
            sender = client::http2::<Short>(addr, Some("alice")).await.unwrap();
            sender.ready().await.unwrap();
        }
        let id = format!("{name}-{}", ids.len());
        // Retried with the same ID if it was not processed.
        let method = if ids.len().is_multiple_of(3) { "POST" } else { "GET" };
        let request = Request::builder().method(method).uri(format!("https://kubernetes{PODS}"));
        let request = request.header("audit-id", &id).body(Short::default()).unwrap();
        match sender.try_send_request(request).await {
            Ok(response) => {
                assert_eq!(response.status(), 200, "{id}");
                client::whole(response).await.unwrap();
                ids.push(id);
            }
            Err(mut error) => {
                let is_unsent = error.take_message().is_some();
                assert!(is_unsent || is_go_away(error.error()), "{id}: {:?}", error.error());
            }
        }
        tokio::time::sleep(pause_of_clients(CLIENTS)).await;
    }
    ids
}

/// Returns whether the server has signaled with GOAWAY that it has not processed the request.
fn is_go_away(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
    source.is_some_and(|error| error.is_go_away() && error.is_remote())
}

/// Opens a connection for each request.
async fn newcomer(addr: SocketAddr, name: String, stop: watch::Receiver<bool>) -> Vec<String> {
    let mut ids = Vec::new();
    while !*stop.borrow() {
        let id = format!("{name}-{}", ids.len());
        let mut sender = client::http2::<Short>(addr, Some("alice")).await.unwrap();
        let response = match client::h2_get(&mut sender, PODS, &[("audit-id", &id)]).await {
            Ok(response) => response,
            Err(error) if is_go_away(&error) || error.is_canceled() => continue,
            Err(error) => panic!("{id}: {error:?}"),
        };
        assert_eq!(response.status(), 200, "{id}");
        client::whole(response).await.unwrap();
        ids.push(id);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_overlap_and_no_request_fails() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let mut first = Builder::new(upstream.addr).shared_port(0).start().await;
    let addr = first.addr;
    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(client(addr, format!("kept-{n}"), stopped.clone())))
        .chain((0..2).map(|n| tokio::spawn(newcomer(addr, format!("new-{n}"), stopped.clone()))))
        .collect();
    let pause = || tokio::time::sleep(Duration::from_millis(500));
    pause().await;
    // Each process writes to a log of its own.
    let mut second = Builder::new(upstream.addr).shared_port(addr.port()).start().await;
    assert_eq!(second.addr, addr);
    pause().await;
    assert!(first.stop().await.success());
    pause().await;
    let mut third = Builder::new(upstream.addr).shared_port(addr.port()).start().await;
    pause().await;
    assert!(second.stop().await.success());
    pause().await;
    stop.send_replace(true);
    let mut ids = Vec::new();
    for client in clients {
        ids.extend(in_time("a client", client).await.unwrap());
    }
    assert!(third.stop().await.success());
    let mut ends: HashMap<String, u32> = HashMap::new();
    let mut used = Vec::new();
    for proxy in [&first, &second, &third] {
        let lines = audit_log::lines(&proxy.log);
        used.push(lines.len());
        let mut log = proxy.audit_log();
        for event in log.events().iter().filter(|event| event.is_end()) {
            assert_eq!(event.code(), 200, "{}", event.line);
            *ends.entry(event.audit_id().to_owned()).or_default() += 1;
        }
    }
    println!("{} requests; lines of each process: {used:?}", ids.len());
    assert!(used.iter().all(|lines| *lines > 0), "{used:?}");
    assert!(ids.len() > 200, "{}", ids.len());
    for id in &ids {
        assert_eq!(ends.get(id), Some(&1), "events of {id}");
    }
}
