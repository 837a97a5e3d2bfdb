//! [`dial`] as the connector of hyper-util's client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::dial::dial;

/// Opens the TCP connections of an HTTP client.
#[derive(Debug, Clone, Copy)]
pub struct DialService {
    /// How long a connection may take.
    pub timeout: Duration,
}

impl Service<Uri> for DialService {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let timeout = self.timeout;
        Box::pin(async move {
            let host = url.host().unwrap_or_default();
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            let is_https = url.scheme_str() == Some("https");
            let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
            dial(host, port, timeout).await.map(TokioIo::new)
        })
    }
}
