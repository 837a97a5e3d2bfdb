//! The way of one request, from its head to its last audit event.
//!
//! [`handle`] reads from top to bottom in the order in which things happen. What can refuse a
//! request comes before what sends it on, and each refusal is recorded.

mod credentials;
mod hold;
mod recorded;
mod refusal;
mod response;
mod session;
mod upgrade;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use api_client::exec::OwnCredential;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use response::ResponseBody;

use refusal::{
    access_denied, panicked, refuse, refuse_unauthenticated, refuse_unavailable, refuse_unresolved,
    rejected, timed_out, too_many_requests, unreachable_upstream, unrecorded,
};
use response::Ends;

use crate::audit::event::UserAgent;
use crate::audit::id::audit_id;
use crate::audit::record::{Record, Recorder, RequestFacts};
use crate::audit::timestamp::Timestamp;
use crate::authn::{
    self, Authenticated, AuthenticationError, Authenticator, ClientCertificates, User,
};
use crate::authorization::AuthorizationReviews;
use crate::body::{ClientBody, RequestBody};
use crate::filters::cors::{self, OutsideCors};
use crate::filters::deadline::race;
use crate::filters::in_flight::TooManyRequests;
use crate::filters::{Deadline, Expired, Filters, requested_timeout};
use crate::impersonation::{
    self, Refusal, RequestAttributes, Reviewer, Rules, Wanted, WantedError,
};
use crate::request::accept;
use crate::request::headers::{self, AUDIT_ID};
use crate::request::source::{Peer, TrustedProxies};
use crate::request::uri::origin_form;
use crate::request::{InfoError, RequestInfo};
use crate::status::Status;
use crate::upstream::access::{Access, Denial};
use crate::upstream::identity::{Identity, OriginalUserExtra};
use crate::upstream::{CredentialRenewed, SendError, Upstream, UpstreamBody};
use audit_body::wants_pretty;
use audit_log::CommitSequence;

/// The header under which kube-apiserver returns the audit ID.
const AUDIT_ID_ANSWER: HeaderName = AUDIT_ID;

/// All that requests share.
pub struct Proxy {
    /// Who is calling.
    pub authenticator: Authenticator,
    /// How much to record, and where events go.
    pub recorder: Arc<Recorder>,
    /// The networks from which `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// How the API server learns who is calling.
    pub identity: Identity,
    /// The extra that names the client to the API server, for [`Identity::Impersonate`].
    pub original_user_extra: Option<OriginalUserExtra>,
    /// Whether callers may impersonate, for [`Identity::Impersonate`].
    pub reviewer: Reviewer,
    /// Determines why the API server allows requests, for annotations.
    pub authorization: Option<AuthorizationReviews>,
    /// The API server.
    pub upstream: Upstream,
    /// Limits, timeouts, CORS and the like.
    pub filters: Filters,
    /// Long-running requests, and how to end them.
    pub long_running: LongRunning,
    /// Records what happens in sessions.
    pub sessions: Option<Arc<session_recording::Recorder>>,
}

/// Long-running requests, as far as the end of the process must know of them.
#[derive(Default)]
pub struct LongRunning {
    ending: CancellationToken,
    upgraded: TaskTracker,
}

impl Proxy {
    /// Ends watches, followed logs and upgraded connections; called once, at shutdown.
    pub fn end_long_running(&self) {
        self.long_running.ending.cancel();
        self.long_running.upgraded.close();
    }

    /// Waits until upgraded connections have ended; only after [`Proxy::end_long_running`].
    pub async fn upgraded_ended(&self) {
        self.long_running.upgraded.wait().await;
    }
}

/// What is known of the client's connection; shared by its requests.
pub struct Connection {
    /// Tells connections apart.
    number: u64,
    peer: SocketAddr,
    forwarded_for: Peer,
    /// Of the worker that serves the connection.
    sequence: CommitSequence,
    pub(crate) certificates: Option<ClientCertificates>,
    upgraded: AtomicBool,
}

impl Connection {
    /// A connection from `peer`, which presented these certificates, its own first, served by the
    /// worker that has this sequence.
    pub fn new(
        peer: SocketAddr,
        certificates: Vec<rustls_pki_types::CertificateDer<'static>>,
        sequence: CommitSequence,
    ) -> Connection {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let certificates = ClientCertificates::new(certificates);
        let forwarded_for = Peer::new(peer);
        let upgraded = AtomicBool::new(false);
        Connection { number, peer, forwarded_for, sequence, certificates, upgraded }
    }

