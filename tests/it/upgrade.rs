//! Upgraded connections: exec, attach and port-forward over WebSocket and SPDY.

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::audit_log::Event;
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, empty, json};

const SIZE: usize = 10_000_000;
const EXEC: &str = "/api/v1/namespaces/team-a/pods/p1/exec?command=sh&stdin=true";

const WEBSOCKET: [&str; 4] = [
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: v5.channel.k8s.io",
];
const SPDY: [&str; 3] =
    ["Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io", "Content-Length: 0"];

/// Accepts every upgrade, sends a greeting, and echoes what it receives until the peer has ended.
async fn echo(mut request: Request<Incoming>) -> Answered {
    let upgrade = request.headers().get("upgrade").ok_or("no upgrade")?.clone();
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        writer.write_all(b"hello").await.unwrap();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    });
    let response = Response::builder().status(101).header("connection", "Upgrade");
    Ok(response.header("upgrade", upgrade).body(empty())?)
}

async fn upgraded(proxy: &Proxy, method: &str, id: &str, lines: &[&str]) -> Connection {
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let id = format!("Audit-ID: {id}");
    let lines: Vec<&str> = [&["Connection: Upgrade", id.as_str()], lines].concat();
    connection.send(&http1::request(method, EXEC, &lines, b"")).await.unwrap();
    let head = in_time("the answer to the upgrade", connection.head()).await.unwrap();
    assert_eq!(head.status, 101, "{head:?}");
    let wanted = lines.iter().find_map(|line| line.strip_prefix("Upgrade: ")).unwrap();
    assert_eq!(head.get("upgrade"), wanted);
    assert!(head.get("connection").eq_ignore_ascii_case("upgrade"), "{head:?}");
    let greeting = in_time("the greeting", connection.exactly(5)).await.unwrap();
    assert_eq!(greeting, b"hello");
    connection
}

/// Returns bytes without a short period, so that a lost or repeated piece is detected.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

async fn send_and_end(mut writer: impl AsyncWrite + Unpin, bytes: Vec<u8>) {
    writer.write_all(&bytes).await.unwrap();
    writer.shutdown().await.unwrap();
}

