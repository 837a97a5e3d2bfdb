//! The demo API's listener.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::api::Api;
use super::handler;
use super::identity::Peer;

/// Maximum time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Delay after a failed accept, for example because there are no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the API until `shutdown` ends; open connections are then closed.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Api,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(acceptor.clone(), stream, api.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "demo API: cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, api: Api) {
    // Frames of watches are small and must not be delayed. A failure only affects speed.
    let _ = stream.set_nodelay(true);
    let accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = accepted else {
        tracing::debug!("demo API: TLS handshake failed");
        return;
    };
    let (_, session) = stream.get_ref();
    let peer = Arc::new(Peer::new(session.peer_certificates()));
    let http2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let (api, peer) = (api.clone(), peer.clone());
        async move { Ok::<_, Infallible>(handler::handle(&api, &peer, request).await) }
    });
    let stream = TokioIo::new(stream);
    let served = if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).serve_connection(stream, service).await
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).serve_connection(stream, service).with_upgrades().await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "demo API: connection ended");
    }
}