    /// Whether it has become another protocol's.
    pub fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// Answers one request.
pub async fn handle(
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    request: Request<ClientBody>,
) -> Response<ResponseBody> {
    // The record, which lives inside, has written its `Panic` event when a panic arrives here.
    match AssertUnwindSafe(answer(&proxy, &connection, request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => panicked(),
    }
}

async fn answer(
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
    let facts = RequestFacts {
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
    let refused = Unadmitted { unresolved, invalid_timeout, is_preflight };
    let mut response = match admit(proxy, connection, &parts, facts, refused).await {
        Ok((record, caller)) => {
            // Before the request is taken apart: this takes its upgrade from it.
            let upgrade = upgrade::asked(&mut parts);
            let is_long_running = record.is_long_running();
            let deadline =
                proxy.filters.deadline(connection.number, started, is_long_running, timeout);
            forward(proxy, connection, deadline, (parts, body), record, caller, upgrade).await
        }
        Err(refused) => refused,
    };
    // Answers of an upgraded connection come from elsewhere and carry no ID of ours.
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(AUDIT_ID_ANSWER, id);
        if let Some(origin) = origin
            && response.extensions().get::<OutsideCors>().is_none()
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

/// Why a request is not forwarded, as far as its head shows.
struct Unadmitted {
    unresolved: Option<InfoError>,
    invalid_timeout: Option<String>,
    is_preflight: bool,
}

/// Everything up to the first event: who it is, how much is recorded, and whether that works.
async fn admit(
    proxy: &Proxy,
    connection: &Connection,
    parts: &Parts,
    facts: RequestFacts,
    unadmitted: Unadmitted,
) -> Result<(Box<Record>, Authenticated), Response<ResponseBody>> {
    let begin = |facts: RequestFacts, user: Option<&Authenticated>| {
        let user = user.map(|caller| caller.user.clone());
        let mut record = Record::begin(proxy.recorder.clone(), facts, user);
        record.on_connection(connection.number, &connection.sequence);
        record
    };
    let Unadmitted { unresolved, invalid_timeout, is_preflight } = unadmitted;
    if let Some(message) = invalid_timeout {
        let status = Status::bad_request(message);
        let shown = shown(&facts, &status, || status.message.clone());
        let mut refused = refuse_unauthenticated(begin(facts, None), &status, shown).await;
        refused.extensions_mut().insert(OutsideCors);
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
                authn::attempted(&parts.headers, facts.target.query(), certificates.is_some())
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

/// Sends a request for an upgrade, after the recording of its session has started.
///
/// # Errors
/// The response, if the session must be recorded and cannot be.
async fn open_upgrade(
    proxy: &Proxy,
    connection: &Connection,
    asked: &mut upgrade::Asked,
    request: Request<RequestBody>,
    record: &mut Record,
    user: &User,
) -> Result<Result<Response<UpstreamBody>, SendError>, Box<Status>> {
    let request = asked.requested_in(request);
    if let Some(recorder) = &proxy.sessions {
        asked.session = session::begin(recorder, record, user, request.headers()).await?;
    }
    Ok(proxy.upstream.upgrade(request, &connection.sequence).await)
}

/// Everything from the decision to send the request on.
async fn forward(
    proxy: &Proxy,
    connection: &Connection,
    deadline: Option<Deadline>,
    (parts, body): (Parts, ClientBody),
    mut record: Box<Record>,
    caller: Authenticated,
    mut upgrade: Option<Box<upgrade::Asked>>,
) -> Response<ResponseBody> {
    let (parts, (is_head, pretty), is_safe) = response_form(parts, &record);
    let by = deadline.as_ref();
    let request = {
        let making = outgoing(proxy, connection, parts, body, &mut record, &caller, by);
        race(by, std::pin::pin!(making)).await
    };
    // One await for all refusals: a request that is there in several of them would not share its
    // memory with what comes later.
    let request = match request.unwrap_or_else(|expired| Err(expired.into())) {
        Ok(request) => request,
        Err(refused) => return refused.respond(proxy, record).await,
    };
    let review = proxy.authorization.as_ref().and_then(|reviews| {
        let (facts, user) = (record.facts(), record.effective_user()?);
        Some(reviews.start(user, &facts.info, facts.target.query()))
    });
    let sent = match &mut upgrade {
        Some(asked) => {
            let user = &caller.user;
            let mut opening =
                Box::pin(open_upgrade(proxy, connection, asked, request, &mut record, user));
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
            Some(asked) => {
                if let Err(why) = asked.negotiated(answer.headers())
                    && let Some(recorder) = &proxy.sessions
                {
                    let status = session::refused(recorder, &mut record, &why);
                    let mut response = refuse(record, *status).await;
                    close_after(&mut response, true);
                    return response;
                }
                connection.upgraded.store(true, Ordering::Relaxed);
                Box::pin(upgrade::switch(&proxy.long_running, *asked, answer, record)).await
            }
            None => {
                let message = "the API server switched protocols unasked";
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

/// Why a request is not sent to the API server.
enum Refused {
    /// This is the response.
    Status(Box<Status>),
    /// Too many are in flight.
    TooManyRequests,
    /// Its deadline has passed.
    Expired,
}

impl Refused {
    fn respond(
        self,
        proxy: &Proxy,
        record: Box<Record>,
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
    record: Box<Record>,
    outcome_unknown: bool,
) -> BoxFuture<'static, Response<ResponseBody>> {
    proxy.filters.metrics.timeouts.inc();
    timed_out(record, outcome_unknown)
}

/// What ends the response to a request.
fn ends(proxy: &Proxy, record: &Record, deadline: Option<Deadline>) -> Ends {
    let RequestFacts { info, target, .. } = record.facts();
    let watch_timeout = proxy.filters.watch_timeout(info, target.query());
    Ends { process: proxy.long_running.ending.clone(), watch_timeout, deadline }
}

/// Whether the client expects no body, whether it wants a readable one, and whether the method is
/// safe. `parts` are handed through: borrowed by the caller, they would stay in its future until
/// the response.
fn response_form(parts: Parts, record: &Record) -> (Parts, (bool, bool), bool) {
    let is_safe = parts.method.is_safe();
    let is_head = parts.method == Method::HEAD;
    let pretty = record
        .facts()
        .accept
        .is_some_and(|accepted| accepted.pretty || wants_pretty(parts.uri.query(), &parts.headers));
    (parts, (is_head, pretty), is_safe)
}

/// A 401 is either about the client, or about the proxy's own credentials.
async fn unauthorized(
    proxy: &Proxy,
    answer: Response<UpstreamBody>,
    record: Box<Record>,
    (is_head, pretty): (bool, bool),
    ends: Ends,
    was_upgrade: bool,
) -> Response<ResponseBody> {
    if answer.extensions().get::<CredentialRenewed>().is_some() {
        let message = "the proxy's own credential expired while this request was under way; the API server did not process it, send it again";
        return refuse(record, Status::service_unavailable(message)).await;
    }
    if credentials::are_rejected(proxy, record.facts()).await {
        return access_denied(record, Access::Forward, Denial::Unauthorized).await;
    }
    let mut response = response::relay(answer, record, (is_head, pretty), ends).await;
    close_after(&mut response, was_upgrade);
    response
}

/// Closes the client's connection after the response if an upgrade was requested: what the client
/// sends next may belong to the other protocol.
fn close_after(response: &mut Response<ResponseBody>, was_upgrade: bool) {
    if was_upgrade {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

/// The request as the API server gets it: what the client may not bring taken off, who it is put
/// on. The raw target stays.
///
/// # Errors
/// The answer to give instead.
async fn outgoing(
    proxy: &Proxy,
    connection: &Connection,
    parts: Parts,
    body: ClientBody,
    record: &mut Record,
    caller: &Authenticated,
    deadline: Option<&Deadline>,
) -> Result<Request<RequestBody>, Refused> {
    let Parts { method, mut headers, .. } = parts;
    let found = headers::strip(&mut headers)?;
    let done_as = if found.impersonation {
        let asked = impersonation::wanted(&headers);
        Box::pin(impersonate(proxy, &connection.sequence, asked, record, caller)).await?
    } else {
        None
    };

    proxy.authenticator.remove_front_proxy_headers(&mut headers);
    if found.websocket_protocol && proxy.identity != Identity::PassThrough {
        authn::websocket::remove_token(&mut headers);
    }
    proxy.trusted_proxies.forward(&mut headers, &connection.forwarded_for);
    headers.insert(AUDIT_ID, record.facts().audit_id.clone());
    if proxy.identity == Identity::PassThrough {
        let message = match caller.method {
            authn::Method::Certificate => {
                "this proxy passes bearer tokens on, and cannot pass on a client certificate; present a token, and no certificate"
            }
            authn::Method::FrontProxy => {
                "this proxy passes bearer tokens on, and cannot pass on what a front proxy says of the user; have the token passed on, and no front-proxy certificate presented"
            }
            authn::Method::Token | authn::Method::Anonymous => "",
        };
        if !message.is_empty() {
            return Err(Box::new(Status::forbidden(message, None)).into());
        }
    }
    let done_as = done_as.map(User::from);
    let user = done_as.as_ref().unwrap_or(&caller.user);
    if let (Some(limits), Some(deadline)) = (proxy.filters.limits(), deadline) {
        let permit = Box::pin(limits.acquire(record.facts().info.verb(), user)).await?;
        deadline.hold(permit);
    }
    let OwnCredential { header: own, generation } = match proxy.upstream.credential() {
        Some(own) => own,
        None if proxy.identity == Identity::PassThrough => OwnCredential::default(),
        // Rare, and too large to be a part of every request's future.
        None => Box::pin(credentials::wait_for_own(proxy, record)).await?,
    };
    // A client's own token cannot be renewed.
    let generation = generation.filter(|_| proxy.identity != Identity::PassThrough);
    let stamped = proxy.identity.stamp(&mut headers, user, own);
    let stamped = stamped.and_then(|()| match &proxy.original_user_extra {
        Some(extra) => extra.stamp(&mut headers, &caller.user),
        None => Ok(()),
    });
    stamped.map_err(|error| {
        tracing::warn!(%error, "a request was not sent because its user cannot be named upstream");
        Box::new(Status::bad_request(format!("the request was not sent: {error}")))
    })?;

    let body = if body.is_end_stream() {
        RequestBody::EMPTY
    } else {
        let tap = record.tap_request(&headers);
        match tap {
            Some(tap) if record.refuses_ambiguous() => {
                Box::pin(hold::hold(record, &headers, body, tap)).await?
            }
            tap => RequestBody::Client { body, tap },
        }
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = record.facts().target.clone().into();
    *request.headers_mut() = headers;
    credentials::mark(&mut request, generation, &record.facts().info);
    Ok(request)
}

/// Authorizes the client's impersonation if this proxy is responsible for that; returns the
/// impersonated user.
async fn impersonate(
    proxy: &Proxy,
    sequence: &CommitSequence,
    asked: Result<Option<Wanted>, WantedError>,
    record: &mut Record,
    caller: &Authenticated,
) -> Result<Option<authn::UserInfo>, Box<Status>> {
    let judges = proxy.identity == Identity::Impersonate;
    let wanted = match asked {
        Ok(None) => return Ok(None),
        Ok(Some(wanted)) => wanted,
        Err(error) => {
            let rules = if judges { proxy.reviewer.rules().await? } else { Rules::Constrained };
            return Err(Box::new(error.status(rules)));
        }
    };
    if !judges {
        record.impersonation_asked(wanted.into_user());
        return Ok(None);
    }
    if let Some(extra) = &proxy.original_user_extra
        && wanted.as_asked().extra.contains_key(extra.key())
    {
        let key = extra.key();
        let message = format!(
            "impersonating the extra {key:?} is not allowed: this proxy sets it to the original user"
        );
        return Err(Box::new(Status::forbidden(message, None)));
    }
    // The API server is not asked about a request whose event is not committed.
    sequence.committed().await;
    let facts = record.facts();
    let request = RequestAttributes::new(&facts.info, facts.target.query());
    let granted = match proxy.reviewer.authorize(&caller.user, wanted, &request).await {
        Ok(granted) => granted,
        Err(refusal) => {
            if let Refusal::Denied(denial) = refusal {
                record.access_denied(denial.message(Access::SubjectAccessReview));
            }
            return Err(refusal.into());
        }
    };
    let user = granted.user.clone();
    record.impersonation_granted(granted);
    Ok(Some(user))
}

/// The status in the only event of an unauthenticated request. If kube-apiserver could not satisfy
/// the client's `Accept`, it has a `reason` instead.
fn shown(facts: &RequestFacts, status: &Status, reason: impl FnOnce() -> String) -> Status {
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

    // It is copied when it becomes a task, and each request that waits keeps one in memory.
    #[test]
    fn a_request_is_small() {
        let size = size_of_future(handle);
        assert!(size <= 5 << 10, "{size} bytes");
    }
}
