//! Tests of the upstream with real sockets. This file has the servers; the tests are grouped by
//! subject.

mod addresses;
mod http1;
mod http2;
mod http2_streams;
mod lost_connections;
mod own_requests;
mod raw_http2;
mod several;
mod upgrades;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::UpstreamConfig;
use super::config::{Pem, Trust};
use super::endpoint::Endpoint;
use super::metrics::UpstreamMetrics;
use super::{SendError, Upstream, UpstreamBody};
use crate::body::{ClientBody, RequestBody};
use audit_log::CommitSequence;

impl Upstream {
    /// Forwards a request that does not wait for events.
    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.forward(request, &CommitSequence::detached()).await
    }
}

type TestBody = UnsyncBoxBody<Bytes, Infallible>;

/// A listener on loopback with its own certificate.
struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
    ca: String,
}

impl Listener {
    async fn new(alpn: &[&str]) -> Listener {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Listener {
            tcp: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls: TlsAcceptor::from(Arc::new(config)),
            ca: made.cert.pem(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.tcp.local_addr().unwrap()
    }

    async fn accept(&self) -> tokio_rustls::server::TlsStream<TcpStream> {
        loop {
            let (tcp, _) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.tls.accept(tcp).await {
                return stream;
            }
        }
    }

    fn client(&self) -> (Upstream, Arc<UpstreamMetrics>) {
        client(config(&format!("https://{}", self.address()), &self.ca))
    }
}

fn config(url: &str, ca: &str) -> UpstreamConfig {
    let bytes = ca.as_bytes().to_vec();
    UpstreamConfig {
        server: Endpoint::parse(url, "url").unwrap(),
        more_servers: Vec::new(),
        trust: Trust::Ca(Pem::Data { field: "ca".to_owned(), bytes }),
        tls_server_name: None,
        client_certificate: None,
        credentials: None,
        proxy: None,
        is_front_proxy: false,
    }
}

async fn upgrade(
    upstream: &Upstream,
    request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, SendError> {
    upstream.upgrade(request, &CommitSequence::detached()).await
}

fn client(config: UpstreamConfig) -> (Upstream, Arc<UpstreamMetrics>) {
    let metrics = Arc::new(UpstreamMetrics::default());
    (Upstream::new(config, Arc::clone(&metrics)).unwrap(), metrics)
}

/// Serves HTTP with hyper; returns the client and the number of connections accepted.
async fn serve<F, R>(
    alpn: &'static [&'static str],
    max_streams: u32,
    answer: F,
) -> (Upstream, Arc<UpstreamMetrics>, Arc<AtomicUsize>)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<TestBody>> + Send + 'static,
{
    let listener = Listener::new(alpn).await;
    let (upstream, metrics) = listener.client();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await;
            counter.fetch_add(1, Ordering::SeqCst);
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                if http2 {
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(max_streams)
                        .serve_connection(io, service)
                        .await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .with_upgrades()
                        .await;
                }
            });
        }
    });
    (upstream, metrics, accepted)
}

/// Responds with a description of the request.
async fn echo(request: Request<Incoming>) -> Response<TestBody> {
    let (parts, body) = request.into_parts();
    let host = match parts.headers.get("host") {
        Some(host) => format!("host={}", host.to_str().unwrap()),
        None => format!("authority={}", parts.uri.authority().unwrap()),
    };
    let target = parts.uri.path_and_query().unwrap().as_str().to_owned();
    let mut names: Vec<&str> = parts.headers.keys().map(|n| n.as_str()).collect();
    names.sort_unstable();
    let names = names.join(",");
    let body = match body.collect().await {
        Ok(body) => String::from_utf8(body.to_bytes().into()).unwrap(),
        Err(_) => "broken".to_owned(),
    };
    let version = parts.version;
    full(format!("{version:?} {} {target} {host} [{names}] {body}", parts.method))
}

fn full(text: impl Into<Bytes>) -> Response<TestBody> {
    Response::new(Full::new(text.into()).boxed_unsync())
}

/// Returns a response with an infinite body, as fast as it is read.
fn endless() -> Response<TestBody> {
    let chunk = Bytes::from(vec![b'x'; 16 << 10]);
    let stream = futures_util::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
    Response::new(StreamBody::new(stream).boxed_unsync())
}

fn get(target: &str) -> Request<RequestBody> {
    Request::get(target).body(RequestBody::EMPTY).unwrap()
}

fn post(target: &str, body: RequestBody) -> Request<RequestBody> {
    Request::builder().method(Method::POST).uri(target).body(body).unwrap()
}