async fn read_all(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn stages(events: &[Event]) -> Vec<(&str, u64)> {
    events.iter().map(|event| (event.stage(), event.code())).collect()
}

async fn echo_10_mb(protocols: Protocols, method: &str, lines: &[&str]) {
    let upstream = FakeUpstream::start(protocols, echo).await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let mut log = proxy.audit_log();
    let connection = upgraded(&proxy, method, "echo", lines).await;
    let started = log.wait("echo", 2).await;
    assert_eq!(stages(&started), [("RequestReceived", 0), ("ResponseStarted", 101)]);

    let (stream, early) = connection.into_stream();
    let (reader, writer) = tokio::io::split(stream);
    let sending = tokio::spawn(send_and_end(writer, content(SIZE)));
    // The client has sent everything; the echo must still arrive completely.
    let echoed = [early, in_time("the echo", read_all(reader)).await].concat();
    sending.await.unwrap();
    assert_eq!(echoed.len(), SIZE);
    assert!(echoed == content(SIZE), "the content differs");

    let ended = log.wait_end("echo").await;
    assert_eq!(stages(&ended)[2..], [("ResponseComplete", 101)]);
    let verb = if method == "POST" { "create" } else { "get" };
    assert!(ended.iter().all(|event| event.text("/verb") == verb));
    assert!(ended.iter().all(|event| event.text("/objectRef/subresource") == "exec"));
    assert_eq!(proxy.stop().await.code(), Some(0));
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(upstream.seen()[0].all("x-remote-user"), ["kubernetes-admin"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_carries_10_mb_each_way() {
    echo_10_mb(Protocols::Http2, "GET", &WEBSOCKET).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spdy_carries_10_mb_each_way() {
    echo_10_mb(Protocols::Http2, "POST", &SPDY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_without_http2_upgrades_too() {
    echo_10_mb(Protocols::Http1, "POST", &SPDY).await;
}

#[tokio::test]
async fn a_disconnecting_client_ends_the_record() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut log = proxy.audit_log();
    let connection = upgraded(&proxy, "GET", "gone", &WEBSOCKET).await;
    drop(connection);
    let events = log.wait_end("gone").await;
    assert_eq!(events.len(), 3);
    assert_eq!(stages(&events)[2], ("ResponseComplete", 101));
}

#[tokio::test]
async fn a_disconnecting_upstream_ends_the_clients_connection() {
    let upstream = FakeUpstream::start(Protocols::Http2, |mut request| async move {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut upgraded = TokioIo::new(upgraded);
            upgraded.write_all(b"hellobye").await.unwrap();
            upgraded.shutdown().await.unwrap();
        });
        let response = Response::builder().status(101).header("connection", "Upgrade");
        Ok(response.header("upgrade", "websocket").body(empty())?)
    })
    .await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut log = proxy.audit_log();
    let mut connection = upgraded(&proxy, "GET", "bye", &WEBSOCKET).await;
    let rest = in_time("the end of the connection", connection.read_to_end()).await.unwrap();
    assert_eq!(rest, b"bye");
    assert_eq!(stages(&log.wait_end("bye").await)[2], ("ResponseComplete", 101));
}

/// CVE-2018-1002105: after a refused upgrade nothing of that connection may reach the API server.
#[tokio::test]
async fn nothing_is_forwarded_after_a_rejected_upgrade() {
    for lines in [WEBSOCKET.as_slice(), SPDY.as_slice()] {
        let upstream = FakeUpstream::start(Protocols::Http1, |_| async { json(403, "{}") }).await;
        let proxy = Builder::new(upstream.addr).start().await;
        let mut connection = Connection::open(proxy.addr, Some("bob")).await.unwrap();
        let lines = [&["Connection: Upgrade", "Audit-ID: refused"], lines].concat();
        let first = http1::request("GET", EXEC, &lines, b"");
        let second = http1::request("GET", "/smuggled", &["X-Remote-User: root"], b"");
        connection.send(&[first, second].concat()).await.unwrap();
        let answer = in_time("the refusal", connection.answer("GET")).await.unwrap();
        assert_eq!(answer.head.status, 403);
        // Whatever happens, the connection must be closed without forwarding the second request.
        let _ = connection.send(b"GET /smuggled-later HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let _ =
            tokio::time::timeout(std::time::Duration::from_secs(2), connection.read_to_end()).await;
        let targets: Vec<_> = upstream.seen().into_iter().map(|seen| seen.target).collect();
        assert_eq!(targets, [EXEC]);
        for raw in upstream.raw() {
            assert!(http1::find(&raw, b"smuggled").is_none());
        }
        let events = proxy.audit_log().wait_end("refused").await;
        assert_eq!(stages(&events).last(), Some(&("ResponseComplete", 403)));
    }
}

#[tokio::test]
async fn an_upgrade_needs_an_identity_as_any_request() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).flag("--anonymous-auth=false").start().await;
    let lines = [&["Connection: Upgrade", "Authorization: Bearer wrong"], WEBSOCKET.as_slice()];
    let answer = http1::get(proxy.addr, None, EXEC, &lines.concat()).await.unwrap();
    assert_eq!(answer.head.status, 401);
    assert!(upstream.seen().is_empty());
}

/// With a tunneled HTTP/2 connection, the client could set all headers of its requests itself, on a
/// connection that the API server trusts.
#[tokio::test]
async fn upgrades_to_other_http_versions_are_rejected() {
    for protocol in ["h2c", "H2C", "HTTP/2.0", "http/1.1", "websocket, h2c", "TLS/1.2"] {
        let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
        let proxy = Builder::new(upstream.addr).start().await;
        let upgrade = format!("Upgrade: {protocol}");
        let lines = ["Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk", &upgrade];
        for target in [EXEC, "/api/v1/pods", "/api/v1/namespaces/a/pods/p/proxy/x"] {
            let answer = http1::get(proxy.addr, Some("bob"), target, &lines).await;
            let status = answer.map_or(400, |answer| answer.head.status);
            assert_ne!(status, 101, "{protocol} for {target}");
        }
        for seen in upstream.seen() {
            assert!(seen.all("upgrade").is_empty(), "{protocol} went on to {}", seen.target);
        }
    }
}

#[tokio::test]
async fn an_upgrade_that_cannot_be_forwarded_is_recorded() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).start().await;
    upstream.stop().await;
    let lines = [&["Connection: Upgrade", "Audit-ID: down"], WEBSOCKET.as_slice()].concat();
    let answer = http1::get(proxy.addr, Some("admin"), EXEC, &lines).await.unwrap();
    assert_eq!(answer.head.status, 503);
    let events = proxy.audit_log().wait_end("down").await;
    let expected = [("RequestReceived", 0), ("ResponseStarted", 503), ("ResponseComplete", 503)];
    assert_eq!(stages(&events), expected);
}

#[tokio::test]
async fn sigterm_ends_and_records_upgraded_connections() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let mut connection = upgraded(&proxy, "GET", "term", &WEBSOCKET).await;
    assert_eq!(proxy.stop().await.code(), Some(0));
    let _ = in_time("the end of the connection", connection.read_to_end()).await;
    let events = proxy.audit_log().of("term");
    assert_eq!(stages(&events)[2..], [("ResponseComplete", 101)]);
}

