//! The keys of an OpenID Connect issuer: found by discovery, kept, and fetched again when a token
//! names one that is not among them.
//!
//! An issuer that is down changes nothing: the last keys stay in force, and the start waits for
//! nobody.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jwt::{Jwt, PublicKey};

/// How long one fetch may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Size of what is fetched.
const LIMIT: usize = 1 << 20;
/// Between two fetches that tokens cause, however many of them name unknown keys.
const APART: Duration = Duration::from_secs(10);
/// Between two fetches of the first keys: at first, and at most.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);
/// After this the keys are fetched again, so that those that were withdrawn lose their force.
const FRESH: Duration = Duration::from_secs(600);

/// An issuer and its keys.
pub struct Issuer {
    url: String,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    keys: ArcSwapOption<Vec<IssuerKey>>,
    /// When a token last caused a fetch; held while any is under way.
    caused: Mutex<Option<Instant>>,
}

/// A key of a set and its name in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IssuerKey {
    pub(super) id: String,
    pub(super) key: PublicKey,
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
    /// There are no CAs to believe.
    #[error("this system has no CA certificates to verify the issuer by; give --oidc-ca-file")]
    NoSystemCa,
}

/// Why keys could not be fetched. For the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}: no https URL")]
    Url(String),
    #[error("{url}: {reason}")]
    Request { url: Uri, reason: String },
    #[error("{url}: answered {code}")]
    Code { url: Uri, code: u16 },
    #[error("{url}: longer than 1 MiB, or broken off")]
    Body { url: Uri },
    #[error("{url}: no answer within 10 s")]
    Late { url: Uri },
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
    /// Begins to fetch the keys of the issuer at `url` and keeps them fresh from then on. Must be
    /// called within a tokio runtime. Believes the CAs of `ca_file`, or the system's.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub fn new(url: String, ca_file: Option<&Path>) -> Result<Arc<Issuer>, IssuerError> {
        let roots = match ca_file {
            Some(path) => file_roots(path)?,
            None => crate::upstream::system_roots().ok_or(IssuerError::NoSystemCa)?,
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let issuer = Issuer { url, client, keys: ArcSwapOption::empty(), caused: Mutex::default() };
        let issuer = Arc::new(issuer);
        tokio::spawn(keep_fresh(Arc::downgrade(&issuer)));
        Ok(issuer)
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

    async fn fetch(&self) -> Result<Vec<IssuerKey>, FetchError> {
        let base = self.url.trim_end_matches('/');
        let (at, discovery) = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        let discovery: Discovery = serde_json::from_slice(&discovery)
            .map_err(|source| FetchError::Json { url: at, source })?;
        if discovery.issuer != self.url {
            return Err(FetchError::Name { theirs: discovery.issuer, ours: self.url.clone() });
        }
        let (at, set) = self.get(&discovery.jwks_uri).await?;
        let keys = keys_of_set(&set).map_err(|source| FetchError::Json { url: at, source })?;
        if keys.is_empty() { Err(FetchError::NoKeys) } else { Ok(keys) }
    }

    async fn get(&self, url: &str) -> Result<(Uri, Bytes), FetchError> {
        let url: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        if url.scheme_str() != Some("https") {
            return Err(FetchError::Url(url.to_string()));
        }
        let getting = async {
            let response = self.client.get(url.clone()).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let reason = cause.unwrap_or_else(|| error.to_string());
                FetchError::Request { url: url.clone(), reason }
            })?;
            let code = response.status().as_u16();
            if code != 200 {
                return Err(FetchError::Code { url: url.clone(), code });
            }
            let body = Limited::new(response.into_body(), LIMIT).collect().await;
            let body = body.map_err(|_| FetchError::Body { url: url.clone() })?;
            Ok((url.clone(), body.to_bytes()))
        };
        match tokio::time::timeout(TIMEOUT, getting).await {
            Ok(got) => got,
            Err(_) => Err(FetchError::Late { url }),
        }
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
pub(super) fn keys_of_set(text: &[u8]) -> Result<Vec<IssuerKey>, serde_json::Error> {
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

fn file_roots(path: &Path) -> Result<RootCertStore, IssuerError> {
    let unusable = |reason: String| IssuerError::CaFile { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable("no certificate in the CA file".to_owned())),
        false => Ok(roots),
    }
}

#[cfg(test)]
impl Issuer {
    /// One whose keys are known, and that is never asked for others.
    pub fn with_keys(url: &str, keys: &[(&str, PublicKey)]) -> Arc<Issuer> {
        let named =
            |(id, key): &(&str, PublicKey)| IssuerKey { id: (*id).to_owned(), key: key.clone() };
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Arc::new(Issuer {
            url: url.to_owned(),
            client: Client::builder(TokioExecutor::new()).build(connector),
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

    #[test]
    fn ca_files_must_have_certificates() {
        let dir = crate::test_dir::TestDir::new();
        let error = file_roots(&dir.write("ca.crt", "nothing")).unwrap_err().to_string();
        assert!(error.contains("ca.crt: no certificate in the CA file"), "{error}");
        assert!(file_roots(&dir.path().join("absent")).is_err());
    }
}
