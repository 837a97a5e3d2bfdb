//! The client of an audit webhook.

use std::sync::Arc;
use std::time::Duration;

use api_client::{ApiClient, RequestError};
use audit_log::webhook::{ClientError, PostRequest, PostResponse, WebhookClient};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body::Body;
use http_body_util::BodyExt;

/// Maximum number of bytes of a response that are read and discarded, and the maximum time for
/// that.
const DISCARD: usize = 64 << 10;
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// The endpoint of an audit webhook.
#[derive(Debug)]
pub struct WebhookEndpoint(pub ApiClient);

impl WebhookClient for WebhookEndpoint {
    fn authority(&self) -> Arc<str> {
        self.0.authority()
    }

    fn post(&self, request: PostRequest) -> BoxFuture<'_, Result<PostResponse, ClientError>> {
        async move {
            let response = self.0.send(self.of_post(request)).await.map_err(client_error)?;
            let (head, body) = response.into_parts();
            discard(body).await;
            Ok(PostResponse { status: head.status, headers: head.headers })
        }
        .boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<(), ClientError>> {
        self.0.check().map(|connected| connected.map_err(client_error)).boxed()
    }
}

impl WebhookEndpoint {
    fn of_post(&self, post: PostRequest) -> Request<Bytes> {
        let PostRequest { body, is_gzip, timeout_seconds } = post;
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        let target = format!("{}?timeout={timeout_seconds}s", self.0.path());
        let target: Uri = target.parse().expect("the path of a URL is one, with a query too");
        *request.uri_mut() = target;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        let agent = concat!("kube-audit-proxy/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if is_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }
}

fn client_error(error: RequestError) -> ClientError {
    ClientError(error.to_string())
}

/// Reads the rest of a response, so that the connection can be reused, within limits of size and
/// time. If they are exceeded, the connection is closed.
async fn discard(mut body: impl Body<Data = Bytes> + Unpin) {
    let mut left = DISCARD;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}
