//! Accepts connections and terminates TLS, each in its own task.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::http::{DRAIN_GRACE, Handler, HttpError, Protocol, serve_connection};
use super::limits::Reports;
use super::linger::Lingering;
use super::proxy_protocol::{self, HeaderError};
use super::shutdown::{Phase, Running};
use super::workers::Workers;
use crate::metrics::ConnectionMetrics;
use crate::pipeline::Connection;
use crate::request::source::Cidr;
use audit_log::{CommitSequence, GatedIo};

/// Maximum number of connections that the kernel queues until they are accepted;
/// `net.core.somaxconn` may allow fewer.
const BACKLOG: u32 = 1024;

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Go's value, for connections that HTTP does not monitor: upgraded ones, long responses.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// Delay between attempts to accept while the process has no file descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(5);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Go's complete response to a client that uses plain HTTP on a TLS port.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Limits the number of connections, and selects those that start with a PROXY header.
pub(crate) struct Clients {
    max_connections: u64,
    proxy_protocol: Vec<Cidr>,
    invalid_headers: Mutex<Reports>,
}

impl Clients {
    /// Accepts at most `max_connections` concurrently. Connections from the networks of
    /// `proxy_protocol` must start with a PROXY header.
    pub(crate) fn new(max_connections: u64, proxy_protocol: Vec<Cidr>) -> Clients {
        let invalid_headers = Mutex::new(Reports::new());
        Clients { max_connections, proxy_protocol, invalid_headers }
    }

