use std::future::Future;
use std::io::ErrorKind;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

use super::super::certificates::ServingCertificate;
use super::super::shutdown::Shutdown;
use super::super::test_support::{
    Pair, TestHandler, certificate, certificate_v1, client_config, connect, leaf_of,
};
use super::super::tls::{MinVersion, TlsOptions, cipher_suites, server_config};
use super::*;
use test_support::TempDir;

struct Server {
    addr: SocketAddr,
    handler: TestHandler,
    metrics: Arc<ConnectionMetrics>,
    shutdown: Shutdown,
    serving: Arc<ServingCertificate>,
    listening: JoinHandle<()>,
    dir: TempDir,
}

impl Server {
    async fn start() -> Server {
        Server::with(TlsOptions {
            min_version: MinVersion::Tls12,
            cipher_suites: None,
            request_client_certificates: true,
        })
        .await
    }

    async fn with(options: TlsOptions) -> Server {
        let dir = TempDir::new();
        let pair = certificate("server");
        let crt = dir.write("tls.crt", &pair.certificate);
        let key = dir.write("tls.key", &pair.key);
        let serving = Arc::new(ServingCertificate::load(&crt, &key).unwrap());
        let tls = server_config(&options, serving.clone()).unwrap();
        let tcp = bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
        let addr = tcp.local_addr().unwrap();
        let (shutdown, running) = Shutdown::new();
        let (handler, metrics) = (TestHandler::new(), Arc::new(ConnectionMetrics::default()));
        let on = Arc::new(Workers::none());
        let clients = Clients::new(10_000, Vec::new());
        let serve = serve(tcp, clients, on, tls, handler.clone(), metrics.clone(), running);
        let listening = tokio::spawn(serve);
        Server { addr, handler, metrics, shutdown, serving, listening, dir }
    }

