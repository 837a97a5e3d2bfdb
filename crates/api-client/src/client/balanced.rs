//! Requests of the proxy's own to an API server with several addresses.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::{HttpPool, RequestError, RequestErrorKind, url};
use crate::endpoint_set::{EndpointSet, Failure, Member};
use crate::target::Target;

/// The time after which a request that has no response is also sent to the next member, if it can
/// safely be sent twice.
const NEXT_AFTER: Duration = Duration::from_millis(300);

/// The connections to one member.
pub(crate) struct MemberClient {
    target: Arc<Target>,
    http: HttpPool,
    runtime: Handle,
}

/// Why a probe has no response.
pub(crate) enum ProbeError {
    TimedOut,
    Failed(String),
}

impl MemberClient {
    pub(crate) fn new(
        target: Arc<Target>,
        address: Option<SocketAddr>,
        runtime: &Handle,
    ) -> MemberClient {
        let http = HttpPool::new(Arc::clone(&target), address, runtime);
        MemberClient { target, http, runtime: runtime.clone() }
    }

    /// Returns the status of the response to `request` for `path`. If there is none in time, the
    /// connections are dropped, so that the next probe opens another one.
    pub(crate) async fn probe(
        &self,
        path: &str,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<StatusCode, ProbeError> {
        let probing = async {
            let failed = |error: RequestError| ProbeError::Failed(error.to_string());
            let mut request = request.map(Full::new);
            *request.uri_mut() = url(&self.target, path).map_err(failed)?;
            if let Some(header) = self.target.credential().and_then(|own| own.header) {
                request.headers_mut().insert(http::header::AUTHORIZATION, header);
            }
            match self.http.client(&self.runtime).request(request).await {
                Ok(response) => Ok(response.status()),
                Err(error) => Err(ProbeError::Failed(innermost(&error))),
            }
        };
        match tokio::time::timeout(timeout, probing).await {
            Ok(Err(error)) => {
                self.http.reset(&self.runtime);
                Err(error)
            }
            Ok(result) => result,
            Err(_) => {
                self.http.reset(&self.runtime);
                Err(ProbeError::TimedOut)
            }
        }
    }
}

fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Sends the request that `build` makes for a server to the best member, then to the next ones
/// until there is a response: if the connection fails, and, if the request may be sent twice, also
/// if it is lost or no response comes.
pub(super) async fn send(
    set: &EndpointSet,
    build: &(impl Fn(&Target) -> Result<Request<Full<Bytes>>, RequestError> + Sync),
    may_repeat: bool,
) -> Result<Response<Incoming>, RequestError> {
    let mut members = set.in_order().into_iter();
    let mut running = FuturesUnordered::new();
    let mut first_error = None;
    let mut next_at = Instant::now();
    loop {
        if (running.is_empty() || may_repeat && next_at <= Instant::now())
            && let Some(member) = members.next()
        {
            running.push(send_to(member, build));
            next_at = Instant::now() + NEXT_AFTER;
        }
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some(Ok(response)) => return Ok(response),
                Some(Err(error)) => {
                    let is_final = !may_repeat && !error.is_connect();
                    let error = first_error.get_or_insert(error);
                    if is_final {
                        return Err(error.clone());
                    }
                    next_at = Instant::now();
                }
                None => {
                    return Err(first_error.unwrap_or_else(|| no_member(set)));
                }
            },
            () = tokio::time::sleep_until(next_at), if may_repeat && members.len() > 0 => {}
        }
    }
}

async fn send_to(
    member: Arc<Member>,
    build: &(impl Fn(&Target) -> Result<Request<Full<Bytes>>, RequestError> + Sync),
) -> Result<Response<Incoming>, RequestError> {
    let request = build(member.target())?;
    let client = member.client.http.client(&member.client.runtime);
    let _in_flight = member.start_request();
    let awaiting = member.await_response();
    let sent = client.request(request).await;
    sent.inspect(|_| awaiting.answered()).map_err(|error| {
        let is_connect = error.is_connect();
        member.failed(if is_connect { Failure::Connect } else { Failure::ConnectionLost });
        match is_connect {
            true => RequestError::connect(member.name(), &error),
            false => RequestError::interrupted(member.name(), &error),
        }
    })
}

fn no_member(set: &EndpointSet) -> RequestError {
    let (name, path) = (set.name(), "/".into());
    RequestError::new(&name, RequestErrorKind::Url { url: path, reason: "has no address" })
}
