use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn alpn_falls_back_and_targets_go_out_byte_for_byte() {
    let (upstream, metrics, accepted) = serve(&["http/1.1"], 0, echo).await;
    let authority = upstream.authority().to_owned();
    for target in TARGETS {
        let mut request = get(target);
        request.headers_mut().insert("host", "client.example".parse().unwrap());
        let answer = text(upstream.send(request).await.unwrap()).await;
        assert_eq!(answer, format!("HTTP/1.1 GET {target} host={authority} [host] "));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    assert_eq!(metrics.connections.get(), 1);
    let streamed = clients_body(&["stre", "amed"], true).await;
    let answer = text(upstream.send(post("/", streamed)).await.unwrap()).await;
    assert!(answer.ends_with("[host,transfer-encoding] streamed"), "{answer}");
    upstream.check().await.unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    drop(upstream);
    eventually(|| metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn requests_at_once_have_connections_of_their_own() {
    let (upstream, _, accepted) = serve(&["http/1.1"], 0, |request| async {
        if request.uri().path() == "/watch" {
            return Response::new(StreamBody::new(futures_util::stream::pending()).boxed_unsync());
        }
        echo(request).await
    })
    .await;
    let first = upstream.send(get("/watch")).await.unwrap();
    let second = upstream.send(get("/watch")).await.unwrap();
    text(upstream.send(get("/")).await.unwrap()).await;
    text(upstream.send(get("/")).await.unwrap()).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
    drop((first, second));
}

/// Runs a plain-text server that responds to each request on a connection with the next of
/// `answers`, and then closes it; returns the requests that it received.
async fn scripted(
    answers: &'static [&'static str],
) -> (Upstream, Arc<UpstreamMetrics>, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (upstream, metrics) =
        client(config(&format!("http://{}", listener.local_addr().unwrap()), ""));
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            for answer in answers {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = tcp.read_u8().await else { break };
                    head.push(byte);
                }
                if head.is_empty() {
                    break;
                }
                log.lock().unwrap().push(String::from_utf8(head).unwrap());
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (upstream, metrics, asked)
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let (upstream, metrics, asked) =
        scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await;
    for _ in 0..3 {
        assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
        eventually(|| metrics.connections.get() == 0).await;
    }
    assert_eq!(asked.lock().unwrap().len(), 3);
    assert_eq!(metrics.errors.get(), 0);
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_retried() {
    let (upstream, metrics, asked) = scripted(&[""]).await;
    let error = upstream.send(post("/", RequestBody::EMPTY)).await.unwrap_err();
    assert!(matches!(error, SendError::Interrupted { .. }), "{error}");
    assert!(!error.retry_safe());
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert_eq!(metrics.errors.get(), 1);
}

#[tokio::test]
async fn redirects_are_responses() {
    let (upstream, _, asked) =
        scripted(&["HTTP/1.1 307 Temporary Redirect\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n"])
            .await;
    let response = upstream.send(get("/a")).await.unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(response.headers()["location"], "/b");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn interim_responses_are_dropped() {
    let (upstream, _, _) = scripted(&[
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ])
    .await;
    let response = upstream.send(get("/a")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("link"));
    assert_eq!(text(response).await, "ok");
}
