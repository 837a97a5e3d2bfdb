//! The HTTP client of control-plane calls, on hyper-util's pooled client and `hyper-rustls`.
//!
//! [`ApiClient`] is one server. Connections are opened and driven on the runtime on which the
//! client was created, whichever thread sends a request.

mod balanced;
mod connect;
mod error;
mod http_pool;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tower_service::Service;

pub(crate) use self::balanced::{MemberClient, ProbeError};
use self::connect::Connector;
pub use self::error::{RequestError, RequestErrorKind};
use self::http_pool::HttpPool;
use crate::config::ClientConfig;
use crate::endpoint_set::EndpointSet;
use crate::error::ConfigError;
use crate::files::FollowedFiles;
use crate::risks;
use crate::target::Target;

/// The largest response that [`ApiClient::request`] accepts, in bytes.
pub const MAX_RESPONSE: usize = 1 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub struct ApiClient(Arc<Shared>);

struct Shared {
    /// The name of the server in warnings, such as "the audit webhook".
    peer: &'static str,
    runtime: Handle,
    active: ArcSwap<Active>,
}

/// The settings in use, and the connections made with them.
struct Active {
    target: Arc<Target>,
    /// The path of a webhook's URL, which is the target of its requests.
    path: Arc<str>,
    http: HttpPool,
    /// The addresses of the API server; `None` for other servers.
    endpoints: Option<Arc<EndpointSet>>,
    /// The token and certificate files; `None` if the creator of the target follows them.
    files: Option<FollowedFiles>,
}

/// A request that may be sent twice: the response to the first attempt may have been lost.
#[derive(Debug, Clone)]
pub struct ApiRequest<'a> {
    /// `GET` or `POST`.
    pub method: Method,
    /// The path, with a query if there is one; the prefix of the server's URL is put before it. Or
    /// the URL of another server that the same CAs are trusted for.
    pub path: &'a str,
    /// Headers other than `Authorization`.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// The time until the whole response must have arrived.
    pub timeout: Duration,
}