    async fn http1(&self, pair: Option<&Pair>, tls12: bool) -> http1::SendRequest<Empty<Bytes>> {
        let tls = connect(self.addr, client_config(&["http/1.1"], pair, tls12)).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn http2(&self) -> (http2::SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
        let tls = connect(self.addr, client_config(&["h2"], None, false)).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        (sender, tokio::spawn(connection))
    }

    fn ask2(
        sender: &mut http2::SendRequest<Empty<Bytes>>,
        path: &str,
    ) -> impl Future<Output = Result<String, hyper::Error>> + use<> {
        let uri = format!("https://localhost{path}");
        let answer = sender.send_request(Request::get(uri).body(Empty::new()).unwrap());
        async move {
            let body = answer.await?.into_body().collect().await?.to_bytes();
            Ok(String::from_utf8(body.to_vec()).unwrap())
        }
    }
}

async fn ask1(sender: &mut http1::SendRequest<Empty<Bytes>>, path: &str) -> hyper::Result<String> {
    let request = Request::get(path).header("host", "localhost").body(Empty::new()).unwrap();
    let answer = sender.send_request(request).await?;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.version(), Version::HTTP_11);
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn alpn_chooses_the_protocol() {
    let server = Server::start().await;
    let mut one = server.http1(None, false).await;
    assert_eq!(ask1(&mut one, "/a").await.unwrap(), "HTTP/1.1 /a false");
    assert_eq!(ask1(&mut one, "/b").await.unwrap(), "HTTP/1.1 /b false");
    let (mut two, _) = server.http2().await;
    assert_eq!(Server::ask2(&mut two, "/c").await.unwrap(), "HTTP/2.0 /c false");
    let tls = connect(server.addr, client_config(&[], None, false)).await.unwrap();
    let (mut bare, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(ask1(&mut bare, "/d").await.unwrap(), "HTTP/1.1 /d false");
    let other = connect(server.addr, client_config(&["spdy/3"], None, false)).await;
    assert!(other.is_err());
}

#[tokio::test]
async fn any_client_certificate_is_accepted_and_none_is_required() {
    let server = Server::start().await;
    let (unknown, old) = (certificate("an unknown CA"), certificate_v1());
    for tls12 in [false, true] {
        for pair in [&unknown, &old] {
            let mut with = server.http1(Some(pair), tls12).await;
            assert_eq!(ask1(&mut with, "/").await.unwrap(), "HTTP/1.1 / true", "TLS 1.2: {tls12}");
        }
        let mut without = server.http1(None, tls12).await;
        assert_eq!(ask1(&mut without, "/").await.unwrap(), "HTTP/1.1 / false", "TLS 1.2: {tls12}");
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let server = Server::start().await;
    let stolen =
        Pair { certificate: certificate("victim").certificate, key: certificate("thief").key };
    for tls12 in [false, true] {
        let config = client_config(&["http/1.1"], Some(&stolen), tls12);
        // In TLS 1.3 the client's handshake is complete before the server has verified it.
        if let Ok(mut tls) = connect(server.addr, config).await {
            assert!(!tls12);
            assert!(tls.read(&mut [0; 1]).await.is_err());
        }
    }
    server.shutdown.drain();
    server.shutdown.all_ended().await;
    assert_eq!(server.metrics.tls_handshake_errors.get(), 2);
}

#[tokio::test]
async fn client_certificates_are_not_requested_without_a_client_ca() {
    let server = Server::with(TlsOptions {
        min_version: MinVersion::Tls12,
        cipher_suites: None,
        request_client_certificates: false,
    })
    .await;
    let mut with = server.http1(Some(&certificate("a")), false).await;
    assert_eq!(ask1(&mut with, "/").await.unwrap(), "HTTP/1.1 / false");
}

#[tokio::test]
async fn version_and_suites_are_kept_to() {
    let server = Server::with(TlsOptions {
        min_version: MinVersion::Tls13,
        cipher_suites: None,
        request_client_certificates: true,
    })
    .await;
    assert!(connect(server.addr, client_config(&["h2"], None, true)).await.is_err());
    assert!(connect(server.addr, client_config(&["h2"], None, false)).await.is_ok());

    let name = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let suite = cipher_suites().find(|(known, _)| known == name).unwrap().1;
    let server = Server::with(TlsOptions {
        min_version: MinVersion::Tls12,
        cipher_suites: Some(vec![suite]),
        request_client_certificates: true,
    })
    .await;
    let tls = connect(server.addr, client_config(&["h2"], None, true)).await.unwrap();
    assert_eq!(tls.get_ref().1.negotiated_cipher_suite(), Some(suite));
    // The list is for TLS 1.2 only.
    assert!(connect(server.addr, client_config(&["h2"], None, false)).await.is_ok());
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let server = Server::start().await;
    let mut old = server.http1(None, false).await;
    assert_eq!(ask1(&mut old, "/a").await.unwrap(), "HTTP/1.1 /a false");
    let renewed = certificate("renewed");
    server.dir.write("tls.crt", &renewed.certificate);
    server.dir.write("tls.key", &renewed.key);
    server.serving.reload().unwrap();
    let new = connect(server.addr, client_config(&["h2"], None, false)).await.unwrap();
    let shown = new.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown, leaf_of(&renewed.certificate));
    assert_eq!(ask1(&mut old, "/b").await.unwrap(), "HTTP/1.1 /b false");
}

#[tokio::test]
async fn plain_http_gets_an_error_response_and_other_input_is_counted() {
    let server = Server::start().await;
    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The unread request makes the kernel reset the connection after the response.
    let _ = plain.read_to_end(&mut answer).await;
    assert_eq!(answer, PLAIN_HTTP);
    let mut nonsense = TcpStream::connect(server.addr).await.unwrap();
    nonsense.write_all(b"\x16nonsense nonsense").await.unwrap();
    let _ = nonsense.read_to_end(&mut answer).await;
    server.shutdown.drain();
    server.shutdown.all_ended().await;
    assert_eq!(server.metrics.tls_handshake_errors.get(), 1);
}

#[tokio::test]
async fn draining_finishes_requests_and_accepts_no_new_ones() {
    let server = Server::start().await;
    let (mut two, connection) = server.http2().await;
    let slow2 = tokio::spawn(Server::ask2(&mut two, "/slow"));
    server.handler.slow_has_begun().await;
    let mut one = server.http1(None, false).await;
    let slow1 = tokio::spawn(async move { ask1(&mut one, "/slow").await });
    server.handler.slow_has_begun().await;
    let mut idle = server.http1(None, false).await;
    assert_eq!(ask1(&mut idle, "/a").await.unwrap(), "HTTP/1.1 /a false");
    let mut fresh = connect(server.addr, client_config(&["http/1.1"], None, false)).await.unwrap();

    server.shutdown.drain();
    server.listening.await.unwrap();
    let refused = TcpStream::connect(server.addr).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Connections without a request are closed at once.
    assert_eq!(fresh.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(idle.ready().await.is_err());

    server.handler.release();
    server.handler.release();
    assert_eq!(slow1.await.unwrap().unwrap(), "HTTP/1.1 /slow false");
    assert_eq!(slow2.await.unwrap().unwrap(), "HTTP/2.0 /slow false");
    connection.await.unwrap().unwrap();
    server.shutdown.all_ended().await;
    assert_eq!(server.metrics.client_connections.get(), 0);
}

#[tokio::test]
async fn ending_drops_what_is_under_way() {
    let server = Server::start().await;
    let (mut two, _) = server.http2().await;
    let slow2 = tokio::spawn(Server::ask2(&mut two, "/slow"));
    server.handler.slow_has_begun().await;
    let mut one = server.http1(None, false).await;
    let slow1 = tokio::spawn(async move { ask1(&mut one, "/slow").await });
    server.handler.slow_has_begun().await;
    server.shutdown.drain();
    server.shutdown.end();
    server.shutdown.all_ended().await;
    assert!(server.handler.is_idle());
    assert!(slow1.await.unwrap().is_err());
    assert!(slow2.await.unwrap().is_err());
}

#[tokio::test]
async fn a_port_is_shared_only_among_those_that_permit_it() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let first = bind(any, true).unwrap();
    let addr = first.local_addr().unwrap();
    let refused = bind(addr, false).unwrap_err();
    assert_eq!(refused.source.kind(), io::ErrorKind::AddrInUse, "{refused}");
    let second = bind(addr, true).unwrap();

    // Once the first listener is closed, the second one gets all connections.
    drop(first);
    let (client, accepted) =
        tokio::join!(tokio::net::TcpStream::connect(addr), super::accept(&second));
    assert_eq!(client.unwrap().local_addr().unwrap(), accepted.1);
}
