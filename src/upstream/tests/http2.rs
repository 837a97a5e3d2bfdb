use std::sync::Mutex;

use http::HeaderMap;
use tokio::runtime::Builder;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::*;

/// Number of streams that fit on one connection.
const UNREAD: usize = 32;

#[tokio::test]
async fn targets_go_out_byte_for_byte() {
    let (upstream, metrics, accepted) = serve(&["h2", "http/1.1"], 100, echo).await;
    let authority = upstream.authority().to_owned();
    for target in TARGETS {
        let mut request = get(target);
        request.headers_mut().insert("host", "client.example".parse().unwrap());
        request.headers_mut().insert("x-a", "1".parse().unwrap());
        let answer = text(upstream.send(request).await.unwrap()).await;
        assert_eq!(answer, format!("HTTP/2.0 GET {target} authority={authority} [x-a] "));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    assert_eq!(metrics.connections.get(), 1);
    drop(upstream);
    eventually(|| metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_path_prefix_is_put_before() {
    let listener = Listener::new(&["h2"]).await;
    let (upstream, _) =
        client(config(&format!("https://{}/k8s/clusters/c-1/", listener.address()), &listener.ca));
    tokio::spawn(async move {
        let service = service_fn(|r| async { Ok::<_, Infallible>(echo(r).await) });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(listener.accept().await), service)
            .await
    });
    let answer = text(upstream.send(get("/a//b?x=%zz")).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/2.0 GET /k8s/clusters/c-1/a//b?x=%zz "), "{answer}");
}

#[tokio::test]
async fn bodies_and_trailers_pass() {
    let (upstream, _, _) = serve(&["h2"], 100, |request| async {
        if request.uri().path() == "/trailers" {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(trailers)];
            let stream = futures_util::stream::iter(frames.map(Ok));
            return Response::new(StreamBody::new(stream).boxed_unsync());
        }
        echo(request).await
    })
    .await;
    let known = RequestBody::from(Bytes::from_static(b"known"));
    let answer = text(upstream.send(post("/", known)).await.unwrap()).await;
    assert!(answer.ends_with("[content-length] known"), "{answer}");
    let streamed = clients_body(&["stre", "amed"], true).await;
    let answer = text(upstream.send(post("/", streamed)).await.unwrap()).await;
    assert!(answer.ends_with("[] streamed"), "{answer}");
    let response = upstream.send(get("/trailers")).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_the_upstreams_fault() {
    for alpn in [&["h2"], &["http/1.1"]] {
        let (upstream, metrics, _) = serve(alpn, 100, echo).await;
        let broken = clients_body(&["half"], false).await;
        let error = upstream.send(post("/", broken)).await.unwrap_err();
        assert!(matches!(error, SendError::BodyFromClient), "{error}");
        assert!(error.is_clients_fault() && !error.retry_safe());
        assert_eq!(metrics.errors.get(), 0);
    }
}

#[tokio::test]
async fn unread_responses_do_not_stall_others() {
    let (upstream, _, accepted) = serve(&["h2"], 250, |request| async {
        if request.uri().path() == "/endless" { endless() } else { echo(request).await }
    })
    .await;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        let mut body = upstream.send(get("/endless")).await.unwrap().into_body();
        // Read one frame of each, so that all streams have started, and then no more.
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await;
        frame.expect("stalled").unwrap().unwrap();
        unread.push(body);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    for _ in 0..20 {
        let asking = async { text(upstream.send(get("/quick")).await.unwrap()).await };
        let answer = tokio::time::timeout(Duration::from_secs(10), asking).await;
        assert!(answer.expect("stalled").contains("/quick"));
    }
    drop(unread);
}

#[tokio::test]
async fn fifty_stalled_responses_do_not_stall_another() {
    let (upstream, _, _) = serve(&["h2"], 250, |request| async {
        if request.uri().path() == "/endless" { endless() } else { echo(request).await }
    })
    .await;
    let mut unread = Vec::new();
    for _ in 0..50 {
        unread.push(upstream.send(get("/endless")).await.unwrap());
    }
    let mut flowing = upstream.send(get("/endless")).await.unwrap().into_body();
    let mut bytes = 0;
    while bytes < 64 << 20 {
        let frame = tokio::time::timeout(Duration::from_secs(10), flowing.frame()).await;
        bytes += frame.expect("stalled").unwrap().unwrap().into_data().unwrap().len();
    }
    drop(unread);
}

#[tokio::test]
async fn more_streams_than_one_connection_allows_open_another() {
    let (upstream, metrics, accepted) = serve(&["h2"], 5, |request| async {
        if request.uri().path() == "/watch" {
            let never = futures_util::stream::pending();
            return Response::new(StreamBody::new(never).boxed_unsync());
        }
        echo(request).await
    })
    .await;
    // All requests start before the first connection is open.
    let start = Arc::new(Barrier::new(23));
    let mut asking = JoinSet::new();
    for _ in 0..23 {
        let (upstream, start) = (upstream.clone(), Arc::clone(&start));
        asking.spawn(async move {
            start.wait().await;
            upstream.send(get("/watch")).await
        });
    }
    let watches = asking.join_all().await;
    assert!(watches.iter().all(Result::is_ok));
    assert_eq!(accepted.load(Ordering::SeqCst), 5);
    for _ in 0..10 {
        text(upstream.send(get("/")).await.unwrap()).await;
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 5);
    assert_eq!(metrics.errors.get(), 0);
    // Streams of ended watches are reused, and all unused connections but one are closed.
    drop(watches);
    for _ in 0..10 {
        text(upstream.send(get("/")).await.unwrap()).await;
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 5);
    for _ in 0..3 {
        upstream.sweep();
    }
    eventually(|| metrics.connections.get() == 1).await;
    text(upstream.send(get("/")).await.unwrap()).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 5);
}

#[test]
fn each_thread_has_connections_of_its_own() {
    for alpn in [&["h2"], &["http/1.1"]] {
        let runtime = || Builder::new_current_thread().enable_all().build().expect("a runtime");
        let main = runtime();
        let (upstream, _, accepted) = main.block_on(serve(alpn, 250, echo));
        let ask = async |upstream: &Upstream| text(upstream.send(get("/")).await.unwrap()).await;
        main.block_on(ask(&upstream));
        main.block_on(ask(&upstream));
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
        let (done, end) = tokio::sync::oneshot::channel();
        let theirs = upstream.clone();
        let other = std::thread::spawn(move || {
            runtime().block_on(async {
                ask(&theirs).await;
                ask(&theirs).await;
                let _ = done.send(());
            });
        });
        main.block_on(end).expect("the other thread has not panicked");
        other.join().expect("the other thread has not panicked");
        assert_eq!(accepted.load(Ordering::SeqCst), 2);
        main.block_on(ask(&upstream));
        assert_eq!(accepted.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn waiters_share_one_connection_and_one_failure() {
    let (upstream, _, accepted) = serve(&["h2"], 100, echo).await;
    let mut asking = JoinSet::new();
    for _ in 0..30 {
        let upstream = upstream.clone();
        asking.spawn(async move { upstream.send(get("/")).await.is_ok() });
    }
    assert!(asking.join_all().await.iter().all(|ok| *ok));
    assert_eq!(accepted.load(Ordering::SeqCst), 1);

    // Accepts connections and sends nothing. The first waiter connects for all, and repeats a
    // failed handshake once.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (upstream, _) = client(config(&url, &Listener::new(&[]).await.ca));
    let attempts = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&attempts);
    tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        *counter.lock().unwrap() += 1;
        // All others are waiting by now, as this is a current-thread runtime.
        tokio::task::yield_now().await;
        drop(first);
        while listener.accept().await.is_ok() {
            *counter.lock().unwrap() += 1;
        }
    });
    let all = futures_util::future::join_all((0..30).map(|_| upstream.send(get("/")))).await;
    assert!(all.iter().all(|r| matches!(r, Err(SendError::Tls { .. }))));
    assert_eq!(*attempts.lock().unwrap(), 2);
}
