//! Sends an admitted request to the API server and starts its response.

use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::connection::Connection;
use super::outgoing::outgoing;
use super::proxy::Proxy;
use super::refusal::{access_denied, refuse, timed_out, too_many_requests, unreachable_upstream};
use super::response::{self, EndConditions, ResponseBody};
use super::{credentials, session, upgrade};
use crate::audit::record::{AuditContext, RequestContext};
use crate::body::{ClientBody, RequestBody};
use crate::filters::deadline::race;
use crate::filters::in_flight::TooManyRequests;
use crate::filters::{Deadline, Expired};
use crate::upstream::access::{Access, Denial};
use crate::upstream::{CredentialRenewed, SendError, UpstreamBody};
use audit_body::wants_pretty;
use k8s_audit::status::Status;
use kube_authn::{Authenticated, User};

/// Sends a request for an upgrade, after the recording of its session has started.
///
/// # Errors
/// Returns the response to send if the session must be recorded and cannot be.
async fn open_upgrade(
    proxy: &Proxy,
    connection: &Connection,
    requested: &mut upgrade::UpgradeRequest,
    request: Request<RequestBody>,
    record: &mut AuditContext,
    user: &User,
) -> Result<Result<Response<UpstreamBody>, SendError>, Box<Status>> {
    let request = requested.requested_in(request);
    if let Some(recorder) = &proxy.sessions {
        requested.session = session::begin(recorder, record, user, request.headers()).await?;
    }
    Ok(proxy.upstream.upgrade(request, &connection.sequence).await)
}

/// Forwards an admitted request and starts its response.
pub(super) async fn forward(
    proxy: &Proxy,
    connection: &Connection,
    deadline: Option<Deadline>,
    (parts, body): (Parts, ClientBody),
    mut record: Box<AuditContext>,
    caller: Authenticated,
    mut upgrade: Option<Box<upgrade::UpgradeRequest>>,
) -> Response<ResponseBody> {
    let (parts, (is_head, pretty), is_safe) = response_form(parts, &record);
    let by = deadline.as_ref();
    let request = {
        let making = outgoing(proxy, connection, parts, body, &mut record, &caller, by);
        race(by, std::pin::pin!(making)).await
    };
    // One await for all refusals: a value that is live in several of them would not share its
    // memory with later ones.
    let request = match request.unwrap_or_else(|expired| Err(expired.into())) {
        Ok(request) => request,
        Err(refused) => return refused.respond(proxy, record).await,
    };
    let review = proxy.authorization.as_ref().and_then(|reviews| {
        let (facts, user) = (record.facts(), record.effective_user()?);
        Some(reviews.start(user, &facts.info, facts.target.query()))
    });
    let sent = match &mut upgrade {
        Some(requested) => {
            let user = &caller.user;
            let mut opening =
                Box::pin(open_upgrade(proxy, connection, requested, request, &mut record, user));
            race(by, opening.as_mut()).await
        }
        None => {
            let sending = proxy.upstream.forward(request, &connection.sequence);
            race(by, std::pin::pin!(sending)).await.map(Ok)
        }
    };
    let sent = match sent {
        Ok(Ok(sent)) => sent,
        Ok(Err(status)) => return refuse(record, *status).await,
        Err(Expired) => return expired(proxy, record, !is_safe).await,
    };
    if let (Some(mut review), Ok(answer)) = (review, &sent)
        && answer.status() != StatusCode::UNAUTHORIZED
    {
        Box::pin(review.wait()).await;
        record.reviewed(review);
    }
    match sent {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => match upgrade {
            Some(requested) => {
                if let Err(why) = requested.negotiated(answer.headers())
                    && let Some(recorder) = &proxy.sessions
                {
                    let status = session::refused(recorder, &mut record, &why);
                    let mut response = refuse(record, *status).await;
                    close_after(&mut response, true);
                    return response;
                }
                connection.upgraded.store(true, Ordering::Relaxed);
                Box::pin(upgrade::switch(&proxy.long_running, *requested, answer, record)).await
            }
            None => {
                let message = "the API server switched protocols without a request to do so";
                refuse(record, Status::service_unavailable(message)).await
            }
        },
        Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            let was_upgrade = upgrade.is_some();
            let ends = ends(proxy, &record, deadline);
            Box::pin(unauthorized(proxy, answer, record, (is_head, pretty), ends, was_upgrade))
                .await
        }
        Ok(answer) => {
            let ends = ends(proxy, &record, deadline);
            let mut response = response::relay(answer, record, (is_head, pretty), ends).await;
            close_after(&mut response, upgrade.is_some());
            response
        }
        Err(error) => unreachable_upstream(record, &error).await,
    }
}

