use hyper::upgrade::Upgraded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn spdy(target: &str) -> Request<RequestBody> {
    Request::post(target)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(RequestBody::EMPTY)
        .unwrap()
}

#[tokio::test]
async fn a_101_gives_the_bytes_both_ways() {
    let (upstream, metrics, _) = serve(&["h2", "http/1.1"], 100, |mut request| async move {
        assert_eq!(request.headers()["upgrade"], "SPDY/3.1");
        assert_eq!(request.headers()["connection"], "Upgrade");
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut response = full("");
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
        response
    })
    .await;
    let response = upgrade(&upstream, spdy("/exec?command=%73h")).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    let upgraded: Upgraded = hyper::upgrade::on(response).await.unwrap();
    assert_eq!(metrics.connections.get(), 1);
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let sent = vec![7; 10 << 20];
    let expected = sent.clone();
    tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await.unwrap();
    assert!(received == expected);
}

#[tokio::test]
async fn after_any_other_response_the_connection_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (upstream, metrics) =
        client(config(&format!("http://{}", listener.local_addr().unwrap()), ""));
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nno").await.unwrap();
        tokio::task::yield_now().await;
        tcp.write_all(b"pe").await.unwrap();
        let mut more = Vec::new();
        tcp.read_to_end(&mut more).await.unwrap();
        (String::from_utf8(head).unwrap(), more)
    });
    let response = upgrade(&upstream, spdy("/a//b?x=%zz")).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(text(response).await, "nope");
    let (head, more) = server.await.unwrap();
    assert!(head.starts_with("POST /a//b?x=%zz HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", upstream.authority())), "{head}");
    assert!(head.contains("upgrade: SPDY/3.1\r\n"), "{head}");
    assert!(more.is_empty(), "{more:?}");
    eventually(|| metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_broken_connection_is_reported_as_interrupted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (upstream, _) = client(config(&format!("http://{}", listener.local_addr().unwrap()), ""));
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        let _ = tcp.read(&mut buffer).await.unwrap();
    });
    let error = upgrade(&upstream, spdy("/")).await.unwrap_err();
    assert!(matches!(error, SendError::Interrupted { .. }), "{error}");
}
