//! Forwards requests to the API server and returns its responses.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use api_client::ApiClient;
use api_client::access::OwnAccess;
use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::client::conn::TrySendError;
use tokio::time::{MissedTickBehavior, interval_at};

use super::current::{Inner, Now, Shared};
use super::error::SendError;
use super::http1::Http1Lease;
use super::http1_many_headers;
use super::http2::Http2Lease;
use super::http2_request::{self, SendFailure};
use super::metrics::UpstreamMetrics;
use super::pool::{Lease, Pool};
use super::renewal::Renewable;
use super::request_body::{BodySource, Outgoing};
use super::response_body::UpstreamBody;
use super::{ConfigError, UpstreamConfig};
use crate::body::RequestBody;
use audit_log::CommitSequence;

/// Maximum number of attempts at a request while the API server reports that it did not process it.
pub(super) const MAX_ATTEMPTS: u8 = 4;
/// Maximum number of connections that may turn out to be closed before anything of the request is
/// written. A server that shuts down closes all of them, and each is only detected by its next
/// request.
pub(super) const MAX_CLOSED: u8 = 64;
/// Delay before the third attempt at a request; doubled for the fourth.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Interval at which unused connections are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The API server. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Shared>);

impl Upstream {
    /// Prepares connections to the API server, without connecting yet. Must be called within a
    /// tokio runtime, where a task reloads changed files and closes unused connections until the
    /// last clone is dropped.
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used, with file and field.
    pub fn new(
        config: UpstreamConfig,
        metrics: Arc<UpstreamMetrics>,
    ) -> Result<Upstream, ConfigError> {
        let shared = Arc::new(Shared::new(config, metrics)?);
        tokio::spawn(sweep_regularly(Arc::downgrade(&shared)));
        Ok(Upstream(shared))
    }

    /// Returns the client for the proxy's own requests to the API server.
    pub fn api(&self) -> &ApiClient {
        &self.0.api
    }

    /// Returns the state of the proxy's own access to the API server.
    pub fn access(&self) -> &OwnAccess {
        &self.0.access
    }

    /// Returns the settings and connections for a request that starts now.
    pub(super) fn now(&self) -> Now<'_> {
        self.0.now()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Returns the host and port of the API server, as written in the configuration.
    pub fn authority(&self) -> Arc<str> {
        self.now().endpoints().name()
    }

    /// Returns the metrics of its connections.
    pub fn metrics(&self) -> &UpstreamMetrics {
        self.0.metrics()
    }

    /// Checks that there is a connection; opens one if there is none.
    ///
    /// # Errors
    /// Returns why no connection can be opened.
    pub async fn check(&self) -> Result<(), SendError> {
        let later = self.0.later();
        let inner = self.0.inner(&later);
        match inner.endpoints().is_balanced() {
            true => inner.balancer.check().await,
            false => inner.pool.check().await,
        }
    }

