//! Whole requests: HTTP/2 from the client, HTTP/2 over TLS on loopback to the API server. Client
//! and API server run on another thread, which is not counted. Between client and proxy, neither
//! TLS nor the kernel is involved. Requests are sent one at a time.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use audit_log::{LogBackend, LogConfig, LogPath, Mode, Rotation, SyncMode};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use kube_audit_proxy::audit::record::{AuditPipeline, Backend, Format};
use kube_audit_proxy::filters::{FilterSettings, Filters};
use kube_audit_proxy::impersonation::{ConstrainedImpersonation, ImpersonationAuthorizer};
use kube_audit_proxy::pipeline::{Connection, Proxy};
use kube_audit_proxy::request::source::TrustedProxies;
use kube_audit_proxy::server::http::{Protocol, serve_connection};
use kube_audit_proxy::server::shutdown::Shutdown;
use kube_audit_proxy::upstream::config::{Pem, Trust};
use kube_audit_proxy::upstream::credentials::Credentials;
use kube_audit_proxy::upstream::endpoint::Endpoint;
use kube_audit_proxy::upstream::identity::Identity;
use kube_audit_proxy::upstream::{Upstream, UpstreamConfig};
use kube_authn::{Anonymous, Authenticator, UserInfo};
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

const COLLECTION: &str = "https://kubernetes/api/v1/namespaces/shop/configmaps";
/// The body of the response to a GET.
const BODY: Bytes = Bytes::from_static(&[b'x'; 1300]);

/// The request, and how much of it is recorded.
#[derive(Clone)]
struct Case {
    name: &'static str,
    level: &'static str,
    /// Whether the request is a POST of an object of 1.3 KB.
    posts: bool,
    /// The mode of the audit log; `None` discards events.
    log: Option<Mode>,
}

const CASES: [Case; 5] = [
    Case { name: "whole request", level: "Metadata", posts: false, log: None },
    Case {
        name: "whole request, blocking",
        level: "Metadata",
        posts: false,
        log: Some(Mode::Blocking),
    },
    Case {
        name: "whole request, blocking-strict",
        level: "Metadata",
        posts: false,
        log: Some(Mode::BlockingStrict),
    },
    Case {
        name: "whole request: POST of 1.3 KB at Metadata",
        level: "Metadata",
        posts: true,
        log: None,
    },
    Case {
        name: "whole request: POST of 1.3 KB at Request",
        level: "Request",
        posts: true,
        log: None,
    },
];

pub fn run(counter: &Counter<'_>) {
    CASES.into_iter().filter(|case| counter.wants(case.name)).for_each(|case| count(counter, case));
}

/// A ConfigMap as kubectl sends it, of the usual size.
fn object() -> Bytes {
    config_map(
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","namespace":"shop","labels":{"app.kubernetes.io/name":"web","tier":"front"},"annotations":{"note":"made for a benchmark"}},"data":{"#,
    )
}

/// The same object in the API server's response.
fn created() -> Bytes {
    config_map(
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"web","namespace":"shop","uid":"a2d2b6a5-8d6f-4d0e-9f8e-5a3f0f6ad6c1","resourceVersion":"7","creationTimestamp":"2026-01-01T00:00:00Z"},"data":{"#,
    )
}

fn config_map(start: &str) -> Bytes {
    let mut text = String::from(start);
    for line in 0..18 {
        let _ = write!(
            text,
            r#""setting-{line:02}.properties":"value {line:02} of a usual length\n","#
        );
    }
    text.push_str(r#""last":"x"}}"#);
    Bytes::from(text)
}

fn count(counter: &Counter<'_>, case: Case) {
    let runtime = runtime();
    let (near, far) = tokio::io::duplex(64 << 10);
    let (ask, asked) = unbounded_channel();
    let (answer, mut answered) = unbounded_channel();
    let (tls, ca) = server_tls();
    let _context = runtime.enter();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || others(listener, tls, far, asked, answer, case.posts));
    let (_shutdown, running) = Shutdown::new();
    let folder = std::env::temp_dir().join(format!("instructions-log-{}", std::process::id()));
    let log = case.log.map(|mode| log(&folder, mode));
    let proxy = proxy(address, &ca, case.level, log);
    let (thread, handle) = (std::thread::current().id(), runtime.handle().clone());
    let sequence = proxy.recorder.commit_sequence(thread, handle);
    let client = ([203, 0, 113, 7], 443).into();
    let connection = Arc::new(Connection::new(client, Vec::new(), sequence));
    tokio::spawn(serve_connection(near, Protocol::Http2, connection, proxy, running));
    counter.many(case.name, |times| {
        ask.send(times).expect("the client runs");
        runtime.block_on(answered.recv()).expect("the client runs");
    });
    let _ = std::fs::remove_dir_all(&folder);
}

