//! An API server with several addresses, frame by frame.

use super::raw_http2::Raw;
use super::*;

/// Returns the API servers behind these listeners, which have certificates of their own.
fn balanced(listeners: &[&Listener]) -> (Upstream, Arc<UpstreamMetrics>) {
    let cas: String = listeners.iter().map(|listener| listener.ca.as_str()).collect();
    let url = |listener: &&Listener| format!("https://{}", listener.address());
    let mut config = config(&url(&listeners[0]), &cas);
    let more = listeners[1..].iter().map(|l| Endpoint::parse(&url(l), "url").unwrap());
    config.more_servers = more.collect();
    client(config)
}

/// Responds to all requests with `ok`, and counts those that are not health checks: they have a
/// body.
fn serve_all(listener: Listener) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let mut raw = Raw::accept(&listener).await;
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                loop {
                    let (stream, body) = raw.request().await;
                    counter.fetch_add(usize::from(!body.is_empty()), Ordering::SeqCst);
                    raw.answer(stream, b"ok").await;
                }
            });
        }
    });
    count
}

fn write() -> Request<RequestBody> {
    post("/", RequestBody::from(Bytes::from_static(b"body")))
}

/// What a server does with a request that has a body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Refuse,
    GoAway,
    Close,
}

/// Commits `fault` at each request with a body, and responds to others.
fn faulty(listener: Listener, fault: Fault) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let mut raw = Raw::accept(&listener).await;
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                loop {
                    let (stream, body) = raw.request().await;
                    if body.is_empty() {
                        raw.answer(stream, b"ok").await;
                        continue;
                    }
                    counter.fetch_add(1, Ordering::SeqCst);
                    match fault {
                        Fault::Refuse => raw.refuse(stream).await,
                        // Health checks have a connection of their own.
                        Fault::GoAway => raw.leave(0).await,
                        Fault::Close => return,
                    }
                }
            });
        }
    });
    count
}

#[tokio::test]
async fn a_write_moves_only_if_it_was_not_processed() {
    for fault in [Fault::Refuse, Fault::GoAway, Fault::Close] {
        let (first, second) = (Listener::new(&["h2"]).await, Listener::new(&["h2"]).await);
        let (upstream, metrics) = balanced(&[&first, &second]);
        let (faults, served) = (faulty(first, fault), serve_all(second));
        let mut failures = 0;
        while faults.load(Ordering::SeqCst) == 0 {
            match upstream.send(write()).await {
                Ok(response) => assert_eq!(text(response).await, "ok"),
                Err(error) => {
                    assert!(
                        error.is_outcome_unknown() && fault == Fault::Close,
                        "{fault:?} {error}"
                    );
                    failures += 1;
                }
            }
        }
        let expected = usize::from(fault == Fault::Close);
        assert_eq!((failures, metrics.errors.get()), (expected, expected as u64), "{fault:?}");
        assert!(fault == Fault::Close || served.load(Ordering::SeqCst) > 0);
    }
}

#[tokio::test]
async fn a_read_moves_if_the_connection_breaks() {
    let (first, second) = (Listener::new(&["h2"]).await, Listener::new(&["h2"]).await);
    let (upstream, metrics) = balanced(&[&first, &second]);
    let (faults, _served) = (faulty(first, Fault::Close), serve_all(second));
    while faults.load(Ordering::SeqCst) == 0 {
        let mut read = write();
        *read.method_mut() = Method::GET;
        assert_eq!(text(upstream.send(read).await.unwrap()).await, "ok");
    }
    assert_eq!(metrics.errors.get(), 0);
}

#[tokio::test]
async fn in_flight_requests_are_counted_until_their_end() {
    let (first, second) = (Listener::new(&["h2"]).await, Listener::new(&["h2"]).await);
    let (upstream, _) = balanced(&[&first, &second]);
    let addresses = [first.address(), second.address()];
    for listener in [first, second] {
        tokio::spawn(async move {
            loop {
                let mut raw = Raw::accept(&listener).await;
                tokio::spawn(async move {
                    loop {
                        let (stream, body) = raw.request().await;
                        match body.is_empty() {
                            true => raw.answer(stream, b"ok").await,
                            false => raw.begin(stream).await,
                        }
                    }
                });
            }
        });
    }
    let in_flight = |upstream: &Upstream| -> Vec<usize> {
        let now = upstream.now();
        let members = now.endpoints().members();
        let of = |address| members.iter().find(|m| m.address() == Some(address)).unwrap();
        addresses.iter().map(|address| of(*address).in_flight()).collect()
    };
    let mut responses = Vec::new();
    for _ in 0..6 {
        responses.push(upstream.send(write()).await.unwrap());
    }
    // The second connection may have been opened a little later than the first requests came.
    let counts = in_flight(&upstream);
    assert!(counts.iter().sum::<usize>() >= 6, "{counts:?}");
    drop(responses);
    eventually(|| in_flight(&upstream).iter().sum::<usize>() == 0).await;
}

#[tokio::test]
async fn a_name_with_several_addresses_is_balanced() {
    let listener = Listener::new(&["h2"]).await;
    let port = listener.address().port();
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    api_client::dial::overrides::resolve("two.test", vec![at("127.0.0.3"), at("127.0.0.1")]);
    let mut config = config(&format!("https://two.test:{port}"), &listener.ca);
    config.tls_server_name = Some("127.0.0.1".try_into().unwrap());
    let (upstream, _) = client(config);
    let _served = serve_all(listener);
    eventually(|| upstream.now().endpoints().members().len() == 2).await;
    assert_eq!(&*upstream.authority(), format!("two.test:{port}"));
    let began = std::time::Instant::now();
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Nothing listens at the other one.
    let down = format!("127.0.0.3:{port} is down");
    eventually(|| upstream.all_healthy().is_err_and(|error| error.starts_with(&down))).await;
    upstream.check().await.unwrap();
}
