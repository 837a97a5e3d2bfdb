//! The way of one request, from its head to its last audit event.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;

use crate::body::BodyError;

/// All that requests share.
pub struct Proxy {}

/// What is known of the client's connection; shared by its requests.
pub struct Connection {
    /// The client's address.
    pub peer: SocketAddr,
    /// The certificates that the client presented, its own first; empty where it presented none.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// The body of an answer.
pub struct ResponseBody {}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(None)
    }
}

impl Proxy {
    /// Ends watches, followed logs and upgraded connections; called once, at shutdown.
    pub fn end_long_running(&self) {}
}

/// Answers one request.
pub async fn handle(
    _proxy: Arc<Proxy>,
    _connection: Arc<Connection>,
    _request: Request<Incoming>,
) -> Response<ResponseBody> {
    Response::new(ResponseBody {})
}
