//! The keys of an OpenID Connect issuer: found by discovery, kept, and fetched again when a token
//! names one that is not among them.
//!
//! An issuer that is down changes nothing: the last keys stay in force, and the start waits for
//! nobody.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Uri;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::claims::fold;
use super::fetch::{FetchError, Fetcher};
use super::settings::IssuerSettings;
use crate::authn::jose_json::AllMembers;
use crate::authn::jwk::{JwkError, NamedWebKey, parse_set};
use crate::authn::jwt::Jwt;
#[cfg(test)]
use crate::authn::jwt::PublicKey;

/// Fetches that tokens may cause at once, after keys changed.
const BURST: u32 = 10;
/// After this another fetch may be caused by a token, however many of them are not the issuer's.
const APART: Duration = Duration::from_secs(10);
/// Between two fetches of the first keys: at first, and at most.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);
/// After this the keys are fetched again, so that those that were withdrawn lose their force.
const FRESH: Duration = Duration::from_secs(600);

/// An issuer and its keys.
pub struct Issuer {
    url: String,
    discovery_url: String,
    fetcher: Arc<Fetcher>,
    keys: ArcSwapOption<Vec<NamedWebKey>>,
    /// Fetches that tokens may still cause; held while any is under way.
    allowance: Mutex<Allowance>,
}

/// How many fetches tokens may still cause: [`BURST`], and another one [`APART`] after each.
#[derive(Debug)]
struct Allowance {
    left: u32,
    /// When one was last added.
    since: Instant,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance { left: BURST, since: Instant::now() }
    }
}

impl Allowance {
    /// Takes one, if there is one.
    fn take(&mut self) -> bool {
        while self.left < BURST && self.since.elapsed() >= APART {
            self.left += 1;
            self.since += APART;
        }
        if self.left == BURST {
            self.since = Instant::now();
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

/// What became of a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// It is the issuer's.
    Good,
    /// It is not.
    Bad,
    /// The issuer's keys are not known yet.
    KeysUnknown,
}

/// Why an issuer cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its CA file cannot be used.
    #[error("{path}: {reason}; it takes PEM blocks that begin with -----BEGIN CERTIFICATE-----", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its `certificateAuthority` cannot be used.
    #[error(
        "certificateAuthority: {0}; it takes PEM blocks that begin with -----BEGIN CERTIFICATE-----"
    )]
    Pem(String),
    /// There are no CAs to believe.
    #[error(
        "this system has no CA certificates to verify the issuer by; give --oidc-ca-file or certificateAuthority"
    )]
    NoSystemCa,
}

/// Why keys could not be fetched. For the log.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{url}: {source}")]
    Json { url: Uri, source: serde_json::Error },
    #[error("the issuer calls itself {theirs:?}, not {ours:?}")]
    Name { theirs: String, ours: String },
    #[error("{url}: {source}")]
    Keys { url: Uri, source: JwkError },
    #[error("there is no key among the issuer's that can be used")]
    NoKeys,
}

/// What an issuer says of itself.
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Discovery {
    /// Reads the document as Go does: only an object is one, the case of names does not matter, and
    /// of two the last counts.
    fn parse(text: &[u8]) -> Result<Discovery, serde_json::Error> {
        let AllMembers(members) = serde_json::from_slice(text)?;
        let mut discovery = Discovery { issuer: String::new(), jwks_uri: String::new() };
        for (name, raw) in members {
            let text = || serde_json::from_str::<Option<String>>(raw.get());
            match fold(&name).as_str() {
                "issuer" => discovery.issuer = text()?.unwrap_or(discovery.issuer),
                "jwks_uri" => discovery.jwks_uri = text()?.unwrap_or(discovery.jwks_uri),
                "authorization_endpoint" | "token_endpoint" | "userinfo_endpoint" => {
                    text()?;
                }
                "id_token_signing_alg_values_supported" => {
                    serde_json::from_str::<Option<Vec<Option<String>>>>(raw.get())?;
                }
                // Others must be valid.
                _ => {
                    serde_json::from_str::<Value>(raw.get())?;
                }
            }
        }
        Ok(discovery)
    }
}

