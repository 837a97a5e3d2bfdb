//! A fake API server: TLS with the certificate of the corpus, HTTP/1.1 or HTTP/2, and one handler
//! for all requests.

use std::io::Result as IoResult;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::corpus;

/// An error of a body or a handler. A handler's error closes the connection or resets the stream.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a response.
pub type AnswerBody = BoxBody<Bytes, BoxError>;
/// The result of a handler.
pub type Answered = Result<Response<AnswerBody>, BoxError>;

/// The protocols that the fake offers with ALPN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocols {
    /// Only `http/1.1`.
    Http1,
    /// `h2`, then `http/1.1` (upgrades need it).
    Http2,
}

/// The head of a received request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The request target, as it came.
    pub target: String,
    /// The request target, as received.
    pub version: Version,
    /// Lower-case names and values in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The client certificate; `None` if there was none.
    pub certificate: Option<Vec<u8>>,
}

impl Seen {
    /// Returns all values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }
}

/// A running fake; all its connections are closed when it is dropped or stopped.
pub struct FakeUpstream {
    /// The address on which it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    raw: Arc<Mutex<Vec<Raw>>>,
    accepting: tokio::task::JoinHandle<()>,
}

/// The first bytes of one HTTP/1.1 connection.
type Raw = Arc<Mutex<Vec<u8>>>;

/// Maximum number of recorded bytes of a connection.
const RAW_LIMIT: usize = 1 << 20;

impl FakeUpstream {
    /// Listens on a free port and responds with `handler`.
    pub async fn start<F, A>(protocols: Protocols, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Answered> + Send + 'static,
    {
        Self::start_on("127.0.0.1:0".parse().unwrap(), protocols, handler).await
    }

    /// Listens on a given port.
    pub async fn start_on<F, A>(addr: SocketAddr, protocols: Protocols, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Answered> + Send + 'static,
    {
        Self::start_tls(addr, tls(protocols), handler).await
    }

    /// Listens with other certificates than those of the corpus.
    pub async fn start_tls<F, A>(addr: SocketAddr, tls: ServerConfig, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Answered> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let serving = Serving { seen: Arc::clone(&seen), raw: Arc::clone(&raw), handler };
        let serving = Arc::new(serving);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let acceptor = acceptor.clone();
                connections.spawn(serve(Arc::clone(&serving), acceptor, stream));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, seen, raw, accepting }
    }

    /// Returns the heads of all requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the heads of all requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Returns the bytes of every HTTP/1.1 connection so far.
    pub fn raw(&self) -> Vec<Vec<u8>> {
        self.raw.lock().unwrap().iter().map(|bytes| bytes.lock().unwrap().clone()).collect()
    }

    /// Stops the server and closes its connections.
    pub async fn stop(self) {
        self.accepting.abort();
        while !self.accepting.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Serving<F> {
    seen: Arc<Mutex<Vec<Seen>>>,
    raw: Arc<Mutex<Vec<Raw>>>,
    handler: F,
}

async fn serve<F, A>(serving: Arc<Serving<F>>, acceptor: TlsAcceptor, stream: TcpStream)
where
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Answered> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(|all| all.first());
    let certificate = certificate.map(|certificate| certificate.to_vec());
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let service = {
        let serving = Arc::clone(&serving);
        service_fn(move |request: Request<Incoming>| {
            serving.seen.lock().unwrap().push(head(&request, certificate.clone()));
            (serving.handler)(request)
        })
    };
    if is_http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(2000).max_header_list_size(4 << 20);
        builder.initial_stream_window_size(1 << 20).initial_connection_window_size(16 << 20);
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    } else {
        let bytes = Raw::default();
        serving.raw.lock().unwrap().push(Arc::clone(&bytes));
        let stream = Recording { stream, bytes };
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.half_close(true).max_headers(20_000).max_buf_size(4 << 20);
        let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }
}

fn head(request: &Request<Incoming>, certificate: Option<Vec<u8>>) -> Seen {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let target = match request.version() {
        Version::HTTP_2 => {
            request.uri().path_and_query().map_or("", |target| target.as_str()).into()
        }
        _ => request.uri().to_string(),
    };
    Seen {
        method: request.method().to_string(),
        target,
        version: request.version(),
        headers: request.headers().iter().map(|(n, v)| (n.to_string(), text(v))).collect(),
        certificate,
    }
}

fn tls(protocols: Protocols) -> ServerConfig {
    let mut roots = rustls::RootCertStore::empty();
    for ca in ["ca.crt", "front-proxy-ca.crt"] {
        roots.add(CertificateDer::from_pem_file(corpus::pki(ca)).unwrap()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(corpus::pki("apiserver.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(corpus::pki("apiserver.key")).unwrap();
    let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = match protocols {
        Protocols::Http1 => vec![b"http/1.1".to_vec()],
        Protocols::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    config
}

/// Returns a body of known length.
pub fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Returns an empty body.
pub fn empty() -> AnswerBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Returns a body that is sent frame by frame, and ends when the sender is dropped.
pub fn streamed() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, AnswerBody) {
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, StreamBody::new(Boxed(Box::pin(frames))).boxed())
}

/// Makes the stream of `unfold` `Sync`, which `BoxBody` requires.
struct Boxed(
    Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + Sync>>,
);

impl futures_util::Stream for Boxed {
    type Item = Result<Frame<Bytes>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// Returns a response with a JSON body.
pub fn json(status: u16, body: impl Into<Bytes>) -> Answered {
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(full(body))?)
}

/// Records the bytes that are read from a connection.
struct Recording<S> {
    stream: S,
    bytes: Raw,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recording<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let mut bytes = self.bytes.lock().unwrap();
        let room = RAW_LIMIT.saturating_sub(bytes.len());
        let new = &buffer.filled()[before..];
        bytes.extend_from_slice(&new[..new.len().min(room)]);
        drop(bytes);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recording<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