async fn text(response: Response<UpstreamBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

/// Waits until `condition` holds; fails after 10 s.
async fn eventually(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it never became so");
}

/// Returns a client's body like the server side of hyper does. Sends `frames`, then ends, or, if
/// not `complete`, aborts.
async fn clients_body(frames: &[&'static str], complete: bool) -> RequestBody {
    let frames: Vec<Bytes> = frames.iter().map(|f| Bytes::from_static(f.as_bytes())).collect();
    let end = if complete { Ok(()) } else { Err(()) };
    let ended = std::future::ready(end);
    paced_body(frames, ended).await
}

/// Like [`clients_body`]; the body ends with the result of `ended`, once that is ready.
async fn paced_body(
    frames: Vec<Bytes>,
    ended: impl Future<Output = Result<(), ()>> + Send + 'static,
) -> RequestBody {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (give, take) = oneshot::channel();
    let give = Arc::new(std::sync::Mutex::new(Some(give)));
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let give = give.lock().unwrap().take().unwrap();
            give.send(request.into_body()).unwrap();
            std::future::pending::<Result<Response<TestBody>, Infallible>>()
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), service)
            .await;
    });
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut near = near;
        near.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        for frame in frames {
            near.write_all(format!("{:x}\r\n", frame.len()).as_bytes()).await.unwrap();
            near.write_all(&frame).await.unwrap();
            near.write_all(b"\r\n").await.unwrap();
        }
        if ended.await.is_ok() {
            near.write_all(b"0\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        }
    });
    RequestBody::Client { body: ClientBody::http1(take.await.unwrap()), tap: None }
}

/// A tap that ignores the body.
#[derive(Default)]
struct IgnoringTap(crate::body::Deadline);

impl crate::body::Tap for IgnoringTap {
    fn data(&mut self, _: &Bytes) {}

    fn end(&mut self) {}

    fn poll_deadline(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.0.poll(context)
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorded_body_has_to_be_complete_in_time() {
    use crate::body::{BODY_DEADLINE, BodyTimeout, Tap};
    for recorded in [true, false] {
        let never = std::future::pending();
        let body = paced_body(vec![Bytes::from_static(b"a")], never).await;
        let RequestBody::Client { body, .. } = body else { unreachable!() };
        let tap = recorded.then(|| Box::new(IgnoringTap::default()) as Box<dyn Tap>);
        let mut body = RequestBody::Client { body, tap };
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let started = tokio::time::Instant::now();
        match tokio::time::timeout(BODY_DEADLINE * 2, body.frame()).await {
            Ok(frame) => {
                assert!(recorded && frame.unwrap().unwrap_err().is::<BodyTimeout>());
                assert!(started.elapsed() < BODY_DEADLINE + std::time::Duration::from_secs(1));
            }
            Err(_) => assert!(!recorded, "what is not recorded may take its time"),
        }
    }
}

const TARGETS: &[&str] = &[
    "/",
    "/api/v1/namespaces/default/pods?limit=500",
    "/a%2Fb//c/../d?x=%zz&y=%C3%A9",
    "//double//slash/./.",
    "/a?",
    "/a??b=c?d",
    "/a;b=c/%2e%2e/%00",
    "/apis/~!$&'()*+,=:@-._/\"|{}^",
];

#[tokio::test]
async fn an_unreachable_upstream_is_reported_at_once() {
    let listener = Listener::new(&["h2"]).await;
    let (upstream, metrics) = listener.client();
    let address = listener.address();
    drop(listener);
    let error = upstream.send(get("/")).await.unwrap_err();
    assert!(matches!(error, SendError::Connect { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("cannot connect to {address}: ")), "{error}");
    assert!(error.retry_safe() && !error.is_clients_fault());
    assert!(matches!(upstream.check().await, Err(SendError::Connect { .. })));
    assert!(matches!(upgrade(&upstream, get("/")).await, Err(SendError::Connect { .. })));
    assert_eq!(metrics.errors.get(), 2);
    assert_eq!(metrics.connections.get(), 0);
}

#[tokio::test]
async fn an_unknown_ca_is_a_tls_error() {
    let listener = Listener::new(&["h2"]).await;
    let other = Listener::new(&["h2"]).await;
    let (upstream, _) = client(config(&format!("https://{}", listener.address()), &other.ca));
    tokio::spawn(async move { listener.accept().await });
    let error = upstream.send(get("/")).await.unwrap_err();
    assert!(matches!(error, SendError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn insecure_accepts_any_certificate() {
    let listener = Listener::new(&["http/1.1"]).await;
    let mut config = config(&format!("https://{}", listener.address()), "");
    config.trust = Trust::Insecure;
    let (upstream, _) = client(config);
    tokio::spawn(async move {
        let stream = listener.accept().await;
        std::mem::forget(stream);
    });
    upstream.check().await.unwrap();
}

#[tokio::test]
async fn changed_certificates_make_new_connections() {
    let path = std::env::temp_dir().join(format!("kap-upstream-ca-{}", std::process::id()));
    let (upstream, _, accepted) = {
        let listener = Listener::new(&["h2"]).await;
        std::fs::write(&path, &listener.ca).unwrap();
        let mut config = config(&format!("https://{}", listener.address()), "");
        config.trust = Trust::Ca(Pem::file("ca", &path));
        let (upstream, metrics) = client(config);
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let stream = listener.accept().await;
                counter.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(|r| async { Ok::<_, Infallible>(echo(r).await) });
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (upstream, metrics, accepted)
    };
    text(upstream.send(get("/")).await.unwrap()).await;
    upstream.refresh();
    text(upstream.send(get("/")).await.unwrap()).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    let with_another = std::fs::read_to_string(&path).unwrap() + &Listener::new(&[]).await.ca;
    std::fs::write(&path, with_another).unwrap();
    upstream.refresh();
    let reloaded = async {
        while accepted.load(Ordering::SeqCst) == 1 {
            text(upstream.send(get("/")).await.unwrap()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reloaded).await.unwrap();
    text(upstream.send(get("/")).await.unwrap()).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    std::fs::remove_file(&path).unwrap();
}
