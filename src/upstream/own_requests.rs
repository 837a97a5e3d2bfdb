//! Requests that the proxy makes itself, with its own credentials.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};

use super::error::SendError;
use super::forward::Upstream;
use crate::body::RequestBody;

/// For [`Upstream::post_json`].
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const LIMIT: usize = 1 << 20;

/// A question that the proxy has itself. Its answer is JSON, and so is its body, if it has one.
pub struct OwnRequest<'a> {
    /// `GET` or `POST`
    pub method: Method,
    /// The path, with a query if there is one.
    pub path: &'a str,
    /// Headers besides those that every such request has.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// How long it may take until the whole answer is there.
    pub timeout: Duration,
}

impl Upstream {
    /// Posts `body` as JSON with the proxy's own credentials; returns status and body, of at most
    /// 1 MiB, within 10 seconds.
    ///
    /// # Errors
    /// As [`Upstream::send`], and for answers that are too late, too long or broken off.
    pub async fn post_json(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), SendError> {
        let headers = HeaderMap::new();
        let request = OwnRequest { method: Method::POST, path, headers, body, timeout: TIMEOUT };
        let response = self.ask(request).await?;
        Ok((response.status(), response.into_body()))
    }

    /// Gets JSON with the proxy's own credentials; otherwise as [`Upstream::post_json`].
    ///
    /// # Errors
    /// As [`Upstream::post_json`].
    pub async fn get_json(&self, path: &str) -> Result<(StatusCode, Bytes), SendError> {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let request = OwnRequest { method: Method::GET, path, headers, body, timeout: TIMEOUT };
        let response = self.ask(request).await?;
        Ok((response.status(), response.into_body()))
    }

    /// Sends a request with the proxy's own credentials; the answer's body has at most 1 MiB.
    ///
    /// # Errors
    /// As [`Upstream::send`], and for answers that are too late, too long or broken off.
    pub async fn ask(&self, question: OwnRequest<'_>) -> Result<Response<Bytes>, SendError> {
        let OwnRequest { method, path, headers, body, timeout } = question;
        let json = HeaderValue::from_static("application/json");
        let mut request = Request::new(RequestBody::from(body));
        *request.headers_mut() = headers;
        if method == Method::POST {
            request.headers_mut().insert(CONTENT_TYPE, json.clone());
        }
        *request.method_mut() = method;
        *request.uri_mut() =
            Uri::try_from(path).map_err(|_| SendError::Answer { reason: "no such path" })?;
        request.headers_mut().insert(ACCEPT, json);
        if let Some(bearer) = self.bearer() {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let asking = async {
            let (head, body) = self.send_repeatable(request).await?.into_parts();
            let body = Limited::new(body, LIMIT);
            let body = body.collect().await.map_err(|error| match error.downcast() {
                Ok(error) => SendError::Interrupted { source: Arc::new(*error) },
                Err(_) => SendError::Answer { reason: "longer than 1 MiB" },
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        match tokio::time::timeout(timeout, asking).await {
            Ok(answered) => answered,
            Err(_) => {
                Err(SendError::Timeout { waiting_for: "the API server's answer", sent: true })
            }
        }
    }
}