    /// Returns the client's address. Reads the PROXY header if `peer` must send one.
    async fn address(
        &self,
        tcp: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<SocketAddr, ConnectionError> {
        if !self.proxy_protocol.iter().any(|network| network.contains(peer.ip())) {
            return Ok(peer);
        }
        // Load balancers check health by a connection without a byte.
        if tcp.peek(&mut [0]).await? == 0 {
            return Err(ConnectionError::Socket(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(proxy_protocol::read(tcp).await?.unwrap_or(peer))
    }

    fn report(&self, peer: SocketAddr, error: &HeaderError) {
        let due = {
            let mut reports = self.invalid_headers.lock().unwrap_or_else(PoisonError::into_inner);
            reports.count(Instant::now())
        };
        if let Some(connections) = due {
            tracing::warn!(%peer, connections, "connection closed: {error}");
        }
    }
}

/// Accepts connections on `listener` until the process drains, and assigns them to workers. Nothing
/// is written to a client before the commit sequence of its worker allows it.
pub(crate) async fn serve<H: Handler>(
    listener: TcpListener,
    clients: Clients,
    workers: Arc<Workers>,
    tls: Arc<ServerConfig>,
    handler: H,
    metrics: Arc<ConnectionMetrics>,
    mut running: Running,
) {
    let acceptor = TlsAcceptor::from(tls);
    let clients = Arc::new(clients);
    let mut refusals = Reports::new();
    let mut source = Source::Open(listener);
    while let Some((tcp, peer)) = source.next(&mut running).await {
        let open = metrics.client_connections.get();
        if u64::try_from(open).is_ok_and(|open| open >= clients.max_connections) {
            metrics.connections_refused.inc();
            if let Some(refused) = refusals.count(Instant::now()) {
                tracing::warn!(
                    %peer,
                    refused,
                    open,
                    "connection refused: the limit of --max-connections or of open files is reached"
                );
            }
            refuse(&tcp);
            continue;
        }
        // The socket is registered with this thread's runtime and moves to the worker's.
        let tcp = match tcp.into_std() {
            Ok(tcp) => tcp,
            Err(error) => {
                tracing::error!(%peer, %error, "a connection was lost");
                continue;
            }
        };
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        let (clients, running) = (clients.clone(), running.clone());
        let open = Open::new(&metrics);
        workers.spawn(move |sequence| async move {
            let metrics = &open.0;
            let mut peer = peer;
            let served =
                connection(tcp, &mut peer, &clients, acceptor, handler, sequence, running).await;
            if let Err(error) = served {
                match &error {
                    ConnectionError::Handshake(_) => {
                        metrics.tls_handshake_errors.inc();
                    }
                    ConnectionError::ProxyHeader(error) => {
                        metrics.proxy_protocol_errors.inc();
                        clients.report(peer, error);
                    }
                    _ => {}
                }
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}

/// The source of connections.
enum Source {
    Open(TcpListener),
    /// Only queued connections are accepted: closing the listener would reset them.
    Closing(std::net::TcpListener),
    Closed,
}

impl Source {
    /// Returns the next connection and its client's address; `None` when the process is closing and
    /// no connection is queued.
    async fn next(&mut self, running: &mut Running) -> Option<(TcpStream, SocketAddr)> {
        if let Source::Open(listener) = self {
            tokio::select! {
                accepted = accept(listener) => return Some(accepted),
                () = running.reached(Phase::Closing) => {}
            }
        }
        *self = match std::mem::replace(self, Source::Closed) {
            Source::Open(listener) => listener.into_std().map_or(Source::Closed, Source::Closing),
            closing => closing,
        };
        match self {
            Source::Closing(listener) => accept_waiting(listener),
            Source::Open(_) | Source::Closed => None,
        }
    }
}

/// Returns the next queued connection and its client's address.
fn accept_waiting(listener: &std::net::TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok((tcp, peer)) => {
                let canonical = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let tcp = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp));
                return Some((tcp.ok()?, canonical));
            }
            Err(error) if of_one_connection(&error) => {}
            Err(_) => return None,
        }
    }
}

/// Closes a connection with a reset: clients treat the server as unreachable and retry, or use
/// another one. A response would need a TLS handshake, for which there are no resources.
fn refuse(tcp: &TcpStream) {
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// Returns the next connection and its client's address. Never fails: errors of single connections
/// are skipped; while file descriptors or memory are exhausted, it waits, longer each time.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut backoff = ACCEPT_BACKOFF;
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                // An IPv4 client of an IPv6 socket has the address ::ffff:192.0.2.1 here, and
                // 192.0.2.1 elsewhere.
                return (tcp, SocketAddr::new(peer.ip().to_canonical(), peer.port()));
            }
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, retry_in = ?backoff, "cannot accept connections");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("client spoke plain HTTP to the TLS port")]
    PlainHttp,
    #[error(transparent)]
    ProxyHeader(#[from] HeaderError),
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
}

async fn connection<H: Handler>(
    tcp: std::net::TcpStream,
    peer: &mut SocketAddr,
    clients: &Clients,
    acceptor: TlsAcceptor,
    handler: H,
    sequence: CommitSequence,
    mut running: Running,
) -> Result<(), ConnectionError> {
    let mut tcp = TcpStream::from_std(tcp)?;
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    let handshake = tokio::time::timeout(HANDSHAKE_DEADLINE, async {
        *peer = clients.address(&mut tcp, *peer).await?;
        handshake(tcp, &acceptor).await
    });
    let tls = tokio::select! {
        tls = handshake => tls.map_err(|_| ConnectionError::Handshake(io::ErrorKind::TimedOut.into()))??,
        // A client that has just connected is about to send its first request.
        () = running.drained_for(DRAIN_GRACE) => return Ok(()),
    };
    let (_, session) = tls.get_ref();
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let certificates = session.peer_certificates().unwrap_or_default().to_vec();
    let connection = Arc::new(Connection::new(*peer, certificates, sequence.clone()));
    let io = Lingering::new(GatedIo::new(tls, sequence), connection.clone());
    serve_connection(io, protocol, connection, handler, running).await?;
    Ok(())
}

async fn handshake(
    mut tcp: TcpStream,
    acceptor: &TlsAcceptor,
) -> Result<TlsStream<TcpStream>, ConnectionError> {
    let mut first = [0; 5];
    let count = tcp.peek(&mut first).await?;
    if is_http(&first[..count]) {
        tcp.write_all(PLAIN_HTTP).await?;
        tcp.shutdown().await?;
        return Err(ConnectionError::PlainHttp);
    }
    acceptor.accept(tcp).await.map_err(ConnectionError::Handshake)
}

/// Returns whether the bytes look like HTTP, like Go's `tlsRecordHeaderLooksLikeHTTP`. A TLS record
/// begins with a byte below 0x20.
fn is_http(first: &[u8]) -> bool {
    [&b"GET /"[..], b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"PATCH", b"DELET", b"PRI *"]
        .contains(&first)
}

/// Listens on `addr`. With `share_port`, other sockets of the same user that are bound likewise may
/// listen on the same port; the kernel distributes new connections among them.
///
/// # Errors
/// Returns the error of the operating system, with the address.
pub(crate) fn bind(addr: SocketAddr, share_port: bool) -> Result<TcpListener, BindError> {
    let listen = || -> io::Result<TcpListener> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Like Go's net.Listen: a restart does not wait for connections in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(share_port)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| BindError { addr, source })
}

/// The proxy cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}")]
pub(crate) struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

/// Counts a connection as open until dropped.
struct Open(Arc<ConnectionMetrics>);

impl Open {
    fn new(metrics: &Arc<ConnectionMetrics>) -> Open {
        metrics.client_connections.inc();
        Open(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.client_connections.dec();
    }
}

#[cfg(test)]
mod tests;
