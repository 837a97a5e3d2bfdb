//! S3 Object Lock: protects objects from being deleted or overwritten for a time.
//!
//! `object_store` has no attribute for it, and the end of the retention differs for each object. So
//! the headers are added to each request that creates an object immediately before it is sent, and
//! the request is signed again, because S3 requires a signature of these headers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use super::http::{Connector, Service};

/// SHA-256 of the content, in hexadecimal digits. Requests to S3 that are signed have it.
const CONTENT: &str = "x-amz-content-sha256";

/// `object-lock-mode` and `object-lock-retain`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may shorten the retention.
    pub mode: LockMode,
    /// How long each object is retained, from when it is created.
    pub retain: Duration,
}

/// Who may shorten the retention of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Users with the permission `s3:BypassGovernanceRetention`.
    Governance,
    /// No user, not even the owner of the account.
    Compliance,
}

/// Creates clients that add the headers.
#[derive(Debug, Clone)]
pub(super) struct Locking(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    service: Service,
    lock: ObjectLock,
    region: String,
    /// Known when the store is built, which needs this first.
    credentials: OnceLock<AwsCredentialProvider>,
}

impl Locking {
    pub(super) fn new(connector: Connector, lock: ObjectLock, region: String) -> Locking {
        let service = connector.service();
        Locking(Arc::new(Shared { service, lock, region, credentials: OnceLock::new() }))
    }

    pub(super) fn sign_with(&self, credentials: AwsCredentialProvider) {
        let _ = self.0.credentials.set(credentials);
    }
}

impl HttpConnector for Locking {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Locking {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if creates_object(&request) {
            self.0.lock(&mut request).await?;
        }
        self.0.service.call(request).await
    }
}

/// Whether a request creates an object, or an upload in parts. Requests for credentials do not
/// have the header of S3.
fn creates_object(request: &HttpRequest) -> bool {
    let mut query = request.uri().query().unwrap_or_default().split('&');
    let mut has = |name: &str| query.any(|pair| pair.split('=').next() == Some(name));
    request.headers().contains_key(CONTENT)
        && match *request.method() {
            Method::PUT => !has("partNumber"),
            Method::POST => has("uploads"),
            _ => false,
        }
}

impl ObjectLock {
    fn headers(self, now: Timestamp, headers: &mut HeaderMap) -> Result<(), String> {
        let mode = match self.mode {
            LockMode::Governance => "GOVERNANCE",
            LockMode::Compliance => "COMPLIANCE",
        };
        let until = now.checked_add(self.retain).map_err(|error| error.to_string())?;
        let until = HeaderValue::try_from(format!("{until:.0}"));
        headers.insert("x-amz-object-lock-mode", HeaderValue::from_static(mode));
        headers.insert(
            "x-amz-object-lock-retain-until-date",
            until.map_err(|error| error.to_string())?,
        );
        Ok(())
    }
}

impl Shared {
    async fn lock(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let failed =
            |error: String| HttpError::new(HttpErrorKind::Request, std::io::Error::other(error));
        self.lock.headers(Timestamp::now(), request.headers_mut()).map_err(failed)?;
        let Some(credentials) = self.credentials.get() else { return Ok(()) };
        let credential = credentials.get_credential().await;
        let credential = credential.map_err(|error| failed(super::reason(&error)))?;
        let content = request.headers().get(CONTENT).and_then(|hash| hash.to_str().ok());
        let hash = content.and_then(from_hex);
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .with_sign_payload(content != Some("UNSIGNED-PAYLOAD"))
            .try_authorize(request, hash.as_deref())
            .map_err(|error| failed(super::reason(&error)))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (text.len() == 64).then(|| (0..64).step_by(2).map(byte).collect())?
}
