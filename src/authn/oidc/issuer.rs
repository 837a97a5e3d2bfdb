//! The keys of an OpenID Connect issuer: found by discovery, kept, and fetched again when a token
//! names one that is not among them.
//!
//! An issuer that is down changes nothing: the last keys stay in force, and the start waits for
//! nobody.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::fetch::{FetchError, Fetcher};
use super::settings::IssuerSettings;
use crate::authn::jwt::{Jwt, PublicKey};

/// Between two fetches that tokens cause, however many of them name unknown keys.
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
    keys: ArcSwapOption<Vec<IssuerKey>>,
    /// When a token last caused a fetch; held while any is under way.
    caused: Mutex<Option<Instant>>,
}

/// A key of a set and its name in it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::authn) struct IssuerKey {
    pub(in crate::authn) id: String,
    pub(in crate::authn) key: PublicKey,
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
    #[error("there is no key among the issuer's that can be used")]
    NoKeys,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// A JSON Web Key (RFC 7517); kinds that are not used lack the members that are needed.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct WebKey {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    usage: String,
    n: String,
    e: String,
    crv: String,
    x: String,
    y: String,
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
            format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'))
        });
        let (keys, caused) = (ArcSwapOption::empty(), Mutex::default());
        let issuer = Arc::new(Issuer { url, discovery_url, fetcher, keys, caused });
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

    /// Verifies the signature of `token`. If it names a key that is not known, keys are fetched
    /// first, unless that was just done.
    pub async fn verify(&self, token: &Jwt<'_>) -> Signature {
        if let Some(verdict) = self.judge(token) {
            return verdict;
        }
        self.fetch_for_token().await;
        match self.judge(token) {
            Some(verdict) => verdict,
            None if self.keys.load().is_none() => Signature::KeysUnknown,
            None => Signature::Bad,
        }
    }

    /// By the keys that are known; `None` if the token's may be among newer ones.
    fn judge(&self, token: &Jwt<'_>) -> Option<Signature> {
        let keys = self.keys.load();
        let named = keys
            .as_ref()?
            .iter()
            .filter(|key| token.key_id.is_empty() || key.id.is_empty() || key.id == token.key_id);
        let mut candidates = named.peekable();
        candidates.peek()?;
        match candidates.any(|key| token.is_signed_by(&key.key)) {
            true => Some(Signature::Good),
            false if token.key_id.is_empty() => None,
            false => Some(Signature::Bad),
        }
    }

    /// Fetches the keys, unless another fetch has just brought new ones, or a token has caused one
    /// lately.
    async fn fetch_for_token(&self) {
        let known = self.keys.load_full();
        let mut caused = self.caused.lock().await;
        let is_soon = caused.is_some_and(|last| last.elapsed() < APART);
        let is_same = match (&known, &*self.keys.load()) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (known, now) => known.is_none() && now.is_none(),
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

    async fn fetch(&self) -> Result<Vec<IssuerKey>, KeysError> {
        let (at, discovery) = self.fetcher.get(&self.discovery_url, None).await?;
        let discovery: Discovery = serde_json::from_slice(&discovery)
            .map_err(|source| KeysError::Json { url: at, source })?;
        if discovery.issuer != self.url {
            return Err(KeysError::Name { theirs: discovery.issuer, ours: self.url.clone() });
        }
        let (at, set) = self.fetcher.get(&discovery.jwks_uri, None).await?;
        let keys = keys_of_set(&set).map_err(|source| KeysError::Json { url: at, source })?;
        if keys.is_empty() { Err(KeysError::NoKeys) } else { Ok(keys) }
    }
}

/// Fetches again and again until the issuer is no longer needed.
async fn keep_fresh(issuer: Weak<Issuer>) {
    let mut retry = *RETRY.start();
    loop {
        let pause = {
            let Some(issuer) = issuer.upgrade() else { return };
            let _under_way = issuer.caused.lock().await;
            issuer.refresh().await;
            if issuer.keys.load().is_some() { FRESH } else { retry }
        };
        tokio::time::sleep(pause).await;
        retry = (retry * 2).min(*RETRY.end());
    }
}

/// The keys of a JSON Web Key Set that signatures can be verified by.
pub(in crate::authn) fn keys_of_set(text: &[u8]) -> Result<Vec<IssuerKey>, serde_json::Error> {
    let set: KeySet = serde_json::from_slice(text)?;
    Ok(set.keys.into_iter().filter_map(key).collect())
}

/// A key of the set that signatures can be verified by; others are skipped.
fn key(value: serde_json::Value) -> Option<IssuerKey> {
    let key: WebKey = serde_json::from_value(value).ok()?;
    if !matches!(key.usage.as_str(), "" | "sig") {
        return None;
    }
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let public = match (key.kty.as_str(), key.crv.as_str()) {
        ("RSA", _) => PublicKey::rsa(&decode(&key.n)?, &decode(&key.e)?)?,
        ("EC", "P-256" | "P-384" | "P-521") => {
            PublicKey::ec(&[&[4][..], &decode(&key.x)?, &decode(&key.y)?].concat())?
        }
        _ => return None,
    };
    Some(IssuerKey { id: key.kid, key: public })
}

#[cfg(test)]
impl Issuer {
    /// One whose keys are known, and that is never asked for others.
    pub fn with_keys(url: &str, keys: &[(&str, PublicKey)]) -> Arc<Issuer> {
        let named =
            |(id, key): &(&str, PublicKey)| IssuerKey { id: (*id).to_owned(), key: key.clone() };
        Arc::new(Issuer {
            url: url.to_owned(),
            discovery_url: String::new(),
            fetcher: Arc::new(Fetcher::with_roots(crate::pki::Roots::new("an empty list"))),
            keys: ArcSwapOption::from_pointee(keys.iter().map(named).collect::<Vec<_>>()),
            caused: Mutex::new(Some(Instant::now())),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_a_set_are_taken_if_they_are_of_use() {
        let number = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        let rsa = json!({"kty": "RSA", "kid": "a", "use": "sig", "n": number(256), "e": "AQAB"});
        assert_eq!(key(rsa.clone()).unwrap().id, "a");
        let ec = json!({"kty": "EC", "crv": "P-256", "x": number(32), "y": number(32)});
        assert_eq!(key(ec).unwrap().id, "");
        let change = |name: &str, value: serde_json::Value| {
            let mut changed = rsa.clone();
            changed[name] = value;
            changed
        };
        for useless in [
            json!({}),
            json!(7),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": number(32)}),
            json!({"kty": "EC", "crv": "P-256", "x": number(31), "y": number(32)}),
            change("use", json!("enc")),
            change("n", json!(number(128))),
            change("n", json!("not base64!")),
        ] {
            assert!(key(useless.clone()).is_none(), "{useless}");
        }
    }
}
