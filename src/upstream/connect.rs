//! New connections to the API server: TCP, then TLS.
//!
//! If the host has several addresses, all of them share one deadline. An address that accepts TCP
//! connections but does not complete a TLS handshake is ruled out in favor of the next one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api_client::Target;
use api_client::dial::Addresses;
use api_client::endpoint_set::{InFlight, Member};
use api_client::tls::ClientTls;
use api_client::tunnel::{ProxyUrl, Tunnel};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::SendError;
use super::metrics::UpstreamMetrics;
use super::read_ahead::ReadAhead;
use audit_log::{CommitSequence, GatedIo};

/// Maximum time until the first request can be sent.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens connections.
pub(super) struct Connector {
    /// The API server: address, certificates, proxy.
    pub(super) target: Arc<Target>,
    pub(super) metrics: Arc<UpstreamMetrics>,
    /// The address to connect to, if the API server has several.
    pub(super) member: Option<Arc<Member>>,
}

/// The use of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Any number of requests.
    Pool,
    /// A single upgrade.
    Upgrade,
}

impl Connector {
    /// Opens a connection that holds its bytes back until the events of `sequence` are committed.
    /// Returns it and whether it uses HTTP/2.
    pub(super) async fn connect(
        &self,
        purpose: Purpose,
        sequence: &CommitSequence,
    ) -> Result<(Stream, bool), SendError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let connecting = self.connect_by(deadline, purpose, sequence);
        match tokio::time::timeout_at(deadline, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(SendError::Connect {
                upstream: self.name(),
                source: Arc::new(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
                )),
            }),
        }
    }

    async fn connect_by(
        &self,
        deadline: Instant,
        purpose: Purpose,
        sequence: &CommitSequence,
    ) -> Result<(Stream, bool), SendError> {
        if let Some(proxy) = &self.target.proxy {
            return self.connect_through(proxy, purpose, sequence).await;
        }
        let (host, port) = (self.target.endpoint.host.as_str(), self.target.endpoint.port);
        let mut addresses = match self.member.as_ref().and_then(|member| member.address()) {
            Some(address) => Addresses::fixed(address),
            None => Addresses::resolve(host, port).await.map_err(|e| self.connect_error(e))?,
        };
        let mut may_repeat = true;
        loop {
            let connected = addresses.connect(deadline).await;
            let (tcp, address) = connected.map_err(|e| self.connect_error(e))?;
            let Some(tls) = &self.target.tls else {
                addresses.succeeded(address);
                let tcp = GatedIo::new(tcp, sequence.clone());
                return Ok((self.stream(Transport::Plain(tcp), purpose), false));
            };
            let error = match handshake(tls, tcp, purpose, share(deadline, addresses.count())).await
            {
                Ok(stream) => {
                    addresses.succeeded(address);
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let tls = Box::new(GatedIo::new(stream, sequence.clone()));
                    return Ok((self.stream(Transport::Tls(tls), purpose), http2));
                }
                Err(error) => error,
            };
            let timed_out = error.kind() == io::ErrorKind::TimedOut;
            if addresses.count() > 1 && (timed_out || is_lost(&error)) {
                addresses.rule_out(address);
            } else if may_repeat && is_lost(&error) {
                may_repeat = false;
            } else {
                let (upstream, source) = (self.name(), Arc::new(error));
                return Err(SendError::Tls { upstream, source });
            }
            tracing::debug!(%address, %error, "retrying an interrupted TLS handshake");
        }
    }

    /// Opens a connection through `proxy`.
    async fn connect_through(
        &self,
        proxy: &ProxyUrl,
        purpose: Purpose,
        sequence: &CommitSequence,
    ) -> Result<(Stream, bool), SendError> {
        let (host, port) = (self.target.endpoint.host.as_str(), self.target.endpoint.port);
        let tunnel = proxy.connect(host, port, self.target.tls.as_ref(), CONNECT_TIMEOUT).await;
        let tunnel = tunnel.map_err(|error| self.connect_error(error))?;
        let Some(tls) = &self.target.tls else {
            return Ok((self.tunnel(tunnel, purpose, sequence), false));
        };
        let connecting =
            TlsConnector::from(config(tls, purpose)).connect(tls.server_name.clone(), tunnel);
        let stream = connecting
            .await
            .map_err(|error| SendError::Tls { upstream: self.name(), source: Arc::new(error) })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((self.tunnel(Box::new(stream), purpose, sequence), http2))
    }

    fn tunnel(&self, tunnel: Tunnel, purpose: Purpose, sequence: &CommitSequence) -> Stream {
        let gated = GatedIo::new(tunnel, sequence.clone());
        self.stream(Transport::Tunnel(gated), purpose)
    }

    fn stream(&self, transport: Transport, purpose: Purpose) -> Stream {
        let member = self.member.as_ref().filter(|_| purpose == Purpose::Upgrade);
        let in_flight = member.map(Member::start_request);
        let mut stream = Stream::new(transport, &self.metrics);
        stream.in_flight = in_flight;
        stream
    }

    /// Returns the address, or host and port of the server, for error messages.
    fn name(&self) -> Arc<str> {
        match &self.member {
            Some(member) => Arc::clone(member.name()),
            None => Arc::clone(&self.target.name),
        }
    }

    fn connect_error(&self, error: io::Error) -> SendError {
        SendError::Connect { upstream: self.name(), source: Arc::new(error) }
    }
}

fn config(tls: &ClientTls, purpose: Purpose) -> Arc<rustls::ClientConfig> {
    match purpose {
        Purpose::Pool => tls.pooled(),
        Purpose::Upgrade => tls.upgrades(),
    }
}

/// Returns the deadline of one of `count` addresses.
fn share(deadline: Instant, count: usize) -> Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    now + left / u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

async fn handshake(
    tls: &ClientTls,
    tcp: TcpStream,
    purpose: Purpose,
    deadline: Instant,
) -> io::Result<TlsStream<ReadAhead<TcpStream>>> {
    let connector = TlsConnector::from(config(tls, purpose));
    let shaking = connector.connect(tls.server_name.clone(), ReadAhead::new(tcp));
    match tokio::time::timeout_at(deadline, shaking).await {
        Ok(shaken) => shaken,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not respond")),
    }
}

/// Returns whether the network lost the connection, unlike a certificate that is not trusted.
fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// The byte stream of a connection. It is counted as open until dropped, upgraded or not.
pub(super) struct Stream {
    transport: Transport,
    metrics: Arc<UpstreamMetrics>,
    /// Counts an upgraded connection as a request of its address.
    in_flight: Option<InFlight>,
}

pub(super) enum Transport {
    Plain(GatedIo<TcpStream>),
    Tunnel(GatedIo<Tunnel>),
    Tls(Box<GatedIo<TlsStream<ReadAhead<TcpStream>>>>),
}

impl Stream {
    pub(super) fn new(transport: Transport, metrics: &Arc<UpstreamMetrics>) -> Stream {
        metrics.connections.inc();
        Stream { transport, metrics: Arc::clone(metrics), in_flight: None }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        drop(self.in_flight.take());
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Transport::Tunnel(tunnel) => Pin::new(tunnel).poll_read(context, buffer),
            Transport::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Transport::Tunnel(tunnel) => Pin::new(tunnel).poll_write(context, bytes),
            Transport::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, buffers),
            Transport::Tunnel(tunnel) => Pin::new(tunnel).poll_write_vectored(context, buffers),
            Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tunnel(tunnel) => tunnel.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Transport::Tunnel(tunnel) => Pin::new(tunnel).poll_flush(context),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Transport::Tunnel(tunnel) => Pin::new(tunnel).poll_shutdown(context),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
