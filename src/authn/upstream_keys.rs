//! The keys of ServiceAccount tokens as the API server itself publishes them
//! (`/openid/v1/jwks`, `--service-account-keys-from-upstream`).
//!
//! They are fetched, not awaited: the start does not need the API server, and while it is down the
//! last keys stay in force.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jwk::{JwkError, NamedWebKey, parse_set};
use super::key_file::NamedKey;
use super::token_review::own_name;
use crate::upstream::{OwnRequest, SendError, Upstream};

/// What the API server says of itself as an issuer.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where kube-apiserver has its keys, whatever public address discovery gives for them.
const KEYS: &str = "/openid/v1/jwks";
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two fetches that tokens cause, however many of them name unknown keys.
const APART: Duration = Duration::from_secs(10);
/// Between two fetches of the first keys: at first, and at most.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);
/// After this the keys are fetched again, so that those that were withdrawn lose their force.
const FRESH: Duration = Duration::from_secs(600);

/// The API server's keys, kept fresh.
pub struct UpstreamKeys {
    upstream: Upstream,
    /// Whether to name the proxy in `X-Remote-User`, because its certificate is a front proxy's.
    as_front_proxy: bool,
    known: ArcSwapOption<Published>,
    /// When a token last caused a fetch; held while any is under way.
    caused: Mutex<Option<Instant>>,
}

/// What the API server has published.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// The `iss` claim of the tokens that it issues.
    pub issuer: String,
    /// The keys that they are verified by.
    pub keys: Vec<NamedKey>,
}

/// Why keys could not be fetched. For the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{path}: {source}")]
    Request { path: &'static str, source: SendError },
    #[error(
        "{path}: answered {code}; this proxy's user needs to get that path, as ClusterRole \
         system:service-account-issuer-discovery lets it"
    )]
    Code { path: &'static str, code: u16 },
    #[error("{path}: {source}")]
    Json { path: &'static str, source: serde_json::Error },
    #[error("{path}: {source}")]
    Keys { path: &'static str, source: JwkError },
    #[error("{DISCOVERY}: names no issuer")]
    NoIssuer,
    #[error("{KEYS}: there is no key that can be used")]
    NoKeys,
}

impl UpstreamKeys {
    /// Begins to fetch the keys and keeps them fresh from then on. Must be called within a tokio
    /// runtime.
    pub fn new(upstream: Upstream, as_front_proxy: bool) -> Arc<UpstreamKeys> {
        let known = ArcSwapOption::empty();
        let keys = UpstreamKeys { upstream, as_front_proxy, known, caused: Mutex::default() };
        let keys = Arc::new(keys);
        tokio::spawn(keep_fresh(Arc::downgrade(&keys)));
        keys
    }

    /// The last that was fetched; `None` before anything was.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.known.load_full()
    }

    /// Fetches the keys because a token names none of `seen`, unless another fetch has brought
    /// others since, or a token has caused one lately.
    pub async fn fetch_for_token(&self, seen: Option<&Arc<Published>>) {
        let mut caused = self.caused.lock().await;
        let is_soon = caused.is_some_and(|last| last.elapsed() < APART);
        let is_same = match (seen, &*self.known.load()) {
            (Some(seen), Some(now)) => Arc::ptr_eq(seen, now),
            (seen, now) => seen.is_none() && now.is_none(),
        };
        if is_soon || !is_same {
            return;
        }
        // Noted before: whoever gives up waiting must not make the next one fetch at once.
        *caused = Some(Instant::now());
        self.refresh().await;
    }

    async fn refresh(&self) {
        match self.fetch().await {
            Ok(published) => {
                if self.known.load().as_deref() == Some(&published) {
                    return;
                }
                let (issuer, count) = (&published.issuer, published.keys.len());
                tracing::info!(issuer, count, "keys of the API server's ServiceAccount tokens");
                self.known.store(Some(Arc::new(published)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot fetch the keys of ServiceAccount tokens from the API server");
            }
        }
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

    async fn get(&self, path: &'static str) -> Result<Bytes, FetchError> {
        let question = OwnRequest {
            method: Method::GET,
            path,
            headers: own_name(self.as_front_proxy),
            body: Bytes::new(),
            timeout: TIMEOUT,
        };
        let answer = self.upstream.ask(question).await;
        let answer = answer.map_err(|source| FetchError::Request { path, source })?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            code => Err(FetchError::Code { path, code }),
        }
    }
}

/// Fetches again and again until the keys are no longer needed.
async fn keep_fresh(keys: Weak<UpstreamKeys>) {
    let mut retry = *RETRY.start();
    loop {
        let pause = {
            let Some(keys) = keys.upgrade() else { return };
            let _under_way = keys.caused.lock().await;
            keys.refresh().await;
            if keys.known.load().is_some() { FRESH } else { retry }
        };
        tokio::time::sleep(pause).await;
        retry = (retry * 2).min(*RETRY.end());
    }
}
