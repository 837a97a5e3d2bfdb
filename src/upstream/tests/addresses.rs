//! A host with several addresses, some of which are dead.

use socket2::{Domain, Socket, Type};

use super::*;
use api_client::dial::overrides;

/// An address with a full backlog: the kernel drops new connections, like a firewall.
struct Dead {
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Dead {
    fn at(address: SocketAddr) -> Dead {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let waiting = (0..3).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        });
        let waiting = waiting.collect();
        Dead { _listener: listener, _waiting: waiting }
    }
}

/// Makes `host` resolve to these addresses of loopback and the listener's port.
fn upstream(
    listener: &Listener,
    host: &str,
    addresses: &[&str],
) -> (Upstream, Arc<UpstreamMetrics>) {
    let port = listener.address().port();
    let addresses = addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
    overrides::resolve(host, addresses.collect());
    let mut config = config(&format!("https://{host}:{port}"), &listener.ca);
    config.tls_server_name = Some("127.0.0.1".try_into().unwrap());
    client(config)
}

/// Responds to one request on each connection.
fn respond(listener: Listener) {
    tokio::spawn(async move {
        loop {
            let mut raw = raw_http2::Raw::accept(&listener).await;
            tokio::spawn(async move {
                loop {
                    let (stream, _) = raw.request().await;
                    raw.answer(stream, b"ok").await;
                }
            });
        }
    });
}

#[tokio::test]
async fn a_dead_address_delays_one_connection_and_is_cached() {
    let listener = Listener::new(&["h2"]).await;
    let dead = "127.0.0.2";
    let _dead = Dead::at(SocketAddr::new(dead.parse().unwrap(), listener.address().port()));
    let (upstream, _) = upstream(&listener, "dead-first.test", &[dead, "127.0.0.1"]);
    respond(listener);
    let began = std::time::Instant::now();
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    assert!(began.elapsed() >= Duration::from_millis(250), "the first address was not tried");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(overrides::first("dead-first.test").await.ip().to_string(), "127.0.0.1");
}

#[tokio::test]
async fn an_address_that_drops_tls_handshakes_is_ruled_out() {
    let listener = Listener::new(&["h2"]).await;
    let port = listener.address().port();
    let dropping = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    tokio::spawn(async move {
        loop {
            drop(dropping.accept().await.unwrap());
        }
    });
    let (upstream, _) = upstream(&listener, "no-tls.test", &["127.0.0.2", "127.0.0.1"]);
    respond(listener);
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    assert_eq!(overrides::first("no-tls.test").await.ip().to_string(), "127.0.0.1");
    assert!(matches!(upstream.check().await, Ok(())));
}
