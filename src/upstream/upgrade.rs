//! Requests for SPDY and WebSocket upgrades.

use std::sync::Arc;
use std::time::Instant;

use api_client::endpoint_set::Failure;
use http::{Request, Response, StatusCode};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;

use super::balance::first_of;
use super::connect::{Purpose, Stream};
use super::current::Inner;
use super::error::SendError;
use super::forward::{Head, MAX_ATTEMPTS, Upstream, classify_http1};
use super::forward_balanced::{PATIENCE, PATIENCE_PAUSE};
use super::http1::MAX_HEADER_BYTES;
use super::http1_many_headers::MAX_HEADER_LINES;
use super::pool::Pool;
use super::renewal::Renewable;
use super::request_body::{BodySource, Outgoing};
use super::response_body::UpstreamBody;
use crate::body::RequestBody;
use audit_log::CommitSequence;

impl Upstream {
    /// Sends `request` with its `Connection: Upgrade` and `Upgrade` headers on a new HTTP/1.1
    /// connection. After a 101, `hyper::upgrade::on(response)` returns the byte stream. After any
    /// other response, the connection is closed at the end of the body: later bytes of the client
    /// must not reach the API server as a request.
    ///
    /// # Errors
    /// Like [`Upstream::forward`], but only a request of which nothing was sent is sent again.
    pub async fn upgrade(
        &self,
        request: Request<RequestBody>,
        sequence: &CommitSequence,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.try_upgrade(request, sequence).await.map_err(|error| self.counted(error))
    }

    async fn try_upgrade(
        &self,
        request: Request<RequestBody>,
        sequence: &CommitSequence,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let later = self.shared().later();
        if self.shared().inner(&later).endpoints().is_balanced() {
            return self.upgrade_balanced(later, request, sequence).await;
        }
        let mut renewable = Renewable::of(&request);
        let (mut head, body) = self.shared().pool(&later).outgoing(request);
        let body = BodySource::new(body);
        let mut may_repeat = true;
        loop {
            let outgoing = body.attempt().ok_or(SendError::BodyFromClient)?;
            let request = head.clone().request(false, outgoing, self.shared().pool(&later));
            match upgrade_once(self.shared().pool(&later), request, &body, sequence).await {
                Ok(mut response) => {
                    if response.status() == StatusCode::UNAUTHORIZED
                        && let Some(rejected) = &mut renewable
                    {
                        let can_repeat = body.can_repeat();
                        let renewing = self.renew(rejected, &mut head, &mut response, can_repeat);
                        if Box::pin(renewing).await {
                            continue;
                        }
                    }
                    body.settle();
                    return Ok(response);
                }
                // A command may be running already, so only a request of which nothing was sent is
                // sent again.
                Err(SendError::NotProcessed { .. }) if may_repeat && body.can_repeat() => {
                    may_repeat = false;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Upstream {
    /// Like [`Upstream::try_upgrade`], with a connection to one of several addresses.
    async fn upgrade_balanced(
        &self,
        later: Option<Arc<Inner>>,
        request: Request<RequestBody>,
        sequence: &CommitSequence,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let balancer = &self.shared().inner(&later).balancer;
        let mut renewable = Renewable::of(&request);
        let (mut head, body) = Head::of(request);
        let body = BodySource::new(body);
        let began = Instant::now();
        let mut avoid = Vec::new();
        loop {
            let order = balancer.in_order(&avoid);
            let connected = first_of(&order, |backend| async move {
                backend.pool.connector.connect(Purpose::Upgrade, sequence).await
            });
            let (backend, (stream, _)) = match Box::pin(connected).await {
                Ok(connected) => connected,
                Err(error) if error.retry_safe() && began.elapsed() < PATIENCE => {
                    balancer.endpoints().came_up(PATIENCE_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let outgoing = body.attempt().ok_or(SendError::BodyFromClient)?;
            let request = head.clone().with_prefix(&backend.pool);
            let request = request.request(false, outgoing, &backend.pool);
            let awaiting = backend.member.await_response();
            match upgrade_on(stream, request, &body).await {
                Ok(mut response) => {
                    awaiting.answered();
                    if response.status() == StatusCode::UNAUTHORIZED
                        && let Some(rejected) = &mut renewable
                    {
                        let can_repeat = body.can_repeat();
                        let renewing = self.renew(rejected, &mut head, &mut response, can_repeat);
                        if Box::pin(renewing).await {
                            continue;
                        }
                    }
                    body.settle();
                    return Ok(response);
                }
                // A command may be running already, so only a request of which nothing was sent is
                // sent again.
                Err(SendError::NotProcessed { .. })
                    if avoid.len() < MAX_ATTEMPTS.into() && body.can_repeat() =>
                {
                    backend.member.failed(Failure::ConnectionLost);
                    avoid.push(Arc::clone(&backend.member));
                }
                Err(error) => {
                    if error.is_reset() {
                        backend.member.failed(Failure::ConnectionLost);
                    }
                    return Err(error);
                }
            }
        }
    }
}

async fn upgrade_once(
    pool: &Pool,
    request: Request<Outgoing>,
    body: &BodySource,
    sequence: &CommitSequence,
) -> Result<Response<UpstreamBody>, SendError> {
    // Rare, and too large to be a part of every request's future.
    let (stream, _) = Box::pin(pool.connector.connect(Purpose::Upgrade, sequence)).await?;
    upgrade_on(stream, request, body).await
}

async fn upgrade_on(
    stream: Stream,
    request: Request<Outgoing>,
    body: &BodySource,
) -> Result<Response<UpstreamBody>, SendError> {
    let (mut sender, connection) = Builder::new()
        .max_headers(MAX_HEADER_LINES)
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| SendError::NotProcessed { source: Arc::new(error.into()) })?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection for an upgrade ended");
        }
    });
    // The sender is dropped at the end, so that no second request can be sent.
    sender.try_send_request(request).await.map(|r| r.map(|b| UpstreamBody::http1(b, None))).map_err(
        |mut error| {
            let unsent = error.take_message().is_some();
            classify_http1(error.into_error(), unsent, body)
        },
    )
}
