//! Handles one request, from its head to its last audit event.
//!
//! [`handle`] calls the steps in the order in which they happen. Everything that can refuse a
//! request comes before the request is forwarded, and each refusal is recorded.

mod buffer;
mod connection;
mod credentials;
mod forward;
mod outgoing;
mod proxy;
mod recorded;
mod refusal;
mod response;
mod session;
mod upgrade;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, Method, Request, Response, StatusCode, header};

pub use connection::Connection;
pub use proxy::{LongRunning, Proxy};
pub use response::ResponseBody;

use forward::forward;
use refusal::{
    panicked, refuse, refuse_unauthenticated, refuse_unavailable, refuse_unresolved, rejected,
};

use crate::audit::id::audit_id;
use crate::audit::record::{AuditContext, RequestContext};
use crate::body::ClientBody;
use crate::filters::cors::{self, SkipCors};
use crate::filters::requested_timeout;
use crate::request::headers::AUDIT_ID;
use k8s_audit::event::UserAgent;
use k8s_audit::request::accept;
use k8s_audit::request::uri::origin_form;
use k8s_audit::request::{InfoError, RequestInfo};
use k8s_audit::status::Status;
use k8s_audit::timestamp::Timestamp;
use kube_authn::{Authenticated, AuthenticationError};

/// The header under which kube-apiserver returns the audit ID.
const AUDIT_ID_RESPONSE: HeaderName = AUDIT_ID;

/// Responds to one request.
pub async fn handle(
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    request: Request<ClientBody>,
) -> Response<ResponseBody> {
    // When a panic arrives here, it has dropped the record, which wrote its `Panic` event.
    match AssertUnwindSafe(respond(&proxy, &connection, request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => panicked(),
    }
}

async fn respond(
    proxy: &Proxy,
    connection: &Connection,
    request: Request<ClientBody>,
) -> Response<ResponseBody> {
    let received = Timestamp::now();
    let started = proxy.filters.now();
    let (mut parts, body) = request.into_parts();
    let target = match parts.uri.path_and_query() {
        Some(target) if parts.method != Method::CONNECT => origin_form(target),
        _ => PathAndQuery::from_static("/"),
    };
    let (info, unresolved) = match RequestInfo::new(&parts.method, &target) {
        Ok(info) => (info, None),
        Err(error) => (RequestInfo::unresolved(&parts.method, &target), Some(error)),
    };
    let is_resolved = unresolved.is_none();
    let origin = match proxy.filters.cors() {
        Some(cors) if is_resolved => cors.allowed(&parts.headers),
        _ => None,
    };
    let facts = RequestContext {
        received,
        audit_id: audit_id(parts.headers.get(AUDIT_ID)),
        info,
        source_ips: proxy.trusted_proxies.source_ips(&parts.headers, connection.peer),
        user_agent: UserAgent::new(parts.headers.get(header::USER_AGENT)),
        accept: accept::negotiate(&parts.headers),
        target,
    };
    let id = facts.audit_id.clone();
    let requested = requested_timeout(&facts.info, facts.target.query());
    let (timeout, invalid_timeout) = match requested {
        Ok(timeout) => (timeout, None),
        Err(error) => (None, Some(error)),
    };
    let is_preflight = origin.is_some() && cors::is_preflight(&parts.method);
    let refused = HeadChecks { unresolved, invalid_timeout, is_preflight };
    let mut response = match admit(proxy, connection, &parts, facts, refused).await {
        Ok((record, caller)) => {
            // Before the request is taken apart: this removes the upgrade handle from it.
            let upgrade = upgrade::take_request(&mut parts);
            let is_long_running = record.is_long_running();
            let deadline =
                proxy.filters.deadline(connection.number, started, is_long_running, timeout);
            forward(proxy, connection, deadline, (parts, body), record, caller, upgrade).await
        }
        Err(refused) => refused,
    };
    // A 101 is the API server's response and has no audit ID of the proxy.
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(AUDIT_ID_RESPONSE, id);
        if let Some(origin) = origin
            && response.extensions().get::<SkipCors>().is_none()
        {
            origin.set_headers(response.headers_mut());
        }
        if let Some(hsts) = proxy.filters.hsts().filter(|_| is_resolved) {
            let name = header::STRICT_TRANSPORT_SECURITY;
            response.headers_mut().entry(name).or_insert_with(|| hsts.clone());
        }
    }
    response
}

