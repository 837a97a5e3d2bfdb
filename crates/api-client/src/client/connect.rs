//! New connections of an HTTP client: TCP to one of several addresses, possibly through a proxy,
//! then TLS by `hyper-rustls`.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{
    DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, MaybeHttpsStream,
    ResolveServerName,
};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_service::Service;

use crate::dial::Addresses;
use crate::target::Target;
use crate::tunnel::Tunnel;

/// The time that opening a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type BoxError = Box<dyn Error + Send + Sync>;
type Opened<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Opens connections to one server, and to others that the same CAs are trusted for.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) target: Arc<Target>,
    /// The only address that is used.
    pub(super) address: Option<SocketAddr>,
    /// The runtime of the connections, whichever thread requests them.
    pub(super) runtime: Handle,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<Stream>>;
    type Error = BoxError;
    type Future = Opened<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let opening = self.runtime.spawn(open(Arc::clone(&self.target), self.address, url));
        Box::pin(async move { opening.await? })
    }
}

async fn open(
    target: Arc<Target>,
    address: Option<SocketAddr>,
    url: Uri,
) -> Result<MaybeHttpsStream<TokioIo<Stream>>, BoxError> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    match tokio::time::timeout_at(deadline, open_by(deadline, target, address, url)).await {
        Ok(opened) => opened,
        Err(_) => Err(timed_out()),
    }
}

fn timed_out() -> BoxError {
    let message = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message).into()
}

async fn open_by(
    deadline: Instant,
    target: Arc<Target>,
    address: Option<SocketAddr>,
    url: Uri,
) -> Result<MaybeHttpsStream<TokioIo<Stream>>, BoxError> {
    if target.proxy.is_some() {
        let dialer = Dialer { target: Arc::clone(&target), addresses: None, deadline };
        return handshake(&target, dialer, url).await;
    }
    let (host, port) = host_and_port(&url);
    let addresses = Arc::new(Mutex::new(Candidates {
        addresses: Some(match address {
            Some(address) => Addresses::fixed(address),
            None => Addresses::resolve(&host, port).await?,
        }),
        connected: None,
    }));
    loop {
        let count = lock(&addresses).addresses.as_ref().map_or(1, Addresses::count);
        let share = deadline.saturating_duration_since(Instant::now())
            / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let dialer = Dialer {
            target: Arc::clone(&target),
            addresses: Some(Arc::clone(&addresses)),
            deadline,
        };
        let shaking = handshake(&target, dialer, url.clone());
        let opened =
            tokio::time::timeout(share, shaking).await.unwrap_or_else(|_| Err(timed_out()));
        let mut candidates = lock(&addresses);
        let Candidates { addresses, connected } = &mut *candidates;
        let (Some(addresses), Some(address)) = (addresses, connected.take()) else { return opened };
        match opened {
            Ok(stream) => {
                addresses.succeeded(address);
                return Ok(stream);
            }
            // An address that accepts TCP connections and nothing more, among others.
            Err(error) if addresses.count() > 1 && is_lost(&error) => addresses.rule_out(address),
            Err(error) => return Err(error),
        }
    }
}

/// Connects by `dialer`, then TLS for `https`.
async fn handshake(
    target: &Target,
    dialer: Dialer,
    url: Uri,
) -> Result<MaybeHttpsStream<TokioIo<Stream>>, BoxError> {
    let Some(tls) = &target.tls else {
        let mut dialer = dialer;
        return Ok(MaybeHttpsStream::Http(dialer.call(url).await?));
    };
    let names: Arc<dyn ResolveServerName + Send + Sync> =
        match url.authority() == Some(&target.endpoint.authority) {
            true => Arc::new(FixedServerNameResolver::new(tls.server_name.clone())),
            false => Arc::new(DefaultServerNameResolver::default()),
        };
    HttpsConnector::new(dialer, tls.pooled(), true, names).call(url).await
}

/// Returns whether the network lost the connection, unlike a certificate that is not trusted.
fn is_lost(error: &BoxError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind.is_some_and(|kind| {
        matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof)
    })
}

/// The addresses that are left, and the last one that accepted a connection.
struct Candidates {
    addresses: Option<Addresses>,
    connected: Option<SocketAddr>,
}

fn lock(candidates: &Mutex<Candidates>) -> std::sync::MutexGuard<'_, Candidates> {
    candidates.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the TCP connection below TLS.
#[derive(Clone)]
struct Dialer {
    target: Arc<Target>,
    /// `None` if a proxy is used, which resolves the name.
    addresses: Option<Arc<Mutex<Candidates>>>,
    deadline: Instant,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Opened<TokioIo<Stream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { Ok(TokioIo::new(dialer.dial(&url).await?)) })
    }
}

impl Dialer {
    async fn dial(&self, url: &Uri) -> io::Result<Stream> {
        match (&self.target.proxy, &self.addresses) {
            (Some(proxy), _) => {
                let left = self.deadline.saturating_duration_since(Instant::now());
                let ((host, port), tls) = (host_and_port(url), self.target.tls.as_ref());
                Ok(Stream::Tunnel(proxy.connect(&host, port, tls, left).await?))
            }
            (None, Some(candidates)) => {
                // Taken out while connecting, and put back whatever happens.
                let addresses = lock(candidates).addresses.take();
                let addresses = addresses.ok_or(io::ErrorKind::NotFound)?;
                let connected = addresses.connect(self.deadline).await;
                let mut candidates = lock(candidates);
                candidates.addresses = Some(addresses);
                let (tcp, address) = connected?;
                candidates.connected = Some(address);
                Ok(Stream::Tcp(tcp))
            }
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn host_and_port(url: &Uri) -> (String, u16) {
    let host = url.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
    (host.to_owned(), url.port_u16().unwrap_or(default))
}

/// The bytes below TLS.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tunnel(Tunnel),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_flush(context),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_shutdown(context),
            Stream::Tunnel(tunnel) => Pin::new(tunnel).poll_shutdown(context),
        }
    }
}