    /// Forwards a client's request and returns the response when its head has arrived. The request
    /// is sent on a connection of the worker that serves the client, which has this sequence: no
    /// byte is sent before all events are committed that this sequence accepted earlier.
    ///
    /// Path and query are sent unchanged. The headers must be ready to be sent, without hop-by-hop
    /// ones; `Host` is set here and nothing else is added. The caller must have refused `CONNECT`.
    /// Redirects are returned like other responses. Interim responses (1xx) are discarded. There is
    /// no timeout: dropping the future resets the stream.
    ///
    /// # Errors
    /// Returns an error if there was no response. A request that was certainly not processed has
    /// then been sent several times, and a `GET`, `HEAD` or `OPTIONS` whose connection broke twice,
    /// as long as its body was still available.
    pub fn forward(
        &self,
        request: Request<RequestBody>,
        sequence: &CommitSequence,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, SendError>> + Send {
        let is_safe = is_safe(request.method());
        self.try_send(request, is_safe, sequence)
    }

    /// Sends a request, repeatedly if necessary. `is_safe` means that processing the request twice
    /// has no effect twice.
    async fn try_send(
        &self,
        request: Request<RequestBody>,
        is_safe: bool,
        sequence: &CommitSequence,
    ) -> Result<Response<UpstreamBody>, SendError> {
        // No reference to the pool in addition: that would make each request's future larger.
        let later = self.0.later();
        if self.0.inner(&later).endpoints().is_balanced() {
            // Too large to be a part of every request's future.
            return Box::pin(self.forward_balanced(later, request, is_safe, sequence)).await;
        }
        let mut renewable = Renewable::of(&request);
        let (mut head, body) = self.0.pool(&later).outgoing(request);
        let body = BodySource::new(body);
        let (mut attempt, mut closed): (u8, u8) = (1, 0);
        // When the connection was lost, either with the request in flight or while it was being
        // opened.
        let mut lost: Option<Instant> = None;
        loop {
            // Rare, and too large to be a part of every request's future.
            let lease = match self.0.pool(&later).existing_unless(lost, sequence) {
                Some(lease) => lease,
                None => Box::pin(lease(self.0.pool(&later), &mut lost, sequence))
                    .await
                    .map_err(|error| self.counted(error))?,
            };
            let Some(outgoing) = body.attempt() else {
                // Only possible if the client aborted its body before anything was sent.
                return Err(self.counted(SendError::BodyFromClient));
            };
            let last = attempt == MAX_ATTEMPTS;
            let http2 = matches!(lease, Lease::Http2(_));
            let request = match last {
                true => std::mem::take(&mut head).request(http2, outgoing, self.0.pool(&later)),
                false => head.clone().request(http2, outgoing, self.0.pool(&later)),
            };
            let sent = match lease {
                Lease::Http2(stream) => {
                    send_http2(self.0.pool(&later), stream, request, &body).await
                }
                Lease::Http1(connection) => send_http1(connection, request, &body).await,
            };
            match sent {
                Ok(mut response) => {
                    if response.status() == StatusCode::UNAUTHORIZED
                        && let Some(rejected) = &mut renewable
                    {
                        let can_repeat = !last && body.can_repeat();
                        let renewing = self.renew(rejected, &mut head, &mut response, can_repeat);
                        if Box::pin(renewing).await {
                            continue;
                        }
                    }
                    body.settle();
                    return Ok(response);
                }
                Err(Failed { error, unsent, is_lost }) => {
                    let not_processed = matches!(error, SendError::NotProcessed { .. });
                    let is_repeatable = is_lost && is_safe && lost.is_none();
                    let is_over = last || closed == MAX_CLOSED || !body.can_repeat();
                    if is_over || !(not_processed || is_repeatable) {
                        return Err(self.counted(error));
                    }
                    tracing::debug!(%error, "sending a request again");
                    if !not_processed {
                        lost = Some(Instant::now());
                        continue;
                    }
                    if unsent {
                        closed += 1;
                        continue;
                    }
                }
            }
            if attempt > 1 {
                tokio::time::sleep(RETRY_PAUSE * u32::from(attempt - 1)).await;
            }
            attempt += 1;
        }
    }

    /// Closes unused connections.
    #[cfg(test)]
    pub(super) fn sweep(&self) {
        self.now().sweep();
    }

    /// Counts an error, unless the client caused it.
    pub(super) fn counted(&self, error: SendError) -> SendError {
        if !error.is_clients_fault() {
            self.metrics().errors.inc();
        }
        error
    }
}

/// Returns whether processing a request with this method twice has no effect twice.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Upstream").field(&self.authority()).finish()
    }
}

impl Pool {
    /// Splits `request` into head and body; its target gets the path prefix of the API server's
    /// URL.
    pub(super) fn outgoing(&self, request: Request<RequestBody>) -> (Head, RequestBody) {
        let (head, body) = Head::of(request);
        (head.with_prefix(self), body)
    }
}

/// A request without its body.
#[derive(Clone)]
pub(super) struct Head {
    method: Method,
    target: PathAndQuery,
    pub(super) headers: HeaderMap,
}

impl Default for Head {
    fn default() -> Head {
        let target = PathAndQuery::from_static("/");
        Head { method: Method::GET, target, headers: HeaderMap::new() }
    }
}

impl Head {
    /// Splits `request` into head and body.
    pub(super) fn of(request: Request<RequestBody>) -> (Head, RequestBody) {
        let (parts, body) = request.into_parts();
        let target = parts.uri.into_parts().path_and_query;
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        (Head { method: parts.method, target, headers: parts.headers }, body)
    }

    /// Adds the path prefix of the server's URL, if it has one.
    pub(super) fn with_prefix(mut self, pool: &Pool) -> Head {
        let prefix = &pool.connector.target.endpoint.path_prefix;
        if !prefix.is_empty() && self.target.as_str().starts_with('/') {
            let target = Bytes::from(format!("{prefix}{}", self.target));
            self.target =
                PathAndQuery::from_maybe_shared(target).expect("a path after a path is a path");
        }
        self
    }

