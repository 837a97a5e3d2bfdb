//! Certificates, a TLS client and a handler for the tests of the server.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::client::TlsStream;

use super::http::Handler;
use crate::body::ClientBody;
use crate::pipeline::Connection;

/// A self-signed certificate and its key, as PEM.
pub(crate) struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Creates a self-signed certificate for `localhost` whose common name is `name`.
pub(crate) fn certificate(name: &str) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    Pair { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// Returns an X.509 v1 certificate with an RSA key. Made by `openssl x509 -req -signkey`.
pub(crate) fn certificate_v1() -> Pair {
    let pem = include_str!("testdata/x509-v1.pem").to_owned();
    Pair { certificate: pem.clone(), key: pem }
}

/// Returns the first certificate of a PEM text.
pub(crate) fn leaf_of(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Returns a client configuration that offers `alpn`, presents `pair` and trusts any server.
pub(crate) fn client_config(alpn: &[&str], pair: Option<&Pair>, tls12: bool) -> ClientConfig {
    let versions: &[_] =
        if tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match pair {
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).unwrap();
            // Unlike `with_client_auth_cert`, this does not parse the certificate.
            let pair = CertifiedKey::new(vec![leaf_of(&pair.certificate)], key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Connects and completes the TLS handshake.
pub(crate) async fn connect(
    addr: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Responds with the version, the path, and whether the client has a certificate. The path `/slow`
/// waits for [`TestHandler::release`].
#[derive(Clone)]
pub(crate) struct TestHandler {
    release: Arc<Semaphore>,
    begun: Arc<Semaphore>,
}

impl TestHandler {
    pub(crate) fn new() -> TestHandler {
        TestHandler { release: Arc::new(Semaphore::new(0)), begun: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until a slow request has arrived.
    pub(crate) async fn slow_has_begun(&self) {
        self.begun.acquire().await.unwrap().forget();
    }

    /// Responds to one slow request.
    pub(crate) fn release(&self) {
        self.release.add_permits(1);
    }

    /// Returns whether all slow requests were responded to or dropped, and no more can arrive.
    pub(crate) fn is_idle(&self) -> bool {
        // One for this handler, and one for the listener's while it lives.
        Arc::strong_count(&self.release) <= 2
    }
}

impl Handler for TestHandler {
    type Body = Full<Bytes>;

    async fn handle(
        self,
        connection: Arc<Connection>,
        request: Request<ClientBody>,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/slow" {
            self.begun.add_permits(1);
            self.release.acquire().await.unwrap().forget();
        }
        let certificate = connection.certificates.is_some();
        let version = request.version();
        Response::new(Full::from(format!("{version:?} {path} {certificate}")))
    }
}