#[tokio::test]
async fn an_upgrade_carries_only_the_stamped_identity() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let forged = [
        "X-Remote-User: root",
        "X-Remote-Group: system:masters",
        "Connection: X-Remote-Extra-authentication.kubernetes.io%2fcredential-id",
        "Authorization: Bearer carol-token",
    ];
    let lines = [WEBSOCKET.as_slice(), &forged].concat();
    let _connection = upgraded(&proxy, "GET", "forged", &lines).await;
    let seen = &upstream.seen()[0];
    assert_eq!(seen.all("x-remote-user"), ["kubernetes-admin"]);
    assert_eq!(seen.all("x-remote-group")[0], "system:masters");
    assert!(seen.all("authorization").is_empty());
    assert_eq!(seen.all("connection"), ["Upgrade"]);
    let extra = "x-remote-extra-authentication.kubernetes.io%2fcredential-id";
    assert_eq!(seen.all(extra).len(), 1);
}

/// Browsers cannot set `Authorization`, and send their token as a subprotocol.
#[tokio::test]
async fn a_token_in_a_websocket_subprotocol_is_accepted_and_not_forwarded() {
    let upstream = FakeUpstream::start(Protocols::Http2, echo).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let token = "base64url.bearer.authorization.k8s.io.Y2Fyb2wtdG9rZW4";
    let protocols = format!("Sec-WebSocket-Protocol: {token}, v5.channel.k8s.io");
    let lines =
        [&["Connection: Upgrade", "Audit-ID: browser"], &WEBSOCKET[..3], &[protocols.as_str()]];
    let mut connection = Connection::open(proxy.addr, None).await.unwrap();
    connection.send(&http1::request("GET", EXEC, &lines.concat(), b"")).await.unwrap();
    assert_eq!(in_time("the upgrade", connection.head()).await.unwrap().status, 101);
    let seen = &upstream.seen()[0];
    assert_eq!(seen.all("x-remote-user"), ["carol"]);
    assert_eq!(seen.all("sec-websocket-protocol"), ["v5.channel.k8s.io"]);
    let events = proxy.audit_log().wait("browser", 2).await;
    assert_eq!(events[0].text("/user/username"), "carol");
}
