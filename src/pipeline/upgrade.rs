//! Requests that switch from HTTP to another protocol: `exec`, `attach` and `port-forward` over
//! SPDY or WebSocket.

use std::io;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_audit::request::requested_protocol;
use session_recording::Session;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_buf, split};

use super::refusal::unrecorded;
use super::{LongRunning, ResponseBody, recorded, session};
use crate::audit::record::AuditContext;
use crate::request::headers;
use crate::upstream::UpstreamBody;

/// Size of the buffer for each direction.
pub(super) const BUFFER: usize = 32 << 10;

/// A client's request to switch protocols.
pub(super) struct UpgradeRequest {
    protocol: HeaderValue,
    client: OnUpgrade,
    /// Set if the session in the connection is recorded.
    pub(super) session: Option<Session>,
}

/// Takes the request for an upgrade from the head, if it has one. Boxed, because few requests have
/// one.
pub(super) fn take_request(parts: &mut Parts) -> Option<Box<UpgradeRequest>> {
    if parts.version != Version::HTTP_11 {
        return None;
    }
    let protocol = requested_protocol(&parts.headers)?.clone();
    if !is_known(&protocol) {
        return None;
    }
    let client = parts.extensions.remove::<OnUpgrade>()?;
    Some(Box::new(UpgradeRequest { protocol, client, session: None }))
}

/// Returns whether Kubernetes upgrades to this protocol. Others are not forwarded, which RFC 9110
/// (7.8) allows: one such as `h2c` would carry requests without events.
fn is_known(protocol: &HeaderValue) -> bool {
    let protocol = protocol.as_bytes().trim_ascii();
    protocol.eq_ignore_ascii_case(b"websocket") || protocol.eq_ignore_ascii_case(b"SPDY/3.1")
}

impl UpgradeRequest {
    /// Adds the upgrade headers to the request for the API server.
    pub(super) fn requested_in<B>(&self, mut request: Request<B>) -> Request<B> {
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
        request
    }

    /// Passes the protocol that the API server selected to the recording.
    ///
    /// # Errors
    /// Returns why the session cannot be recorded, if it must be.
    pub(super) fn negotiated(&self, answer: &HeaderMap) -> Result<(), String> {
        match &self.session {
            Some(recording) => session::negotiated(recording, &self.protocol, answer),
            None => Ok(()),
        }
    }
}

/// Relays the API server's 101, and then bytes in both directions until one side ends.
pub(super) async fn switch(
    long_running: &LongRunning,
    requested: UpgradeRequest,
    answer: Response<UpstreamBody>,
    mut record: Box<AuditContext>,
) -> Response<ResponseBody> {
    let recording = requested.session;
    if let Some(recording) = &recording {
        record.session_begun(recording.file());
    }
    record.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16(), None);
    if record.response_started().await.is_err() {
        // Dropping the record ends it; the connection to the API server is closed, too.
        return unrecorded(&record.facts().target);
    }

    let mut response = Response::new(ResponseBody::known(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    headers::strip_response(response.headers_mut());
    let protocol = answer.headers().get(header::UPGRADE).unwrap_or(&requested.protocol).clone();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);

    let upstream = hyper::upgrade::on(answer);
    let ending = long_running.ending.clone();
    long_running.upgraded.spawn(async move {
        let passing = async {
            match tokio::try_join!(requested.client, upstream) {
                Ok((client, upstream)) => {
                    let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
                    match &recording {
                        None => pass(client, upstream).await,
                        Some(recording) => recorded::pass(client, upstream, recording).await,
                    }
                }
                Err(error) => tracing::debug!(%error, "the upgrade failed"),
            }
        };
        tokio::select! {
            () = passing => {}
            () = ending.cancelled() => {}
        }
        if let Some(recording) = recording {
            record.session_ended(&recording.finish().await);
        }
        // The connections have ended, so nothing can be refused any more.
        let _ = record.complete().await;
    });
    response
}

/// Copies bytes in both directions ([`until_closed`]).
async fn pass(client: impl AsyncRead + AsyncWrite, upstream: impl AsyncRead + AsyncWrite) {
    let (client_reader, mut client_writer) = split(client);
    let (upstream_reader, mut upstream_writer) = split(upstream);
    let up = async {
        let mut reader = BufReader::with_capacity(BUFFER, client_reader);
        copy_buf(&mut reader, &mut upstream_writer).await?;
        upstream_writer.shutdown().await
    };
    let down = async {
        let mut reader = BufReader::with_capacity(BUFFER, upstream_reader);
        let copied = copy_buf(&mut reader, &mut client_writer).await;
        // Flush what was written, even if reading failed.
        let ended = client_writer.shutdown().await;
        copied.map(drop).and(ended)
    };
    until_closed(up, down).await;
}

/// Runs both directions of a connection until the API server closes its side, or a connection
/// breaks. A client that has closed its sending side still receives the rest.
pub(super) async fn until_closed(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
) {
    let mut down = std::pin::pin!(down);
    // The record contains that the connection ended, and not how.
    tokio::select! {
        _ = &mut down => {}
        sent = up => {
            if sent.is_ok() {
                let _ = down.await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
