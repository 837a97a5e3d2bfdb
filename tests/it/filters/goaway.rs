//! `--goaway-chance` and `--http2-max-streams-per-connection`.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http::Response;

use super::LIST;
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, json, streamed};

type Sender = h2::client::SendRequest<Bytes>;

async fn connect(addr: std::net::SocketAddr) -> (Sender, tokio::task::JoinHandle<bool>) {
    let tls = crate::support::client::tls(addr, Some("alice"), &[b"h2"]).await.unwrap();
    let (sender, connection) = h2::client::handshake(tls).await.unwrap();
    // Returns whether the connection ended without an error.
    (sender, tokio::spawn(async move { connection.await.is_ok() }))
}

fn get(target: &str) -> Request<()> {
    Request::get(format!("https://kubernetes{target}")).body(()).unwrap()
}

/// Sends requests until the connection accepts no more. Returns the number of responses.
async fn until_goaway(sender: Sender) -> usize {
    let (mut sender, mut count) = (sender, 0);
    loop {
        sender = match in_time("room for a stream", sender.ready()).await {
            Ok(sender) => sender,
            Err(error) => {
                assert!(error.is_go_away() || error.is_library() || error.is_io(), "{error:?}");
                return count;
            }
        };
        let Ok((response, _)) = sender.send_request(get(LIST), true) else { return count };
        match in_time("a response", response).await {
            Ok(response) => assert_eq!(response.status(), 200),
            // Sent after the GOAWAY, so it was certainly not processed.
            Err(error) => {
                assert!(error.is_go_away(), "{error:?}");
                return count;
            }
        }
        count += 1;
    }
}

#[tokio::test]
async fn clients_receive_goaway_and_lose_no_request() {
    let watches = Arc::new(Mutex::new(Vec::new()));
    let senders = Arc::clone(&watches);
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let senders = Arc::clone(&senders);
        async move {
            if request.uri().query().is_none() {
                return json(200, "{}");
            }
            let (sender, body) = streamed();
            senders.lock().unwrap().push(sender);
            Ok(Response::new(body))
        }
    })
    .await;
    let mut proxy = Builder::new(upstream.addr).flag("--goaway-chance=0.02").start().await;
    let (mut sender, connection) = connect(proxy.addr).await;
    let (watch, _) = sender.send_request(get(&format!("{LIST}?watch=1")), true).unwrap();
    let mut watch = in_time("the watch", watch).await.unwrap().into_body();
    // The probability that 2,000 requests cause no GOAWAY is 10^-18.
    let count = in_time("a GOAWAY", until_goaway(sender)).await;
    assert!(count < 2_000, "{count}");
    // The watch continues, and the connection closes gracefully after it.
    watches.lock().unwrap().drain(..).for_each(drop);
    assert!(in_time("the watch's end", watch.data()).await.is_none_or(|data| data.is_ok()));
    drop(watch);
    assert!(in_time("the connection's end", connection).await.unwrap());
    assert!(proxy.metric("kube_audit_proxy_goaways_total").await >= 1);

    // HTTP/1.1 connections stay open.
    let mut http1 = Connection::open(proxy.addr, Some("alice")).await.unwrap();
    for _ in 0..300 {
        http1.send(&http1::request("GET", LIST, &[], b"")).await.unwrap();
        let head = http1.answer("GET").await.unwrap().head;
        assert_eq!((head.status, head.get("connection")), (200, ""));
    }
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn as_many_streams_are_allowed_as_configured() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    for (flag, expected) in [("=0", 100), ("=7", 7), ("=5000", 5000)] {
        let flag = format!("--http2-max-streams-per-connection{flag}");
        let proxy = Builder::new(upstream.addr).flag(&flag).start().await;
        let tls = crate::support::client::tls(proxy.addr, Some("alice"), &[b"h2"]).await.unwrap();
        let (sender, mut connection) = h2::client::handshake(tls).await.unwrap();
        let mut sender = sender;
        let (response, _) = sender.send_request(get(LIST), true).unwrap();
        let mut response = std::pin::pin!(response);
        let answered = std::future::poll_fn(|context| {
            let _ = std::pin::Pin::new(&mut connection).poll(context);
            response.as_mut().poll(context)
        });
        assert_eq!(in_time("a response", answered).await.unwrap().status(), 200);
        // Known from the server's SETTINGS, which precede any response.
        assert_eq!(connection.max_concurrent_send_streams(), expected, "{flag}");
    }
}
