//! The disk for session recordings is full.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::disk::Disk;
use crate::support::http1::{self, Connection};
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, empty};
use crate::support::{TempDir, in_time};

const LINES: [&str; 5] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: v5.channel.k8s.io",
];
const EXEC: &str = "/api/v1/namespaces/a/pods/p/exec?command=sh&tty=true";

/// Returns a message of 8 KiB, too long for the free space in a file's last page.
fn output() -> Vec<u8> {
    [&[0x82, 0x7e, 0x20, 0x01, 1], &[b'x'; 8192][..]].concat()
}

/// Sends output for everything that it receives.
async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |mut request| async move {
        let response = http::Response::builder().status(101).header("connection", "Upgrade");
        let response = response.header("upgrade", "websocket");
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut upgraded = TokioIo::new(upgraded);
            let mut bytes = [0; 100];
            while upgraded.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                upgraded.write_all(&output()).await.unwrap();
            }
        });
        Ok(response.body(empty())?)
    })
    .await
}

async fn exec(addr: std::net::SocketAddr) -> (Connection, u16) {
    let mut connection = Connection::open(addr, Some("admin")).await.unwrap();
    connection.send(&http1::request("GET", EXEC, &LINES, b"")).await.unwrap();
    let head = in_time("the response", connection.head()).await.unwrap();
    (connection, head.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_ends_sessions_on_a_full_disk_and_refuses_new_ones() {
    let dir = TempDir::new();
    let Some(disk) = Disk::small(&dir) else {
        return eprintln!("not run: this user may not mount");
    };
    let upstream = upstream().await;
    let flag = format!("--session-recording-dir={}", disk.0.join("sessions").display());
    let start = |mode: &str| {
        let mode = format!("--session-recording-mode={mode}");
        Builder::new(upstream.addr).flag(&flag).flag(&mode).start()
    };
    let (strict, lenient) = tokio::join!(start("strict"), start("best-effort"));
    let key = [0x82, 0x82, 0, 0, 0, 0, 0, b'x'];
    let (mut ended, status) = exec(strict.addr).await;
    assert_eq!(status, 101);
    let (mut lasting, status) = exec(lenient.addr).await;
    assert_eq!(status, 101);
    disk.fill();
    for connection in [&mut ended, &mut lasting] {
        connection.send(&key).await.unwrap();
        connection.exactly(output().len()).await.unwrap();
    }
    let farewell = in_time("the end of the session", ended.read_to_end()).await.unwrap();
    let farewell = String::from_utf8_lossy(&farewell);
    assert!(farewell.contains("session ended: the recording cannot be written"), "{farewell}");
    lasting.send(&key).await.unwrap();
    assert_eq!(lasting.exactly(output().len()).await.unwrap(), output());

    assert_eq!(exec(strict.addr).await.1, 500);
    assert_eq!(exec(lenient.addr).await.1, 101);
    disk.empty();
    assert_eq!(exec(strict.addr).await.1, 101);
}
