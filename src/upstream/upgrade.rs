//! Requests that want to leave HTTP: SPDY and WebSocket.

use std::sync::Arc;

use http::{Request, Response};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;

use super::connect::Purpose;
use super::error::SendError;
use super::forward::{Upstream, judge_http1};
use super::request_body::BodySource;
use super::response_body::UpstreamBody;
use crate::body::RequestBody;

impl Upstream {
    /// Sends `request` with its `Connection: Upgrade` and `Upgrade` headers on an HTTP/1.1
    /// connection of its own. On a 101, `hyper::upgrade::on(response)` gives the bytes. After any
    /// other answer the connection is closed with the end of the body: what the client says next
    /// must not reach the API server as a request.
    ///
    /// # Errors
    /// As [`Upstream::send`], but nothing is tried again.
    pub async fn upgrade(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let result = self.try_upgrade(request).await;
        self.count(&result);
        result
    }

    async fn try_upgrade(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let later = self.shared().later();
        let (head, body) = self.shared().pool(&later).outgoing(request);
        // Rare, and too large to be a part of every request's future.
        let connecting = self.shared().pool(&later).connector.connect(Purpose::Upgrade);
        let (stream, _) = Box::pin(connecting).await?;
        let (mut sender, connection) = Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| SendError::NotProcessed { source: Arc::new(error.into()) })?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection for an upgrade ended");
            }
        });
        let body = BodySource::new(body);
        let outgoing = body.attempt().ok_or(SendError::BodyFromClient)?;
        let request = head.request(false, outgoing, self.shared().pool(&later));
        match sender.try_send_request(request).await {
            // The sender is dropped here, and with it the way to a second request.
            Ok(response) => {
                body.settle();
                Ok(response.map(|b| UpstreamBody::http1(b, None)))
            }
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                Err(judge_http1(error.into_error(), unsent, &body))
            }
        }
    }
}
