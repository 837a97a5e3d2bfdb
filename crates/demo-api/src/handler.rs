//! Handles one request to the demo API: authentication, authorization, and the response.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use session_recording::Activity;

use super::api::Api;
use super::authorize;
use super::discovery;
use super::error::ApiError;
use super::identity::{self, Peer};
use super::resource;
use super::session::{self, Target};
use k8s_audit::RequestInfo;
use k8s_audit::authorizer::{Attributes, Object, Resource};
use k8s_audit::user::UserInfo;

/// Bodies of the demo API never fail.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// kube-apiserver's limit.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// A request whose body has been read.
pub(crate) struct Call {
    /// Method.
    pub method: Method,
    /// The query's parameters, as sent.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// The effective user.
    pub user: UserInfo,
}

/// Responds to one request.
pub(crate) async fn handle(api: &Api, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
    match answer(api, peer, request).await {
        Ok(response) => response,
        Err(error) => json(error.code, &error.status()),
    }
}

async fn answer(
    api: &Api,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let (head, body) = request.into_parts();
    let caller = identity::authenticate(api, peer, &head.headers)?;
    let user = identity::impersonate(&caller, &head.headers)?.unwrap_or(caller);

    let root = http::uri::PathAndQuery::from_static("/");
    let target = head.uri.path_and_query().unwrap_or(&root);
    let info = RequestInfo::new(&head.method, target)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (group, version, resource, subresource, namespace, name, path) = (
        text(info.group()),
        text(info.version()),
        text(info.resource()),
        text(info.subresource()),
        text(info.namespace()),
        text(info.name()),
        text(info.path()),
    );
    let asked = Resource {
        group: &group,
        version: &version,
        resource: &resource,
        subresource: &subresource,
        namespace: &namespace,
        name: &name,
        ..Resource::default()
    };
    let object = match info.is_resource() {
        true => Object::Resource(asked),
        false => Object::Path(&path),
    };
    authorize::check(&Attributes { user: &user, verb: info.verb(), object })?;

    if resource == "pods"
        && group.is_empty()
        && let Some(activity) = Activity::of_subresource(info.subresource())
        && head.headers.contains_key(UPGRADE)
    {
        let kind = api.kind("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?;
        api.get(&kind, &namespace, &name)?;
        let query = target.query().unwrap_or("").to_owned();
        let target = Target { activity, pod: format!("{namespace}/{name}"), query };
        return session::upgrade(Request::from_parts(head, body), target, api.files());
    }
    if !info.is_resource() {
        return non_resource(api, &path, &head.headers);
    }
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(too_large()),
    };
    let call = Call {
        method: head.method,
        query: target.query().unwrap_or("").to_owned(),
        headers: head.headers,
        body,
        user,
    };
    resource::answer(api, info.verb(), &asked, &call)
}

fn too_large() -> ApiError {
    ApiError {
        code: StatusCode::PAYLOAD_TOO_LARGE,
        reason: "RequestEntityTooLarge",
        message: format!("Request entity too large: limit is {BODY_LIMIT}"),
        details: serde_json::json!({}),
    }
}

fn non_resource(api: &Api, path: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let health = ["/healthz", "/livez", "/readyz"];
    if health.iter().any(|check| path == *check || path.starts_with(&format!("{check}/"))) {
        return Ok(plain(StatusCode::OK, "ok"));
    }
    let wants_protobuf = accepts(headers).contains("protobuf");
    if path == "/openapi/v2" && wants_protobuf {
        let body = discovery::openapi_v2_protobuf();
        return Ok(respond(StatusCode::OK, "application/octet-stream", body));
    }
    match discovery::answer(path, &api.kinds()) {
        Some(document) => Ok(json(StatusCode::OK, &document)),
        None if path.starts_with("/api") => Err(ApiError::no_such_resource()),
        None => Ok(plain(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

/// Returns the `Accept` header; empty if there is none.
pub(crate) fn accepts(headers: &HeaderMap) -> &str {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// A response in JSON.
pub(crate) fn json(code: StatusCode, body: &Value) -> Response<Body> {
    let mut text = body.to_string();
    text.push('\n');
    respond(code, "application/json", text)
}

/// A response in plain text.
pub(crate) fn plain(code: StatusCode, text: &'static str) -> Response<Body> {
    respond(code, "text/plain; charset=utf-8", text)
}

fn respond(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    stream(code, content_type, Full::new(body.into()).boxed_unsync())
}

/// A response with any body.
pub(crate) fn stream(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let value = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}