/// Why a request is not forwarded.
pub(super) enum Refused {
    /// The response to send.
    Status(Box<Status>),
    /// Too many requests are in flight.
    TooManyRequests,
    /// The request's deadline has passed.
    Expired,
}

impl Refused {
    fn respond(
        self,
        proxy: &Proxy,
        record: Box<AuditContext>,
    ) -> BoxFuture<'static, Response<ResponseBody>> {
        match self {
            Refused::Status(status) => refuse(record, *status),
            Refused::TooManyRequests => too_many_requests(record),
            Refused::Expired => expired(proxy, record, false),
        }
    }
}

impl From<Expired> for Refused {
    fn from(_: Expired) -> Refused {
        Refused::Expired
    }
}

impl From<Box<Status>> for Refused {
    fn from(status: Box<Status>) -> Refused {
        Refused::Status(status)
    }
}

impl From<TooManyRequests> for Refused {
    fn from(_: TooManyRequests) -> Refused {
        Refused::TooManyRequests
    }
}

/// Responds to a request whose deadline has passed before its response has started.
fn expired(
    proxy: &Proxy,
    record: Box<AuditContext>,
    outcome_unknown: bool,
) -> BoxFuture<'static, Response<ResponseBody>> {
    proxy.filters.metrics.timeouts.inc();
    timed_out(record, outcome_unknown)
}

/// Returns what may end the response before its body does.
fn ends(proxy: &Proxy, record: &AuditContext, deadline: Option<Deadline>) -> EndConditions {
    let RequestContext { info, target, .. } = record.facts();
    let watch_timeout = proxy.filters.watch_timeout(info, target.query());
    EndConditions { process: proxy.long_running.ending.clone(), watch_timeout, deadline }
}

/// Returns whether the client expects no body, whether it wants indented JSON, and whether the
/// method is safe. `parts` are passed by value and returned: if the caller lent them, they would
/// stay in its future until the response.
fn response_form(parts: Parts, record: &AuditContext) -> (Parts, (bool, bool), bool) {
    let is_safe = parts.method.is_safe();
    let is_head = parts.method == Method::HEAD;
    let pretty = record
        .facts()
        .accept
        .is_some_and(|accepted| accepted.pretty || wants_pretty(parts.uri.query(), &parts.headers));
    (parts, (is_head, pretty), is_safe)
}

/// Handles a 401 of the API server, which concerns either the client or the proxy's own
/// credentials.
async fn unauthorized(
    proxy: &Proxy,
    answer: Response<UpstreamBody>,
    record: Box<AuditContext>,
    (is_head, pretty): (bool, bool),
    ends: EndConditions,
    was_upgrade: bool,
) -> Response<ResponseBody> {
    if answer.extensions().get::<CredentialRenewed>().is_some() {
        let message = "the proxy's own credential expired while this request was in flight; the API server did not process it, retry it";
        return refuse(record, Status::service_unavailable(message)).await;
    }
    if credentials::are_rejected(proxy, record.facts()).await {
        return access_denied(record, Access::Forward, Denial::Unauthorized).await;
    }
    let mut response = response::relay(answer, record, (is_head, pretty), ends).await;
    close_after(&mut response, was_upgrade);
    response
}

/// Closes the client's connection after the response if an upgrade was requested: the next bytes of
/// the client may belong to the other protocol.
fn close_after(response: &mut Response<ResponseBody>, was_upgrade: bool) {
    if was_upgrade {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}