impl Issuer {
    /// Begins to fetch the keys and keeps them fresh from then on. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub fn new(settings: &IssuerSettings) -> Result<Arc<Issuer>, IssuerError> {
        let fetcher = Arc::new(Fetcher::new(&settings.ca)?);
        Ok(Issuer::start(settings.url.clone(), settings.discovery_url.clone(), fetcher))
    }

    /// As [`Issuer::new`], by connections that there are already.
    pub fn start(url: String, discovery_url: Option<String>, fetcher: Arc<Fetcher>) -> Arc<Issuer> {
        let discovery_url = discovery_url.unwrap_or_else(|| {
            let base = url.strip_suffix('/').unwrap_or(&url);
            format!("{base}/.well-known/openid-configuration")
        });
        let (keys, allowance) = (ArcSwapOption::empty(), Mutex::default());
        let issuer = Arc::new(Issuer { url, discovery_url, fetcher, keys, allowance });
        tokio::spawn(keep_fresh(Arc::downgrade(&issuer)));
        issuer
    }

    /// How it is asked.
    pub fn fetcher(&self) -> &Arc<Fetcher> {
        &self.fetcher
    }

    /// The issuer's URL, as configured.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Verifies the signature of `token`. If no known key has made it, keys are fetched first, unless
    /// tokens have just caused too many fetches.
    pub async fn verify(&self, token: &Jwt<'_>) -> Signature {
        if self.is_signed(token) {
            return Signature::Good;
        }
        self.fetch_for_token().await;
        match self.is_signed(token) {
            true => Signature::Good,
            false if self.keys.load().is_none() => Signature::KeysUnknown,
            false => Signature::Bad,
        }
    }

    /// Whether a known key has signed the token: the one that it names, if it names one.
    fn is_signed(&self, token: &Jwt<'_>) -> bool {
        let keys = self.keys.load();
        let named = |key: &&NamedWebKey| token.key_id.is_empty() || key.id == token.key_id;
        let mut candidates = keys.iter().flat_map(|keys| keys.iter()).filter(named);
        candidates.any(|key| token.is_signed_by(&key.key))
    }

    /// Fetches the keys, unless another fetch has just brought new ones, or tokens have caused too
    /// many.
    async fn fetch_for_token(&self) {
        let known = self.keys.load_full();
        let mut allowance = self.allowance.lock().await;
        let is_same = match (&known, &*self.keys.load()) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (known, now) => known.is_none() && now.is_none(),
        };
        // Taken before: whoever gives up waiting must not make the next one fetch at once.
        if is_same && allowance.take() {
            self.refresh().await;
        }
    }

    async fn refresh(&self) {
        match self.fetch().await {
            Ok(keys) => {
                let count = keys.len();
                if self.keys.load().as_ref().is_none_or(|known| **known != keys) {
                    tracing::info!(issuer = self.url, count, "keys of the OIDC issuer");
                }
                self.keys.store(Some(Arc::new(keys)));
            }
            Err(error) => {
                tracing::warn!(issuer = self.url, %error, "cannot fetch the keys of the OIDC issuer");
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<NamedWebKey>, KeysError> {
        let (at, discovery) = self.fetcher.get(&self.discovery_url, None).await?;
        let discovery =
            Discovery::parse(&discovery).map_err(|source| KeysError::Json { url: at, source })?;
        if discovery.issuer != self.url {
            return Err(KeysError::Name { theirs: discovery.issuer, ours: self.url.clone() });
        }
        let (at, set) = self.fetcher.get(&discovery.jwks_uri, None).await?;
        let keys = parse_set(&set).map_err(|source| KeysError::Keys { url: at, source })?;
        if keys.is_empty() { Err(KeysError::NoKeys) } else { Ok(keys) }
    }
}

/// Fetches again and again until the issuer is no longer needed.
async fn keep_fresh(issuer: Weak<Issuer>) {
    let mut retry = *RETRY.start();
    loop {
        let pause = {
            let Some(issuer) = issuer.upgrade() else { return };
            let _under_way = issuer.allowance.lock().await;
            issuer.refresh().await;
            if issuer.keys.load().is_some() { FRESH } else { retry }
        };
        tokio::time::sleep(pause).await;
        retry = (retry * 2).min(*RETRY.end());
    }
}

#[cfg(test)]
impl Issuer {
    /// One whose keys are known, and that is never asked for others.
    pub fn with_keys(url: &str, keys: &[(&str, PublicKey)]) -> Arc<Issuer> {
        let named =
            |(id, key): &(&str, PublicKey)| NamedWebKey { id: (*id).to_owned(), key: key.clone() };
        Arc::new(Issuer {
            url: url.to_owned(),
            discovery_url: String::new(),
            fetcher: Arc::new(Fetcher::with_roots(rustls::RootCertStore::empty())),
            keys: ArcSwapOption::from_pointee(keys.iter().map(named).collect::<Vec<_>>()),
            allowance: Mutex::new(Allowance { left: 0, since: Instant::now() }),
        })
    }
}