/// An audit log in `folder`.
fn log(folder: &std::path::Path, mode: Mode) -> Backend {
    let path = LogPath::File(folder.join("audit.log"));
    let (rotation, sync) = (Rotation::NEVER, SyncMode::Off);
    let config = LogConfig { path, mode, rotation, sync, seal: None };
    Backend::Log(LogBackend::open(config, Arc::default()).expect("a log"))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn proxy(upstream: SocketAddr, ca: &str, level: &str, log: Option<Backend>) -> Arc<Proxy> {
    let config = UpstreamConfig {
        server: Endpoint::parse(&format!("https://{upstream}"), "bench").expect("a URL"),
        more_servers: Vec::new(),
        trust: Trust::Ca(Pem::Data { field: "bench".into(), bytes: ca.into() }),
        tls_server_name: None,
        client_certificate: None,
        credentials: Some(Credentials::token("own", "bench").expect("a token")),
        proxy: None,
        is_front_proxy: false,
    };
    let upstream = Upstream::new(config, Arc::default()).expect("a good configuration");
    let rules = policy(&format!("rules: [{{level: {level}}}]"));
    let mut sinks = vec![sink(&rules, Format::Json)];
    if let Some(log) = log {
        sinks[0].backend = log;
    }
    let recorder = AuditPipeline::new(sinks, Arc::default(), None);
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
        impersonation_authorizer: ImpersonationAuthorizer::new(
            upstream.clone(),
            ConstrainedImpersonation::Auto,
        ),
        upstream,
        filters: filters(),
        authorization: None,
        sessions: None,
        long_running: Default::default(),
    })
}

/// The default request deadline.
fn filters() -> Filters {
    let request_timeout = Duration::from_secs(60);
    let settings = FilterSettings { request_timeout, ..FilterSettings::default() };
    let filters = Filters::new(settings, Arc::default());
    filters.watch_deadlines();
    filters
}

/// The API server's TLS, and the certificate of its CA.
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

/// Runs the client and the API server. Sends the requested number of requests, one after the other,
/// and reports when they are done.
fn others(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    io: DuplexStream,
    mut asked: UnboundedReceiver<u32>,
    answer: UnboundedSender<()>,
    posts: bool,
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
        let object = posts.then(object);
        while let Some(times) = asked.recv().await {
            for _ in 0..times {
                client = client.ready().await.expect("an open connection");
                send(&mut client, object.clone()).await.expect("an answer");
            }
            answer.send(()).expect("the receiver waits");
        }
    });
}

async fn send(
    client: &mut h2::client::SendRequest<Bytes>,
    object: Option<Bytes>,
) -> Result<(), h2::Error> {
    let mut request = match &object {
        Some(_) => Request::post(COLLECTION),
        None => Request::get(format!("{COLLECTION}/web")),
    }
    .body(())
    .expect("a request");
    *request.headers_mut() = client_headers();
    if let Some(object) = &object {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        request.headers_mut().insert(header::CONTENT_LENGTH, object.len().into());
    }
    let (response, mut stream) = client.send_request(request, object.is_none())?;
    if let Some(object) = object {
        stream.send_data(object, true)?;
    }
    let response = response.await?;
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
        // The connection must be driven while the body is received.
        tokio::spawn(respond(request?));
    }
    Ok(())
}

async fn respond(
    (request, mut respond): (Request<h2::RecvStream>, h2::server::SendResponse<Bytes>),
) -> Result<(), h2::Error> {
    let body = if request.method() == Method::POST { created() } else { BODY };
    let mut sent = request.into_body();
    while let Some(data) = sent.data().await {
        sent.flow_control().release_capacity(data?.len())?;
    }
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .body(())
        .expect("a response");
    respond.send_response(response, false)?.send_data(body, true)
}
