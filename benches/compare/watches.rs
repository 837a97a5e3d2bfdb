//! Memory of open watches without events.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use h2::client::SendRequest;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::Bench;
use crate::options::Part;
use crate::peer_servers::{haproxy, nginx_proxy};
use crate::process::{INTERRUPTED, pause};
use crate::report::table;
use crate::servers::{Level, Own, Server};
use crate::tls_server;
use crate::usage::resident;
use crate::workspace::{TOKEN, Workspace};

const PATH: &str = "/api/v1/namespaces/default/configmaps?watch=true";
/// An event that the response begins with: nginx sends the head of an HTTP/2 response only with the
/// first part of the body.
const BOOKMARK: &[u8] = br#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"48213"}}}
"#;
const CONNECTIONS: usize = 100;
/// The limit of streams per connection of kube-apiserver and kube-audit-proxy.
const STREAMS: usize = 100;
/// nginx needs an upstream connection for each watch, and this process has the other end of each.
const WATCHES_OF_PEERS: usize = 2_000;
const DEADLINE: Duration = Duration::from_secs(60);
/// The interval at which interruption by the user is checked.
const GLANCE: Duration = Duration::from_millis(200);

/// Opens the watches through each proxy, and measures its memory.
pub fn run(bench: &mut Bench) -> Result<()> {
    bench.clock.part(Part::Watches.weight());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let upstream = runtime.block_on(upstream(&bench.work))?;
    let work = &bench.work;
    let own = Own { name: "kap Metadata, watches".into(), ..Own::new(Level::Metadata) };
    let few = bench.scale.watches.min(WATCHES_OF_PEERS);
    let mut rows = Vec::new();
    let mut found = Vec::new();
    for (server, count) in [
        (nginx_proxy(work, upstream, "nginx-watches", "proxy_buffering off;")?, few),
        (haproxy(work, upstream, "haproxy-watches")?, few),
        (own.start(&bench.options.program, work, upstream)?, bench.scale.watches),
    ] {
        let (before, after) = measure(&runtime, work, &server, count, bench.scale.settle)
            .with_context(|| {
                format!("{count} watches by {} {}", server.name, server.stderr_tail())
            })?;
        let each = (after - before) / count as f64;
        let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
        let kib = format!("{:.2}", each / 1024.0);
        rows.push(vec![server.name.clone(), count.to_string(), mib(before), mib(after), kib]);
        found.push(json!({
            "name": server.name, "watches": count,
            "bytes_before": before, "bytes_after": after, "bytes_of_each": each,
        }));
    }
    let title = format!("Memory of idle watches on {CONNECTIONS} connections");
    table(&title, &["", "watches", "MiB without", "MiB with", "KiB each"], &rows);
    bench.report.add("watches", found)
}

/// Returns the resident memory before connections are opened, and with all watches open.
fn measure(
    runtime: &Runtime,
    work: &Workspace,
    server: &Server,
    count: usize,
    settle: Duration,
) -> Result<(f64, f64)> {
    let tls = client_tls(work)?;
    // The first watch opens the upstream connection and initializes everything else that is needed
    // only once.
    let one = runtime.block_on(limited(open(server.address, &tls, 1)))?;
    rest(settle)?;
    let before = resident(server.ids()) as f64;
    let connections = CONNECTIONS.max(count.div_ceil(STREAMS)).min(count);
    let all = runtime.block_on(limited(async {
        let mut all = Vec::new();
        for index in 0..connections {
            let share = count / connections + usize::from(index < count % connections);
            all.push(open(server.address, &tls, share).await?);
        }
        Ok(all)
    }))?;
    if let Some(log) = &server.log {
        log.take(count + 1)?;
    }
    rest(settle)?;
    let after = resident(server.ids()) as f64;
    drop((one, all));
    Ok((before, after))
}

fn rest(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        pause()?;
    }
    Ok(())
}

async fn limited<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if let Ok(done) = tokio::time::timeout(GLANCE, work.as_mut()).await {
            return done;
        }
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    }
    bail!("they are not open after {DEADLINE:?}")
}

/// A connection with its watches.
struct Watches {
    _connection: SendRequest<Bytes>,
    _streams: Vec<Response<h2::RecvStream>>,
}

async fn open(address: SocketAddr, tls: &TlsConnector, count: usize) -> Result<Watches> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = tls.connect(ServerName::from(address.ip()), stream).await?;
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("https://{address}{PATH}"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("accept", "application/json")
        .header("user-agent", "kubectl/v1.36.0 (linux/amd64) kubernetes/0a1b2c3")
        .body(())?;
    let mut waiting = Vec::new();
    for _ in 0..count {
        sender = sender.ready().await?;
        waiting.push(sender.send_request(request.clone(), true)?.0);
    }
    let mut streams = Vec::new();
    for response in waiting {
        let response = response.await?;
        ensure!(response.status() == 200, "a watch is answered with {}", response.status());
        streams.push(response);
    }
    Ok(Watches { _connection: sender, _streams: streams })
}

fn client_tls(work: &Workspace) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(work.file("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Responds to every request with one event, and keeps the response open.
async fn upstream(work: &Workspace) -> Result<SocketAddr> {
    let (certificate, key) = work.server();
    tls_server::start(certificate.certificate.clone(), key, |stream, is_http2| async move {
        let (stream, answer) = (TokioIo::new(stream), service_fn(hold));
        if is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(250).serve_connection(stream, answer).await
        } else {
            http1::Builder::new().serve_connection(stream, answer).await
        }
    })
    .await
}

type Held = BoxBody<Bytes, Infallible>;

async fn hold(_: Request<Incoming>) -> http::Result<Response<Held>> {
    let first = stream::once(async { Ok(Frame::data(Bytes::from_static(BOOKMARK))) });
    let body = StreamBody::new(first.chain(stream::pending()));
    Response::builder().header("content-type", "application/json").body(BodyExt::boxed(body))
}
