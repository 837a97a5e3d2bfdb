//! Requests to an API server with several addresses.
//!
//! A request is sent again, to another address, if it was certainly not processed: the connection
//! could not be opened or was closed before anything was written, the stream was refused, or a
//! GOAWAY names an earlier stream as the last one. A `GET`, `HEAD` or `OPTIONS` is also sent again
//! if the connection breaks, or the address goes down, before the response. Other requests fail
//! like with one address.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_client::endpoint_set::{Failure, Health, Member};
use audit_log::CommitSequence;
use http::{Request, Response, StatusCode};

use super::balance::Backend;
use super::current::Inner;
use super::error::SendError;
use super::forward::{
    Failed, Head, MAX_ATTEMPTS, MAX_CLOSED, RETRY_PAUSE, Upstream, send_http1, send_http2,
};
use super::pool::Lease;
use super::renewal::Renewable;
use super::request_body::{BodySource, Outgoing};
use super::response_body::UpstreamBody;
use crate::body::RequestBody;

/// Maximum time that a request that was not processed waits for an address to become healthy.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Delay between two attempts in that time.
pub(super) const PATIENCE_PAUSE: Duration = Duration::from_millis(100);

/// Interval at which a request to an address that is down checks for a better one.
const CHECK_AGAIN: Duration = Duration::from_millis(200);

/// The result of one attempt.
enum Sent {
    Response(Response<UpstreamBody>),
    Failed(Failed),
    /// The address went down before there was a response, and the request may be sent again.
    Abandoned,
}

impl Upstream {
    /// Forwards a request to the best address, and to others as long as that is safe.
    pub(super) async fn forward_balanced(
        &self,
        later: Option<Arc<Inner>>,
        request: Request<RequestBody>,
        is_safe: bool,
        sequence: &CommitSequence,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let balancer = &self.shared().inner(&later).balancer;
        let mut renewable = Renewable::of(&request);
        let (mut head, body) = Head::of(request);
        let body = BodySource::new(body);
        let began = Instant::now();
        let (mut attempt, mut closed, mut repeats): (u8, u8, u8) = (1, 0, 0);
        let mut avoid: Vec<Arc<Member>> = Vec::new();
        let mut lost: Option<Instant> = None;
        loop {
            let (backend, lease) = match balancer.lease(&avoid, lost, sequence).await {
                Ok(leased) => leased,
                Err(error) if error.retry_safe() && began.elapsed() < PATIENCE => {
                    balancer.endpoints().came_up(PATIENCE_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(self.counted(error)),
            };
            let Some(outgoing) = body.attempt() else {
                // Only possible if the client aborted its body before anything was sent.
                return Err(self.counted(SendError::BodyFromClient));
            };
            let http2 = matches!(lease, Lease::Http2(_));
            let request = head.clone().with_prefix(&backend.pool);
            let request = request.request(http2, outgoing, &backend.pool);
            let may_move = |body: &BodySource| {
                is_safe
                    && repeats < MAX_ATTEMPTS
                    && body.can_repeat()
                    && balancer.has_other(&backend.member)
            };
            let failed = match send(&backend, lease, request, &body, may_move).await {
                Sent::Response(mut response) => {
                    if response.status() == StatusCode::UNAUTHORIZED
                        && let Some(rejected) = &mut renewable
                    {
                        let can_repeat = attempt < MAX_ATTEMPTS && body.can_repeat();
                        let renewing = self.renew(rejected, &mut head, &mut response, can_repeat);
                        if Box::pin(renewing).await {
                            continue;
                        }
                    }
                    body.settle();
                    return Ok(response);
                }
                Sent::Failed(failed) => failed,
                Sent::Abandoned => {
                    tracing::debug!(endpoint = &**backend.member.name(), "moving a request");
                    repeats += 1;
                    add(&mut avoid, &backend.member);
                    continue;
                }
            };
            let Failed { error, unsent, is_lost } = failed;
            let not_processed = matches!(error, SendError::NotProcessed { .. });
            let is_repeatable = is_lost && is_safe && repeats < MAX_ATTEMPTS;
            let is_over = attempt == MAX_ATTEMPTS || closed == MAX_CLOSED || !body.can_repeat();
            match (is_lost, not_processed) {
                (_, true) => backend.member.check(),
                (true, false) => backend.member.failed(Failure::ConnectionLost),
                (false, false) => {}
            }
            if is_over || !(not_processed || is_repeatable) {
                return Err(self.counted(error));
            }
            tracing::debug!(%error, "sending a request again");
            add(&mut avoid, &backend.member);
            if unsent {
                closed += 1;
                continue;
            }
            if !not_processed {
                repeats += 1;
                // The connections to other addresses may have been lost, too.
                lost = (repeats > 1).then(Instant::now);
                continue;
            }
            if attempt > 1 {
                tokio::time::sleep(RETRY_PAUSE * u32::from(attempt - 1)).await;
            }
            attempt += 1;
        }
    }
}

fn add(avoid: &mut Vec<Arc<Member>>, member: &Arc<Member>) {
    if !avoid.iter().any(|known| Arc::ptr_eq(known, member)) {
        avoid.push(Arc::clone(member));
    }
}

/// Sends `request`, and stops waiting when the address goes down while the request `may_move`.
async fn send(
    backend: &Backend,
    lease: Lease,
    request: Request<Outgoing>,
    body: &BodySource,
    may_move: impl Fn(&BodySource) -> bool,
) -> Sent {
    let member = &backend.member;
    let awaiting = member.await_response();
    let mut sending = pin!(async {
        match lease {
            Lease::Http2(stream) => send_http2(&backend.pool, stream, request, body).await,
            Lease::Http1(connection) => send_http1(connection, request, body).await,
        }
    });
    loop {
        let mut went_down = pin!(member.went_down());
        went_down.as_mut().enable();
        // Since it was selected, the address may have gone down, or another one may have come up.
        let is_down = member.health() == Health::Down;
        if is_down && may_move(body) {
            return Sent::Abandoned;
        }
        let check_again = async {
            match is_down {
                true => tokio::time::sleep(CHECK_AGAIN).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            sent = &mut sending => return match sent {
                Ok(response) => {
                    awaiting.answered();
                    Sent::Response(response)
                }
                Err(failed) => Sent::Failed(failed),
            },
            () = went_down => {}
            () = check_again => {}
        }
    }
}
