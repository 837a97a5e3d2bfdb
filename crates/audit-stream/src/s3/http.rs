//! The HTTP client of object stores: that of this program, with its TLS settings.

use std::sync::Arc;
use std::time::Duration;

use api_client::tls::ClientTls;
use api_client::{ConfigError, Pem, Trust};
use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use rustls_pki_types::ServerName;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a request may take until the response begins.
const REQUEST: Duration = Duration::from_secs(60);
/// How long connections that are not used stay open.
const IDLE: Duration = Duration::from_secs(60);

/// Creates clients that trust the CAs of the system, or of a file.
#[derive(Debug, Clone)]
pub(super) struct Connector(Service);

#[derive(Debug, Clone)]
pub(super) struct Service(Client<HttpsConnector<TcpConnector>, HttpRequestBody>);

impl Connector {
    pub(super) fn new(ca_file: Option<&std::path::Path>) -> Result<Connector, ConfigError> {
        let trust = match ca_file {
            Some(path) => {
                Trust::Ca(Pem::File { field: "CA certificates".to_owned(), path: path.to_owned() })
            }
            None => Trust::System,
        };
        // The name is that of each request.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let tls = ClientTls::new(trust, None, name)?.upgrades();
        let mut tls = Arc::unwrap_or_clone(tls);
        tls.alpn_protocols.clear();
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(https.wrap_connector(tcp));
        Ok(Connector(Service(client)))
    }

    pub(super) fn service(&self) -> Service {
        self.0.clone()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = tokio::time::timeout(REQUEST, self.0.request(request)).await;
        let response = response.map_err(|error| HttpError::new(HttpErrorKind::Timeout, error))?;
        let response = response.map_err(|error| {
            let kind = match error.is_connect() {
                true => HttpErrorKind::Connect,
                false => HttpErrorKind::Request,
            };
            HttpError::new(kind, Cause(super::chain(&error)))
        })?;
        let (parts, body) = response.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// An error with all its causes as one text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);
