//! Both ends of the sessions: a client, and an API server whose commands print without end.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use demo_api::Issued;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use session_recording::Codec;
use session_recording::channel::encode_message;
use session_recording::websocket::encode_frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls_server;

/// The WebSocket key of the client.
pub(crate) const TOKEN: &str = "c29tZS1jbGllbnQtb2YtdGhlLWNvbXBhcmlzb24";
/// The size of a message: the kubelet reads so many bytes from a container at a time.
const MESSAGE: usize = 32 << 10;
/// The approximate size of the output, which the API server repeats.
const BLOCK: usize = 1 << 20;

/// The kind of output of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Lines of a log, without a terminal
    Log,
    /// Short lines, without a terminal
    Numbers,
    /// Colours and characters that are not ASCII, on a terminal
    Terminal,
    /// An archive, of which only size and SHA-256 are recorded
    Archive,
    /// A port-forward
    Forward,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Log => "log",
            Kind::Numbers => "numbers",
            Kind::Terminal => "terminal",
            Kind::Archive => "archive",
            Kind::Forward => "forward",
        })
    }
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] =
        [Kind::Log, Kind::Numbers, Kind::Terminal, Kind::Archive, Kind::Forward];

    fn target(self, size: usize) -> String {
        let of = "/api/v1/namespaces/default/pods/p";
        match self {
            Kind::Forward => format!("{of}/portforward?ports=80&size={size}&kind=forward"),
            Kind::Terminal => {
                format!("{of}/exec?command=sh&stdout=true&tty=true&size={size}&kind=terminal")
            }
            kind => format!("{of}/exec?command=sh&stdout=true&size={size}&kind={kind}"),
        }
    }

    /// Returns the output that is repeated.
    pub(crate) fn content(self) -> Vec<u8> {
        let mut content = Vec::with_capacity(BLOCK + 200);
        let mut number = 0_u64;
        while content.len() < BLOCK {
            number += 1;
            let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number << 31);
            let random = (random ^ (random >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            // Writing to a Vec does not fail.
            let _ = match self {
                Kind::Log => writeln!(
                    content,
                    "2026-11-29T06:41:{:02}.{:06}Z INFO server: response sent status=200 path=\"/api/v1/items/{}\" duration={}us",
                    number % 60,
                    random % 1_000_000,
                    random % 10_000,
                    random % 9_973
                ),
                Kind::Numbers => writeln!(content, "{}", 1_000_000 + number),
                Kind::Terminal => write!(
                    content,
                    "\x1b[01;34mverzeichnis-{}\x1b[0m  \x1b[32m✔\x1b[0m größe={} │ drwxr-xr-x 2 root root\r\n",
                    random % 1000,
                    random % 100_000
                ),
                Kind::Archive | Kind::Forward => {
                    Write::write_all(&mut content, &random.to_le_bytes())
                }
            };
        }
        content
    }
}

/// Starts the API server.
pub(crate) async fn upstream(server: &Issued) -> Result<SocketAddr> {
    tls_server::start(server.certificate.clone(), server.key(), |stream, is_http2| async move {
        let stream = TokioIo::new(stream);
        if is_http2 {
            let answer =
                service_fn(|_| async { http::Result::Ok(Response::new(Empty::<Bytes>::new())) });
            http2::Builder::new(TokioExecutor::new()).serve_connection(stream, answer).await
        } else {
            let connection = http1::Builder::new().serve_connection(stream, service_fn(switch));
            connection.with_upgrades().await
        }
    })
    .await
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Selects the protocol `v4.channel.k8s.io`, and prints output or echoes input.
async fn switch(mut request: Request<Incoming>) -> http::Result<Response<Empty<Bytes>>> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let value =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let size = value("size").and_then(|size| size.parse().ok()).unwrap_or(0);
    let kind = value("kind").and_then(|kind| Kind::from_str(kind, false).ok());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
        match kind {
            Some(kind) => print(&mut stream, kind, size).await?,
            None => echo(&mut stream).await?,
        }
        stream.shutdown().await
    });
    Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-protocol", "v4.channel.k8s.io")
        .body(Empty::new())
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

async fn print(stream: &mut Upgraded, kind: Kind, size: usize) -> io::Result<()> {
    let channel = if kind == Kind::Forward { 0 } else { 1 };
    let mut block = Vec::new();
    for message in kind.content().chunks(MESSAGE) {
        encode_message(Codec::Raw, channel, message, &mut block);
    }
    let mut left = size;
    while left > 0 {
        stream.write_all(&block).await?;
        left = left.saturating_sub(block.len());
    }
    let mut end = Vec::new();
    encode_message(Codec::Raw, 3, br#"{"metadata":{},"status":"Success"}"#, &mut end);
    stream.write_all(&end).await
}

/// Responds to each masked frame of two bytes with the second one, as output.
async fn echo(stream: &mut Upgraded) -> io::Result<()> {
    let mut frame = [0; 8];
    while stream.read_exact(&mut frame).await.is_ok() {
        let mut out = Vec::new();
        encode_message(Codec::Raw, 1, &[frame[7] ^ frame[3]], &mut out);
        stream.write_all(&out).await?;
    }
    Ok(())
}

/// Opens sessions.
pub(crate) struct Client(TlsConnector);

impl Client {
    /// A client that trusts the CA.
    pub(crate) fn new(ca: &Path) -> Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client(TlsConnector::from(Arc::new(config))))
    }

    /// Receives a session of `size` bytes until its end. Returns the number of bytes.
    pub(crate) async fn receive(
        &self,
        proxy: SocketAddr,
        kind: Kind,
        size: usize,
    ) -> Result<usize> {
        let mut stream = self.open(proxy, &kind.target(size)).await?;
        let mut buffer = vec![0; 256 << 10];
        let mut received = 0;
        loop {
            match stream.read(&mut buffer).await.context("the session broke")? {
                0 => break,
                read => received += read,
            }
        }
        ensure!(received >= size, "only {received} bytes of {size} arrived");
        Ok(received)
    }

    /// Opens an interactive session.
    pub(crate) async fn terminal(&self, proxy: SocketAddr) -> Result<Terminal> {
        let target =
            "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true&stdout=true&tty=true";
        Ok(Terminal { stream: self.open(proxy, target).await?, typed: 0 })
    }

    async fn open(&self, proxy: SocketAddr, target: &str) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        let mut stream = self.0.connect(ServerName::from(proxy.ip()), stream).await?;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {proxy}\r\nAuthorization: Bearer {TOKEN}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.context("no response to the upgrade")?);
        }
        let head = String::from_utf8_lossy(&head);
        ensure!(head.starts_with("HTTP/1.1 101"), "the upgrade was refused: {head}");
        Ok(stream)
    }
}

/// An interactive session.
pub(crate) struct Terminal {
    stream: TlsStream<TcpStream>,
    typed: u8,
}

impl Terminal {
    /// Types a character and waits for its echo.
    pub(crate) async fn keystroke(&mut self) -> Result<Duration> {
        self.typed = b'a' + (self.typed.wrapping_add(1) % 26);
        let mut frame = Vec::new();
        encode_frame(2, &[0, self.typed], Some([1, 2, 3, 4]), &mut frame);
        let begun = Instant::now();
        self.stream.write_all(&frame).await?;
        self.stream.flush().await?;
        let mut echo = [0; 4];
        self.stream.read_exact(&mut echo).await?;
        ensure!(echo == [0x82, 2, 1, self.typed], "something else came: {echo:?}");
        Ok(begun.elapsed())
    }
}

/// Whether `/readyz` responds 200.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = std::net::TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        Write::write_all(&mut stream, request)?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
