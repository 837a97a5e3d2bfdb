//! Load balancers that forward TLS connections, and send the client's address in a PROXY header.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{client, in_time};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 443\r\n";
const ERRORS: &str = "kube_audit_proxy_proxy_protocol_errors_total";
const HANDSHAKES: &str = "kube_audit_proxy_tls_handshake_errors_total";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

fn v6_with_extension() -> Vec<u8> {
    let mut rest = [0; 36 + 5];
    rest[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    rest[15] = 7;
    rest[36..].copy_from_slice(&[0x04, 0, 2, 1, 1]);
    v2(0x21, 0x21, &rest)
}

async fn proxy(upstream: &FakeUpstream, networks: &str) -> Proxy {
    let flag = format!("--proxy-protocol={networks}");
    Builder::new(upstream.addr).flag(&flag).flag("--log-level=debug").start().await
}

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Returns the `sourceIPs` of a request after `header`.
async fn sources(proxy: &Proxy, header: &[u8], id: &str) -> serde_json::Value {
    let stream = client::tls_after(proxy.addr, header).await.unwrap();
    let mut connection = Connection::over(stream);
    let line = format!("Audit-ID: {id}");
    connection.send(&http1::request("GET", TARGET, &[&line], b"")).await.unwrap();
    assert_eq!(connection.answer("GET").await.unwrap().head.status, 200);
    proxy.audit_log().wait_end(id).await[0].value["sourceIPs"].clone()
}

/// Sends bytes; the connection must be closed without a response.
async fn is_closed(addr: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = in_time("the end", stream.read_to_end(&mut answer)).await;
    assert!(read.is_err() || answer.is_empty(), "{answer:?}");
}

/// Waits until a counter has this value, because a connection is counted after it was closed.
async fn counts(proxy: &Proxy, metric: &str, value: u64) {
    let counting = async {
        while proxy.metric(metric).await != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("the count", counting).await;
}

#[tokio::test]
async fn the_client_in_the_header_is_the_source_everywhere() {
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, "127.0.0.1/32,::1").await;
    let source = |address: &str| serde_json::json!([address]);
    assert_eq!(sources(&proxy, V1, "one").await, source("192.0.2.7"));
    assert_eq!(upstream.take_seen()[0].all("x-forwarded-for"), ["192.0.2.7"]);
    let v4 = v2(0x21, 0x11, &[192, 0, 2, 8, 10, 0, 0, 1, 1, 2, 3, 4]);
    assert_eq!(sources(&proxy, &v4, "two").await, source("192.0.2.8"));
    assert_eq!(sources(&proxy, &v6_with_extension(), "six").await, source("2001:db8::7"));
    let own = [
        (&b"PROXY UNKNOWN\r\n"[..], "unknown"),
        (&v2(0x20, 0x00, &[]), "local"),
        (&v2(0x21, 0x00, &[]), "unspec"),
        (&v2(0x21, 0x31, &[b'/'; 216]), "unix"),
    ];
    for (header, id) in own {
        assert_eq!(sources(&proxy, header, id).await, source("127.0.0.1"), "{id}");
    }
    assert_eq!(proxy.metric(ERRORS).await, 0);
}

#[tokio::test]
async fn headers_come_in_pieces() {
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, "127.0.0.1").await;
    for header in [V1.to_vec(), v6_with_extension()] {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in header.chunks(3) {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        in_time("a handshake", client::tls_over(stream)).await.unwrap();
    }
}

#[tokio::test]
async fn hostile_proxy_headers_end_only_their_connection() {
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, "127.0.0.1").await;
    let endless = [b"PROXY TCP4 ", &[b'1'; 500][..]].concat();
    let huge = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", &[0; 200][..]].concat();
    let hostile: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 0],
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 99999\r\n",
        b"PROXY TCP4 2001:db8::1 10.0.0.1 4660 443\r\n",
        &endless,
        &huge,
        &v2(0x31, 0x11, &[0; 12]),
        &v2(0x21, 0x11, &[0; 11]),
    ];
    for bytes in hostile {
        is_closed(proxy.addr, bytes).await;
    }
    counts(&proxy, ERRORS, hostile.len() as u64).await;
    assert_eq!(proxy.metric(HANDSHAKES).await, 0);
    // A health check over TCP is not an error.
    let check = TcpStream::connect(proxy.addr).await.unwrap();
    drop(check);
    assert_eq!(sources(&proxy, V1, "good").await, serde_json::json!(["192.0.2.7"]));
    assert_eq!(proxy.metric(ERRORS).await, hostile.len() as u64);
    let said = proxy.process.logs("no PROXY header: let the load balancer send one").await;
    assert_eq!(said.matches(" WARN ").count(), 1, "one line in ten seconds: {said}");
}

#[tokio::test]
async fn a_header_that_never_ends_is_not_waited_for() {
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, "127.0.0.1").await;
    let start = Instant::now();
    let waiting = [V1[..20].to_vec(), v2(0x21, 0x11, &[0; 12])[..20].to_vec(), vec![b'P']];
    let waiting = waiting.iter().map(|bytes| is_closed(proxy.addr, bytes));
    futures_util::future::join_all(waiting).await;
    assert!(start.elapsed() < Duration::from_secs(15), "took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_proxy_header_from_an_untrusted_address_is_not_parsed() {
    let upstream = ok_upstream().await;
    let proxy = proxy(&upstream, "127.0.0.2").await;
    assert!(client::tls_after(proxy.addr, V1).await.is_err());
    let stream = client::tls_after(proxy.addr, b"").await;
    assert!(stream.is_ok(), "without one they are served");
    counts(&proxy, HANDSHAKES, 1).await;
    assert_eq!(proxy.metric(ERRORS).await, 0);
}
