//! New connections to the API server: TCP, then TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::Endpoint;
use super::error::SendError;
use super::read_ahead::ReadAhead;
use super::tls::ClientTls;
use super::tunnel::{ProxyUrl, Tunnel};
use crate::metrics::Metrics;
use crate::sink::{Barrier, Gated};

/// For everything until the first request can be sent.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes connections.
pub(super) struct Connector {
    pub(super) endpoint: Endpoint,
    /// `None` for `http`.
    pub(super) tls: Option<ClientTls>,
    /// What holds requests back until their events are in the log.
    pub(super) barrier: Barrier,
    pub(super) metrics: Arc<Metrics>,
    /// What errors call the API server.
    pub(super) name: Arc<str>,
    /// Through which it is reached; only for webhooks, whose bytes no barrier holds back.
    pub(super) proxy: Option<ProxyUrl>,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests, as many as it takes.
    Pool,
    /// One upgrade.
    Upgrade,
}

impl Connector {
    /// A new connection, and whether it speaks HTTP/2.
    pub(super) async fn connect(&self, purpose: Purpose) -> Result<(Stream, bool), SendError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_unbounded(purpose)).await {
            Ok(connected) => connected,
            Err(_) => Err(SendError::Connect {
                upstream: Arc::clone(&self.name),
                source: Arc::new(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
                )),
            }),
        }
    }

    async fn connect_unbounded(&self, purpose: Purpose) -> Result<(Stream, bool), SendError> {
        if let Some(proxy) = &self.proxy {
            return self.connect_through(proxy, purpose).await;
        }
        let upstream = || Arc::clone(&self.name);
        let tcp = self
            .connect_tcp()
            .await
            .map_err(|e| SendError::Connect { upstream: upstream(), source: Arc::new(e) })?;
        let Some(tls) = &self.tls else {
            let tcp = Gated::new(tcp, self.barrier.clone());
            return Ok((Stream::new(Transport::Plain(tcp), &self.metrics), false));
        };
        let config = match purpose {
            Purpose::Pool => tls.pooled(),
            Purpose::Upgrade => tls.upgrades(),
        };
        let stream = TlsConnector::from(config)
            .connect(tls.server_name.clone(), ReadAhead::new(tcp))
            .await
            .map_err(|e| SendError::Tls { upstream: upstream(), source: Arc::new(e) })?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let tls = Box::new(Gated::new(stream, self.barrier.clone()));
        Ok((Stream::new(Transport::Tls(tls), &self.metrics), http2))
    }

    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10));
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
        Ok(tcp)
    }
}

/// A connection's bytes. Counted in the metrics for as long as it lives, upgraded or not.
pub(super) struct Stream {
    transport: Transport,
    metrics: Arc<Metrics>,
}

pub(super) enum Transport {
    Plain(Gated<TcpStream>),
    Tunnel(Tunnel),
    Tls(Box<Gated<TlsStream<ReadAhead<TcpStream>>>>),
}

impl Stream {
    pub(super) fn new(transport: Transport, metrics: &Arc<Metrics>) -> Stream {
        metrics.upstream_connections.add(1);
        Stream { transport, metrics: Arc::clone(metrics) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.metrics.upstream_connections.add(-1);
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