/// Reasons for not forwarding a request that are known from its head.
struct HeadChecks {
    unresolved: Option<InfoError>,
    invalid_timeout: Option<String>,
    is_preflight: bool,
}

/// Authenticates the request, evaluates the policies and submits the first event.
///
/// # Errors
///
/// Returns the response to a request that is not forwarded.
async fn admit(
    proxy: &Proxy,
    connection: &Connection,
    parts: &Parts,
    facts: RequestContext,
    checks: HeadChecks,
) -> Result<(Box<AuditContext>, Authenticated), Response<ResponseBody>> {
    let begin = |facts: RequestContext, user: Option<&Authenticated>| {
        let user = user.map(|caller| caller.user.clone());
        let mut record = AuditContext::begin(proxy.recorder.clone(), facts, user);
        record.on_connection(connection.number, &connection.sequence);
        record
    };
    let HeadChecks { unresolved, invalid_timeout, is_preflight } = checks;
    if let Some(message) = invalid_timeout {
        let status = Status::bad_request(message);
        let shown = shown(&facts, &status, || status.message.clone());
        let mut refused = refuse_unauthenticated(begin(facts, None), &status, shown).await;
        refused.extensions_mut().insert(SkipCors);
        return Err(refused);
    }
    if is_preflight {
        // kube-apiserver answers it before authentication, and without an event.
        proxy.filters.metrics.preflights.inc();
        return Err(cors::preflight().map(|()| ResponseBody::known(Bytes::new())));
    }
    let certificates = connection.certificates.as_ref();
    let peer = connection.peer.ip();
    let (headers, path) = (&parts.headers, facts.info.path());
    let authenticating = proxy.authenticator.authenticate(peer, certificates, headers, path);
    let caller = match authenticating.await {
        Ok(caller) => caller,
        Err(AuthenticationError::Unauthorized) => {
            let status = Status::unauthorized();
            let shown = shown(&facts, &status, || {
                kube_authn::attempted(&parts.headers, facts.target.query(), certificates.is_some())
            });
            return Err(refuse_unauthenticated(begin(facts, None), &status, shown).await);
        }
        Err(AuthenticationError::Unavailable) => {
            let denial = proxy.authenticator.token_review_denial();
            return Err(refuse_unavailable(begin(facts, None), denial).await);
        }
    };
    let mut record = begin(facts, Some(&caller));
    if let Some(annotations) = &caller.annotations {
        record.annotate_all(annotations);
    }
    if record.received().await.is_err() || !record.is_writable().await {
        return Err(rejected(record));
    }
    match unresolved {
        None if parts.method != Method::CONNECT => Ok((record, caller)),
        None => Err(refuse(record, Status::bad_request("CONNECT is not supported")).await),
        Some(InfoError::BadEscape) => {
            let message = "the URL has a % that is not followed by two hexadecimal digits";
            Err(refuse(record, Status::bad_request(message)).await)
        }
        Some(error @ InfoError::NothingAfterVerb) => Err(refuse_unresolved(record, error).await),
    }
}

/// Returns the Status for the only event of an unauthenticated request. If kube-apiserver could not
/// satisfy the client's `Accept`, its event has only the code, and `reason` is used as the message.
fn shown(facts: &RequestContext, status: &Status, reason: impl FnOnce() -> String) -> Status {
    match facts.accept {
        Some(_) => status.clone(),
        None => Status { message: reason(), ..Status::of_code(status.code) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    // The future is copied when it becomes a task, and each waiting request keeps one in memory.
    #[test]
    fn a_request_is_small() {
        let size = size_of_future(handle);
        assert!(size <= 5 << 10, "{size} bytes");
    }
}