impl<'a> ApiRequest<'a> {
    /// The time until the whole response must have arrived, unless another one is set.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// Returns a `GET` of JSON.
    pub fn get(path: &'a str) -> ApiRequest<'a> {
        let headers = HeaderMap::from_iter([(ACCEPT, JSON)]);
        let (method, body) = (Method::GET, Bytes::new());
        ApiRequest { method, path, headers, body, timeout: ApiRequest::TIMEOUT }
    }

    /// Returns a `POST` of JSON.
    pub fn post(path: &'a str, body: Bytes) -> ApiRequest<'a> {
        let headers = HeaderMap::from_iter([(ACCEPT, JSON), (CONTENT_TYPE, JSON)]);
        ApiRequest { method: Method::POST, path, headers, body, timeout: ApiRequest::TIMEOUT }
    }
}

/// A reference that does not keep the client alive.
#[derive(Clone)]
pub(crate) struct WeakApiClient(Weak<Shared>);

impl WeakApiClient {
    pub(crate) fn upgrade(&self) -> Option<ApiClient> {
        self.0.upgrade().map(ApiClient)
    }
}

impl Active {
    fn new(target: Arc<Target>, path: Arc<str>, runtime: &Handle) -> Active {
        target.start();
        let http = HttpPool::new(Arc::clone(&target), None, runtime);
        Active { target, path, http, endpoints: None, files: None }
    }

    /// Follows the files of a webhook, too.
    fn of_webhook(target: Arc<Target>, path: Arc<str>, runtime: &Handle) -> Active {
        // The pool has new connections made after certificates have changed.
        let files = target.follow(runtime, || {});
        Active { files: Some(files), ..Active::new(target, path, runtime) }
    }

    fn of_endpoints(endpoints: Arc<EndpointSet>, runtime: &Handle) -> Active {
        let active = Active::new(Arc::clone(endpoints.target()), "/".into(), runtime);
        Active { endpoints: Some(endpoints), ..active }
    }

    /// Host and port of the server.
    fn name(&self) -> Arc<str> {
        match &self.endpoints {
            Some(endpoints) => endpoints.name(),
            None => Arc::clone(&self.target.name),
        }
    }
}

impl ApiClient {
    /// Creates a client of a webhook, without connecting yet, and follows the files that `config`
    /// names. The path of the URL is not put before paths; it is the path ([`ApiClient::path`]).
    /// Warnings call the server `peer`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used, with file and field.
    pub fn new(config: ClientConfig, peer: &'static str) -> Result<ApiClient, ConfigError> {
        let (target, path) = webhook_target(config, peer)?;
        let runtime = Handle::current();
        let active = Active::of_webhook(target, path, &runtime);
        Ok(ApiClient::create(active, runtime, peer))
    }

    /// Creates a client of a server whose files the caller follows ([`Target::follow`]). Must be
    /// called within a tokio runtime.
    pub fn over(target: Arc<Target>, peer: &'static str) -> ApiClient {
        let runtime = Handle::current();
        ApiClient::create(Active::new(target, "/".into(), &runtime), runtime, peer)
    }

    /// Creates a client of an API server that may have several addresses. The caller follows its
    /// files. Must be called within a tokio runtime.
    pub fn over_endpoints(endpoints: Arc<EndpointSet>, peer: &'static str) -> ApiClient {
        let runtime = Handle::current();
        ApiClient::create(Active::of_endpoints(endpoints, &runtime), runtime, peer)
    }

    fn create(active: Active, runtime: Handle, peer: &'static str) -> ApiClient {
        ApiClient(Arc::new(Shared { peer, runtime, active: ArcSwap::from_pointee(active) }))
    }

    /// Replaces a webhook's address, certificates and credentials. Requests under way finish on the
    /// connections that they have.
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used, with file and field. The
    /// former settings stay active.
    pub fn replace(&self, mut config: ClientConfig) -> Result<(), ConfigError> {
        if let Some(plugin) = self.target().plugin() {
            config.adopt_plugin(plugin);
        }
        let (target, path) = webhook_target(config, self.0.peer)?;
        self.0.active.store(Arc::new(Active::of_webhook(target, path, &self.0.runtime)));
        Ok(())
    }

    /// Replaces the API server of [`ApiClient::over_endpoints`].
    pub fn replace_endpoints(&self, endpoints: Arc<EndpointSet>) {
        self.0.active.store(Arc::new(Active::of_endpoints(endpoints, &self.0.runtime)));
    }

    /// Returns the server.
    pub fn target(&self) -> Arc<Target> {
        Arc::clone(&self.0.active.load().target)
    }

    /// Host and port of the server.
    pub fn authority(&self) -> Arc<str> {
        self.0.active.load().name()
    }

    /// Returns the path of a webhook's URL, `/` if it has none.
    pub fn path(&self) -> Arc<str> {
        Arc::clone(&self.0.active.load().path)
    }

    /// Has the token and certificate files of a webhook reloaded now.
    pub fn refresh(&self) {
        if let Some(files) = &self.0.active.load().files {
            files.reload();
        }
    }

    pub(crate) fn downgrade(&self) -> WeakApiClient {
        WeakApiClient(Arc::downgrade(&self.0))
    }

    /// Opens a connection and closes it.
    ///
    /// # Errors
    /// If no connection can be opened.
    pub async fn check(&self) -> Result<(), RequestError> {
        let target = self.target();
        let peer = Arc::clone(&target.name);
        let url = url(&target, "/")?;
        let mut connector = Connector { target, address: None, runtime: self.0.runtime.clone() };
        match connector.call(url).await {
            Ok(_) => Ok(()),
            Err(error) => Err(RequestError::connect(&peer, &*error)),
        }
    }

    /// Sends a request once and returns the response when its head has arrived. `Authorization` is
    /// added, and the path is sent as it is. A request is repeated only if the server has certainly
    /// not processed it: on a connection that was closed already, or with a renewed credential.
    /// Redirects are not followed.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, RequestError> {
        self.send_by(request, true, false).await
    }

    async fn send_by(
        &self,
        request: Request<Bytes>,
        may_renew: bool,
        may_repeat: bool,
    ) -> Result<Response<Incoming>, RequestError> {
        let active = self.0.active.load_full();
        let peer = &active.target.name;
        let of_credential = |error| RequestError::new(peer, RequestErrorKind::Credential(error));
        let (parts, body) = request.into_parts();
        let build = |header: Option<HeaderValue>, target: &Target| {
            let url = match parts.uri.scheme() {
                // A server whose certificate the same CAs may have signed.
                Some(_) => parts.uri.clone(),
                None => {
                    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
                    url(target, path)?
                }
            };
            let mut request = Request::new(Full::new(body.clone()));
            request.method_mut().clone_from(&parts.method);
            request.headers_mut().clone_from(&parts.headers);
            *request.uri_mut() = url;
            if let Some(header) = header {
                request.headers_mut().insert(AUTHORIZATION, header);
            }
            Ok(request)
        };
        let endpoints = active.endpoints.as_ref().filter(|endpoints| endpoints.is_balanced());
        let endpoints = endpoints.filter(|_| parts.uri.scheme().is_none());
        let send = async |header: Option<HeaderValue>| match endpoints {
            Some(endpoints) => {
                let build = |target: &Target| build(header.clone(), target);
                balanced::send(endpoints, &build, may_repeat).await
            }
            None => self.send_once(&active, build(header, &active.target)?).await,
        };
        let own = active.target.valid_credential().await.map_err(of_credential)?;
        let response = send(own.header).await?;
        let (Some(generation), Some(plugin)) = (own.generation, active.target.plugin()) else {
            return Ok(response);
        };
        if response.status() != StatusCode::UNAUTHORIZED || !may_renew {
            return Ok(response);
        }
        match plugin.renewed(generation).await {
            Ok(own) => send(own.header).await,
            Err(_) => Ok(response),
        }
    }

    async fn send_once(
        &self,
        active: &Active,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, RequestError> {
        let peer = &active.target.name;
        active.http.client(&self.0.runtime).request(request).await.map_err(|error| {
            match error.is_connect() {
                true => RequestError::connect(peer, &error),
                false => RequestError::interrupted(peer, &error),
            }
        })
    }

    /// Sends a request and returns the whole response, of at most [`MAX_RESPONSE`] bytes. If the
    /// connection breaks before the response, the request is sent once more on a new one.
    ///
    /// # Errors
    /// If there is no response, or it is too long, too late or breaks off.
    pub async fn request(&self, request: &ApiRequest<'_>) -> Result<Response<Bytes>, RequestError> {
        self.request_by(request, true).await
    }

    /// Like [`ApiClient::request`], but a rejected credential is not renewed.
    pub(crate) async fn request_without_renewal(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<Response<Bytes>, RequestError> {
        self.request_by(request, false).await
    }

    async fn request_by(
        &self,
        request: &ApiRequest<'_>,
        may_renew: bool,
    ) -> Result<Response<Bytes>, RequestError> {
        let peer = self.authority();
        let requesting = async {
            match self.try_request(request, &peer, may_renew).await {
                Err(error) if error.is_connection_lost() => {
                    self.try_request(request, &peer, may_renew).await
                }
                result => result,
            }
        };
        match tokio::time::timeout(request.timeout, requesting).await {
            Ok(result) => result,
            Err(_) => {
                let (timeout, name) = (request.timeout, Arc::clone(&peer));
                let kind = RequestErrorKind::Timeout { peer: name, timeout };
                Err(RequestError::new(&peer, kind))
            }
        }
    }

    async fn try_request(
        &self,
        request: &ApiRequest<'_>,
        peer: &Arc<str>,
        may_renew: bool,
    ) -> Result<Response<Bytes>, RequestError> {
        let mut sent = Request::new(request.body.clone());
        sent.method_mut().clone_from(&request.method);
        sent.headers_mut().clone_from(&request.headers);
        *sent.uri_mut() =
            Uri::try_from(request.path).map_err(|_| not_a_path(request.path, peer))?;
        let (head, body) = self.send_by(sent, may_renew, true).await?.into_parts();
        let body =
            Limited::new(body, MAX_RESPONSE).collect().await.map_err(|error| match error
                .downcast::<hyper::Error>(
            ) {
                Ok(error) => RequestError::interrupted(peer, &*error),
                Err(_) => {
                    let (peer_name, limit) = (Arc::clone(peer), MAX_RESPONSE);
                    RequestError::new(peer, RequestErrorKind::TooLarge { peer: peer_name, limit })
                }
            })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

fn webhook_target(
    mut config: ClientConfig,
    peer: &str,
) -> Result<(Arc<Target>, Arc<str>), ConfigError> {
    risks::warn(&config, peer);
    let path = match std::mem::take(&mut config.server.path_prefix) {
        path if path.is_empty() => "/".into(),
        path => path.into(),
    };
    Ok((Arc::new(Target::new(config)?), path))
}

/// Returns the URL of `path` on the server, with the prefix of the server's URL.
fn url(target: &Target, path: &str) -> Result<Uri, RequestError> {
    let endpoint = &target.endpoint;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(endpoint.scheme.clone());
    parts.authority = Some(endpoint.authority.clone());
    let path = format!("{}{path}", endpoint.path_prefix);
    parts.path_and_query = Some(path.parse().map_err(|_| not_a_path(&path, &target.name))?);
    Uri::from_parts(parts).map_err(|_| not_a_path(&path, &target.name))
}

fn not_a_path(path: &str, peer: &Arc<str>) -> RequestError {
    RequestError::new(peer, RequestErrorKind::Url { url: path.into(), reason: "is not a path" })
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiClient").field(&self.authority()).finish()
    }
}
