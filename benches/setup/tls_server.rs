//! A TLS server on a free port, for HTTP/2 and HTTP/1.1.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Starts a server that calls `serve` for each connection, with whether the client has selected
/// HTTP/2.
pub(crate) async fn start<S, F>(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    serve: S,
) -> Result<SocketAddr>
where
    S: Fn(TlsStream<TcpStream>, bool) -> F + Clone + Send + 'static,
    F: Future<Output = hyper::Result<()>> + Send,
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, serve) = (tls.clone(), serve.clone());
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                let stream = tls.accept(stream).await?;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(stream, is_http2).await.map_err(io::Error::other)
            });
        }
    });
    Ok(address)
}
