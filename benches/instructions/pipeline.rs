//! Whole requests: HTTP/2 from the client, HTTP/2 over TLS on loopback to the API server. Client and
//! API server are on a thread of their own, which is not counted. Between client and proxy is no
//! TLS and no kernel. One request at a time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use audit_log::{LogBackend, LogConfig, LogPath, Mode, Rotation, SyncMode};
use bytes::Bytes;
use http::{Request, Response, header};
use kube_audit_proxy::audit::record::{Backend, Format, Recorder};
use kube_audit_proxy::authn::{Anonymous, Authenticator, UserInfo};
use kube_audit_proxy::impersonation::{ConstrainedImpersonation, Reviewer};
use kube_audit_proxy::pipeline::{Connection, Proxy};
use kube_audit_proxy::request::source::TrustedProxies;
use kube_audit_proxy::server::http::{Protocol, serve_connection};
use kube_audit_proxy::server::shutdown::Shutdown;
use kube_audit_proxy::upstream::config::{Pem, Trust};
use kube_audit_proxy::upstream::credentials::Credentials;
use kube_audit_proxy::upstream::endpoint::Endpoint;
use kube_audit_proxy::upstream::identity::Identity;
use kube_audit_proxy::upstream::{Upstream, UpstreamConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::cases::{client_headers, file_tokens};
use crate::counter::Counter;
use crate::sinks::{policy, sink};

const NAME: &str = "whole request";
const URL: &str = "https://kubernetes/api/v1/namespaces/shop/configmaps/web";
const BODY: Bytes = Bytes::from_static(&[b'x'; 1300]);

pub fn run(counter: &Counter<'_>) {
    run_with(counter, NAME, None);
    run_with(counter, "whole request, blocking", Some(Mode::Blocking));
    run_with(counter, "whole request, blocking-strict", Some(Mode::BlockingStrict));
}

fn run_with(counter: &Counter<'_>, name: &str, mode: Option<Mode>) {
    if !counter.wants(name) {
        return;
    }
    let runtime = runtime();
    let (near, far) = tokio::io::duplex(64 << 10);
    let (ask, asked) = unbounded_channel();
    let (answer, mut answered) = unbounded_channel();
    let (tls, ca) = server_tls();
    let _context = runtime.enter();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || others(listener, tls, far, asked, answer));
    let (_shutdown, running) = Shutdown::new();
    let folder = std::env::temp_dir().join(format!("instructions-log-{}", std::process::id()));
    let log = mode.map(|mode| log(&folder, mode));
    let proxy = proxy(address, &ca, log);
    let (thread, handle) = (std::thread::current().id(), runtime.handle().clone());
    let sequence = proxy.recorder.commit_sequence(thread, handle);
    let client = ([203, 0, 113, 7], 443).into();
    let connection = Arc::new(Connection::new(client, Vec::new(), sequence));
    tokio::spawn(serve_connection(near, Protocol::Http2, connection, proxy, running));
    counter.many(name, |times| {
        ask.send(times).expect("the client runs");
        runtime.block_on(answered.recv()).expect("the client runs");
    });
    let _ = std::fs::remove_dir_all(&folder);
}

/// A log that is written.
fn log(folder: &std::path::Path, mode: Mode) -> Backend {
    let path = LogPath::File(folder.join("audit.log"));
    let (rotation, sync) = (Rotation::NEVER, SyncMode::Off);
    let config = LogConfig { path, mode, rotation, sync, seal: None };
    Backend::Log(LogBackend::open(config, Arc::default()).expect("a log"))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn proxy(upstream: SocketAddr, ca: &str, log: Option<Backend>) -> Arc<Proxy> {
    let config = UpstreamConfig {
        server: Endpoint::parse(&format!("https://{upstream}"), "bench").expect("a URL"),
        trust: Trust::Ca(Pem::Data { field: "bench".into(), bytes: ca.into() }),
        tls_server_name: None,
        client_certificate: None,
        credentials: Some(Credentials::token("own", "bench").expect("a token")),
        proxy: None,
    };
    let upstream = Upstream::new(config, Arc::default()).expect("a good configuration");
    let mut sinks = vec![sink(&policy("rules: [{level: Metadata}]"), Format::Json)];
    if let Some(log) = log {
        sinks[0].backend = log;
    }
    let recorder = Recorder::new(sinks, Arc::default(), None);
    Arc::new(Proxy {
        authenticator: Authenticator {
            request_header: None,
            client_ca: None,
            tokens: file_tokens(),
            anonymous: Arc::new(ArcSwap::from_pointee(Anonymous::Nowhere)),
            anonymous_user: Arc::new(UserInfo::anonymous().into()),
        },
        recorder: Arc::new(recorder),
        trusted_proxies: TrustedProxies::Everyone,
        identity: Identity::Impersonate,
        original_user_extra: None,
        reviewer: Reviewer::new(upstream.clone(), ConstrainedImpersonation::Auto),
        upstream,
        long_running: Default::default(),
    })
}

/// The API server's side of TLS, and the certificate that it is known by.
fn server_tls() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)
        })
        .expect("its own certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// The client and the API server. Sends as many requests as asked, one after the other, and says so.
fn others(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    io: DuplexStream,
    mut asked: UnboundedReceiver<u32>,
    answer: UnboundedSender<()>,
) {
    runtime().block_on(async {
        listener.set_nonblocking(true).expect("a socket can be");
        let listener = TcpListener::from_std(listener).expect("within a runtime");
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("a listening socket");
                let stream = tls.accept(tcp).await.expect("a good handshake");
                tokio::spawn(api_server(stream));
            }
        });
        let (mut client, connection) = h2::client::handshake(io).await.expect("HTTP/2");
        tokio::spawn(connection);
        while let Some(times) = asked.recv().await {
            for _ in 0..times {
                client = client.ready().await.expect("an open connection");
                send(&mut client).await.expect("an answer");
            }
            answer.send(()).expect("somebody waits");
        }
    });
}

async fn send(client: &mut h2::client::SendRequest<Bytes>) -> Result<(), h2::Error> {
    let mut request = Request::get(URL).body(()).expect("a request");
    *request.headers_mut() = client_headers();
    let response = client.send_request(request, true)?.0.await?;
    assert!(response.status().is_success(), "{response:?}");
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(())
}

async fn api_server(stream: TlsStream<TcpStream>) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let mut respond = request?.1;
        let response = Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, BODY.len())
            .body(())
            .expect("a response");
        respond.send_response(response, false)?.send_data(BODY, true)?;
    }
    Ok(())
}