    /// Returns the request for `h2` or hyper: HTTP/2 has the authority in the URI, HTTP/1.1 in
    /// `Host`.
    pub(super) fn request(mut self, http2: bool, body: Outgoing, pool: &Pool) -> Request<Outgoing> {
        let endpoint = &pool.connector.target.endpoint;
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.target);
        if http2 {
            uri.scheme = Some(Scheme::HTTPS);
            uri.authority = Some(endpoint.authority.clone());
            self.headers.remove(HOST);
        } else {
            self.headers.insert(HOST, endpoint.host_header.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() =
            Uri::from_parts(uri).expect("scheme and authority are both there, or neither");
        *request.headers_mut() = self.headers;
        request
    }
}

/// Why a request got no response on one connection.
pub(super) struct Failed {
    pub(super) error: SendError,
    /// The connection was closed before a byte of the request was written.
    pub(super) unsent: bool,
    /// The connection broke or no longer responded, and there was no response.
    pub(super) is_lost: bool,
}

/// Leases a place for a request; on a new connection if one was `lost` with the request in flight.
/// A connection that is lost before it could accept a request is replaced once.
async fn lease(
    pool: &Pool,
    lost: &mut Option<Instant>,
    sequence: &CommitSequence,
) -> Result<Lease, SendError> {
    let leased = match *lost {
        None => pool.lease(sequence).await,
        Some(at) => return pool.lease_newer(at, sequence).await,
    };
    match leased {
        Err(SendError::NotProcessed { .. }) => {
            let now = Instant::now();
            *lost = Some(now);
            pool.lease_newer(now, sequence).await
        }
        leased => leased,
    }
}

pub(super) async fn send_http2(
    pool: &Pool,
    stream: Http2Lease,
    request: Request<Outgoing>,
    body: &BodySource,
) -> Result<Response<UpstreamBody>, Failed> {
    let SendFailure { error, unsent, stream } = match http2_request::send(stream, request).await {
        Ok(response) => return Ok(response.map(UpstreamBody::http2)),
        Err(failed) => failed,
    };
    let connection = stream.connection();
    let leaving = is_go_away(&error);
    if unsent || leaving {
        pool.retire(connection);
    }
    let is_lost = !error.is_reset() && !body.failed();
    let error = if body.failed() {
        SendError::BodyFromClient
    } else if unsent || leaving || is_refused(&error) {
        SendError::NotProcessed { source: Arc::new(error.into()) }
    } else if connection.is_silent() {
        let waiting_for = "the API server to respond to a PING";
        SendError::Timeout { waiting_for, sent: true }
    } else if is_unreadable(&error) {
        SendError::Unreadable { source: Arc::new(error.into()) }
    } else {
        SendError::Interrupted { source: Arc::new(error.into()) }
    };
    Err(Failed { error, unsent, is_lost })
}

pub(super) async fn send_http1(
    mut connection: Http1Lease,
    request: Request<Outgoing>,
    body: &BodySource,
) -> Result<Response<UpstreamBody>, Failed> {
    let method = request.method().clone();
    match connection.sender.try_send_request(request).await {
        Ok(response) => Ok(response.map(|b| UpstreamBody::http1(b, Some(connection)))),
        Err(failed) => Box::pin(explain_http1(connection, method, failed, body)).await,
    }
}

/// Returns the error for hyper's failure, or the response if it has too many header lines for
/// hyper.
async fn explain_http1(
    connection: Http1Lease,
    method: Method,
    mut failed: TrySendError<Request<Outgoing>>,
    body: &BodySource,
) -> Result<Response<UpstreamBody>, Failed> {
    let unsent = failed.take_message().is_some();
    let mut error = failed.into_error();
    if error.is_parse_too_large() && !unsent {
        match http1_many_headers::parse(connection, method).await {
            Some(Ok(response)) => return Ok(response.map(|b| UpstreamBody::http1(b, None))),
            Some(Err(again)) => error = again,
            None => {}
        }
    }
    let is_lost = !unsent && !body.failed() && !error.is_parse();
    Err(Failed { error: classify_http1(error, unsent, body), unsent, is_lost })
}

/// Returns the error for a failure of hyper: its cause, and whether the API server may have
/// received the request. `unsent` means that hyper returned the request, so that no byte of it was
/// written.
pub(super) fn classify_http1(error: hyper::Error, unsent: bool, body: &BodySource) -> SendError {
    let is_unreadable = error.is_parse();
    let source = Arc::new(error.into());
    match unsent {
        _ if body.failed() => SendError::BodyFromClient,
        true => SendError::NotProcessed { source },
        false if is_unreadable => SendError::Unreadable { source },
        false => SendError::Interrupted { source },
    }
}

/// Returns whether h2 reset the stream because of the API server's response.
fn is_unreadable(error: &h2::Error) -> bool {
    error.is_reset() && error.is_library()
}

/// Returns whether the server's GOAWAY ended the stream. h2 does so only if the stream's number is
/// above the last one that the server will process (RFC 9113, 6.8); streams below continue, and end
/// with an I/O error at worst.
fn is_go_away(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote()
}

/// Returns whether the stream was refused without application processing (RFC 9113, 8.7).
fn is_refused(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// Closes unused connections until the upstream is dropped.
async fn sweep_regularly(shared: Weak<Shared>) {
    let mut interval = interval_at((Instant::now() + SWEEP_INTERVAL).into(), SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        shared.now().sweep();
    }
}

impl Inner {
    fn sweep(&self) {
        self.pool.sweep();
        self.balancer.sweep();
    }
}
