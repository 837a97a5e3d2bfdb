//! The keys of ServiceAccount tokens that the API server publishes (`/openid/v1/jwks`,
//! `--service-account-keys-from-upstream`).

use std::sync::Arc;

use api_client::{ApiClient, ApiRequest, RequestError};
use bytes::Bytes;
use serde::Deserialize;

use super::jwk::{JwkError, NamedWebKey, parse_set};
use super::key_file::NamedKey;
use super::remote_keys::{KeySource, RemoteKeySet};
use super::token_review::identity_headers;

/// The path of the API server's discovery document.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// The path of kube-apiserver's keys, whatever public address is in its discovery document.
const KEYS: &str = "/openid/v1/jwks";
/// Number of fetches that tokens with unknown keys may cause at once.
const BURST: u32 = 1;

/// The API server's keys, which are refreshed regularly.
pub type UpstreamKeys = RemoteKeySet<ApiServer>;

/// The API server as a source of keys.
pub struct ApiServer {
    client: ApiClient,
    /// Whether to name the proxy in `X-Remote-User`, because it authenticates as a front proxy.
    as_front_proxy: bool,
}

/// The issuer and keys that the API server has published.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// The issuer of its tokens (claim `iss`).
    pub issuer: String,
    /// The keys that verify its tokens.
    pub keys: Vec<NamedKey>,
}

/// Why the keys could not be fetched, for the log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{path}: {source}")]
    Request { path: &'static str, source: RequestError },
    #[error(
        "{path}: responded with {code}; grant the proxy's user permission to get this path, for example with the ClusterRole system:service-account-issuer-discovery"
    )]
    Code { path: &'static str, code: u16 },
    #[error("{path}: {source}")]
    Json { path: &'static str, source: serde_json::Error },
    #[error("{path}: {source}")]
    Keys { path: &'static str, source: JwkError },
    #[error("{DISCOVERY}: names no issuer")]
    NoIssuer,
    #[error("{KEYS}: none of the keys can be used")]
    NoKeys,
}

/// Starts fetching the API server's keys, and refreshes them from then on. Must be called within a
/// tokio runtime.
pub fn upstream_keys(client: ApiClient, as_front_proxy: bool) -> Arc<UpstreamKeys> {
    RemoteKeySet::start(ApiServer { client, as_front_proxy }, BURST)
}

impl KeySource for ApiServer {
    type Keys = Published;
    type Error = FetchError;

    fn log_changed(&self, published: &Published) {
        let (issuer, count) = (&published.issuer, published.keys.len());
        tracing::info!(
            issuer,
            count,
            "fetched the keys of ServiceAccount tokens from the API server"
        );
    }

    fn log_failed(&self, error: &FetchError) {
        tracing::warn!(%error, "cannot fetch the keys of ServiceAccount tokens from the API server");
    }

    async fn fetch(&self) -> Result<Published, FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            #[serde(default)]
            issuer: String,
        }
        let discovery = self.get(DISCOVERY).await?;
        let Discovery { issuer } = serde_json::from_slice(&discovery)
            .map_err(|source| FetchError::Json { path: DISCOVERY, source })?;
        if issuer.is_empty() {
            return Err(FetchError::NoIssuer);
        }
        let keys: Vec<NamedKey> = parse_set(&self.get(KEYS).await?)
            .map_err(|source| FetchError::Keys { path: KEYS, source })?
            .into_iter()
            .map(|NamedWebKey { id, key }| NamedKey { id, key })
            .collect();
        if keys.is_empty() { Err(FetchError::NoKeys) } else { Ok(Published { issuer, keys }) }
    }
}

impl ApiServer {
    async fn get(&self, path: &'static str) -> Result<Bytes, FetchError> {
        let mut request = ApiRequest::get(path);
        request.headers.extend(identity_headers(self.as_front_proxy));
        let response = self.client.request(&request).await;
        let response = response.map_err(|source| FetchError::Request { path, source })?;
        match response.status().as_u16() {
            200 => Ok(response.into_body()),
            code => Err(FetchError::Code { path, code }),
        }
    }
}
