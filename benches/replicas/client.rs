//! Clients that distribute their connections over the replicas in turn, like a load balancer for
//! TCP does.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::workspace::{TOKEN, path_of};

/// The delay before a client whose connection was refused tries the next replica.
const RECONNECT_DELAY: Duration = Duration::from_millis(2);

/// The requests of all clients together.
pub(crate) struct Load {
    pub connections: usize,
    /// Requests in flight on each connection.
    pub streams: usize,
    pub requests: usize,
}

/// The result of a load.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The audit IDs of requests whose response was received completely.
    pub answered: Vec<String>,
    /// Requests without a complete response, because the connection broke.
    pub broken: usize,
    pub elapsed: Duration,
}

/// What the tasks of a load share.
struct Shared {
    tls: TlsConnector,
    replicas: Vec<SocketAddr>,
    requests: usize,
    sent: AtomicUsize,
    answered: Arc<AtomicUsize>,
}

/// Sends `load`, and counts in `answered` while it does.
///
/// # Errors
/// If a response has another status than 200 or no `Audit-Id`.
pub(crate) async fn send(
    ca: &Path,
    replicas: &[SocketAddr],
    load: &Load,
    answered: Arc<AtomicUsize>,
) -> Result<Outcome> {
    let shared = Arc::new(Shared {
        tls: connector(ca)?,
        replicas: replicas.to_vec(),
        requests: load.requests,
        sent: AtomicUsize::new(0),
        answered,
    });
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..load.connections {
        tasks.spawn(connection(shared.clone(), number, load.streams));
    }
    let mut outcome = Outcome::default();
    while let Some(one) = tasks.join_next().await {
        let one = one??;
        outcome.answered.extend(one.answered);
        outcome.broken += one.broken;
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

fn connector(ca: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Uses one connection after the other, each to the next replica, until all requests are sent.
async fn connection(shared: Arc<Shared>, number: usize, streams: usize) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut turn = number;
    while shared.sent.load(Ordering::Relaxed) < shared.requests {
        let replica = shared.replicas[turn % shared.replicas.len()];
        turn += 1;
        let Ok(sender) = connect(&shared.tls, replica).await else {
            tokio::time::sleep(RECONNECT_DELAY).await;
            continue;
        };
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            tasks.spawn(stream(shared.clone(), sender.clone()));
        }
        while let Some(one) = tasks.join_next().await {
            let one = one??;
            outcome.answered.extend(one.answered);
            outcome.broken += one.broken;
        }
    }
    Ok(outcome)
}

async fn connect(tls: &TlsConnector, to: SocketAddr) -> Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends one request after the other, until all are sent or the connection breaks.
async fn stream(shared: Arc<Shared>, mut sender: SendRequest<Empty<Bytes>>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    while sender.ready().await.is_ok()
        && shared.sent.fetch_add(1, Ordering::Relaxed) < shared.requests
    {
        let request = Request::get(format!("https://localhost{}", path_of("1.3kb")))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Empty::new())?;
        let Ok(response) = sender.send_request(request).await else {
            outcome.broken += 1;
            break;
        };
        let (head, body) = response.into_parts();
        if body.collect().await.is_err() {
            outcome.broken += 1;
            break;
        }
        ensure!(head.status == StatusCode::OK, "a response has the status {}", head.status);
        let id = head.headers.get("audit-id").context("a response has no Audit-Id")?;
        outcome.answered.push(id.to_str()?.to_owned());
        shared.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(outcome)
}
