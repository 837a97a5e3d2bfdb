//! TLS connections and HTTP/2 clients with the certificates of the corpus.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::corpus;
use super::pki::Identity;

/// Connects with TLS as `localhost`, with a client certificate of the corpus or without one.
pub async fn tls(
    addr: SocketAddr,
    certificate: Option<&str>,
    protocols: &[&[u8]],
) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(config(certificate, protocols));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Connects with TLS as `localhost` for HTTP/1.1, with generated certificates.
pub async fn tls_as(addr: SocketAddr, identity: &Identity) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let mut config = new_config(None, vec![b"http/1.1".to_vec()]);
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&identity.key()).unwrap();
    // Not with the builder, which parses the certificate and does not support version 1.
    let certified = rustls::sign::CertifiedKey::new(identity.chain.clone(), key);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Returns the certificate that a server presents, whether it is trusted or not.
pub async fn shown_by(addr: SocketAddr) -> rustls::pki_types::CertificateDer<'static> {
    let mut config = new_config(None, vec![b"http/1.1".to_vec()]);
    config.dangerous().set_certificate_verifier(Arc::new(AnyServer));
    let stream = TcpStream::connect(addr).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// Sends these bytes, then connects with TLS as `localhost` for HTTP/1.1.
pub async fn tls_after(addr: SocketAddr, header: &[u8]) -> Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    stream.write_all(header).await?;
    tls_over(stream).await
}

/// Performs a TLS handshake as `localhost` and alice for HTTP/1.1 on an existing connection.
pub async fn tls_over(stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(config(Some("alice"), &[b"http/1.1"]));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Trusts every server, without verification.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> std::result::Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Connects with TLS for HTTP/1.1 from another address of this machine.
pub async fn tls_from(from: IpAddr, addr: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(config(None, &[b"http/1.1"]));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Returns an HTTP/2 connection, which is open until every handle is dropped.
pub async fn http2<B>(addr: SocketAddr, certificate: Option<&str>) -> Result<SendRequest<B>>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = tls(addr, certificate, &[b"h2"]).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()), "no HTTP/2 by ALPN");
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(64 << 20)
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a GET over HTTP/2. Returns the head of the response; its body follows.
pub async fn h2_get<B>(
    sender: &mut SendRequest<B>,
    target: &str,
    headers: &[(&str, &str)],
) -> hyper::Result<Response<Incoming>>
where
    B: Body + Default + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut request = Request::get(format!("https://kubernetes{target}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.ready().await?;
    sender.send_request(request.body(B::default()).unwrap()).await
}

/// Returns the whole body of a response.
pub async fn whole(response: Response<Incoming>) -> hyper::Result<Bytes> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// The body of requests without a body or with a short one.
pub type Short = Full<Bytes>;

/// Returns the settings of a client. They are cached, so that sessions are resumed like by a real
/// client.
fn config(certificate: Option<&str>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    type Known = Mutex<HashMap<(Option<String>, Vec<Vec<u8>>), Arc<ClientConfig>>>;
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.to_vec()).collect();
    let key = (certificate.map(str::to_owned), protocols.clone());
    let mut known = KNOWN.get_or_init(Known::default).lock().unwrap();
    let make = || Arc::new(new_config(certificate, protocols));
    Arc::clone(known.entry(key).or_insert_with(make))
}

fn new_config(certificate: Option<&str>, protocols: Vec<Vec<u8>>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(corpus::pki("ca.crt")).unwrap()).unwrap();
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = corpus::pki(&format!("{name}.crt"));
            let key = corpus::pki(&format!("{name}.key"));
            let chain = vec![CertificateDer::from_pem_file(chain).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
                .unwrap()
        }
    };
    config.alpn_protocols = protocols;
    config
}

/// Sends a GET to the admin port over plain HTTP. Returns the body.
pub async fn admin(addr: SocketAddr, path: &str) -> Result<(u16, String)> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Short>(TokioIo::new(stream))
            .await
            .map_err(Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", "localhost").body(Short::default()).unwrap();
    let response = sender.send_request(request).await.map_err(Error::other)?;
    let status = response.status().as_u16();
    let body = whole(response).await.map_err(Error::other)?;
    drop(sender);
    let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
