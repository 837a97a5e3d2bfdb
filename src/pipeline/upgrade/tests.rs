use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

#[test]
fn only_the_protocols_of_kubernetes_are_upgraded_to() {
    for (protocol, expected) in [
        ("websocket", true),
        ("WebSocket", true),
        ("SPDY/3.1", true),
        (" spdy/3.1\t", true),
        ("SPDY/3", false),
        ("websocket, h2c", false),
        ("h2c", false),
        ("TLS/1.0", false),
        ("", false),
    ] {
        assert_eq!(is_known(&HeaderValue::from_static(protocol)), expected, "{protocol:?}");
    }
}

#[test]
fn a_request_without_a_connection_to_upgrade_is_an_ordinary_one() {
    let request = Request::get("/").header("connection", "upgrade").header("upgrade", "websocket");
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    assert!(take_request(&mut parts).is_none(), "hyper has no upgrade for it");
    parts.version = Version::HTTP_2;
    assert!(take_request(&mut parts).is_none());
}

/// Both ends of a connection that is upgraded, and the task that copies between them.
struct Upgraded {
    client: DuplexStream,
    upstream: DuplexStream,
    passing: JoinHandle<()>,
}

impl Upgraded {
    fn new() -> Upgraded {
        let (client, proxy_client) = duplex(16);
        let (upstream, proxy_upstream) = duplex(16);
        let passing = tokio::spawn(pass(proxy_client, proxy_upstream));
        Upgraded { client, upstream, passing }
    }
}

async fn ended(passing: JoinHandle<()>) {
    tokio::time::timeout(Duration::from_secs(10), passing).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn bytes_pass_both_ways_at_once() {
    let Upgraded { client, upstream, passing } = Upgraded::new();
    let sent: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
    let (mut client_reader, mut client_writer) = split(client);
    let (mut upstream_reader, mut upstream_writer) = split(upstream);
    let (mut down, mut up) = (Vec::new(), Vec::new());
    let client = async {
        let write = async {
            client_writer.write_all(&sent).await.unwrap();
            client_writer.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(client_reader.read_to_end(&mut down), write);
        read.unwrap();
    };
    let upstream = async {
        let write = async {
            upstream_writer.write_all(&sent).await.unwrap();
        };
        let (read, ()) = tokio::join!(upstream_reader.read_to_end(&mut up), write);
        read.unwrap();
        upstream_writer.shutdown().await.unwrap();
    };
    tokio::join!(client, upstream);
    ended(passing).await;
    assert!(down == sent && up == sent);
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_receives_the_rest() {
    let Upgraded { mut client, mut upstream, passing } = Upgraded::new();
    client.write_all(b"exit").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    upstream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"exit");
    upstream.write_all(b"status 0").await.unwrap();
    drop(upstream);
    received.clear();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"status 0");
    ended(passing).await;
}

#[tokio::test]
async fn an_api_server_that_closes_its_side_ends_the_connection() {
    let Upgraded { mut client, mut upstream, passing } = Upgraded::new();
    upstream.write_all(b"bye").await.unwrap();
    drop(upstream);
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"bye");
    // Although the client has not closed its own side.
    ended(passing).await;
}

#[tokio::test]
async fn a_client_that_is_gone_ends_the_connection() {
    let Upgraded { client, mut upstream, passing } = Upgraded::new();
    drop(client);
    let mut received = Vec::new();
    upstream.read_to_end(&mut received).await.unwrap();
    upstream.write_all(b"to nobody").await.unwrap();
    ended(passing).await;
}

#[tokio::test]
async fn a_broken_connection_to_the_api_server_ends_the_connection() {
    let broken = async { Err(io::Error::from(io::ErrorKind::ConnectionReset)) };
    until_closed(broken, std::future::pending()).await;
    until_closed(std::future::pending(), async { Ok(()) }).await;
    let rest = tokio::time::timeout(
        Duration::from_millis(10),
        until_closed(async { Ok(()) }, std::future::pending()),
    );
    assert!(rest.await.is_err(), "the rest is waited for");
}
