//! OpenID Connect issuers. Their keys are found by discovery and kept in a [`RemoteKeySet`].

use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use serde_json::Value;

use super::claims::fold;
use super::fetch::{FetchError, Fetcher};
use super::settings::IssuerSettings;
use crate::jose_json::AllMembers;
use crate::jwk::{JwkError, NamedWebKey, parse_set};
use crate::jwt::Jwt;
#[cfg(test)]
use crate::jwt::PublicKey;
use crate::remote_keys::{KeySource, RemoteKeySet};

/// Number of fetches that tokens may cause at once after the keys changed.
const BURST: u32 = 10;

/// An issuer and its keys.
pub(super) struct Issuer(Arc<RemoteKeySet<Source>>);

/// An issuer as a source of keys, found by discovery.
pub(super) struct Source {
    url: String,
    discovery_url: String,
    fetcher: Arc<Fetcher>,
}

/// The result of verifying a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    /// The issuer signed the token.
    Good,
    /// The issuer did not sign the token.
    Bad,
    /// The issuer's keys are not known yet.
    KeysUnknown,
}

/// Why the configuration of an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The CA file cannot be used.
    #[error("{path}: {reason}; it takes PEM blocks that begin with -----BEGIN CERTIFICATE-----", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// `certificateAuthority` cannot be used.
    #[error(
        "certificateAuthority: {0}; it takes PEM blocks that begin with -----BEGIN CERTIFICATE-----"
    )]
    Pem(String),
    /// There are no CAs to trust.
    #[error(
        "this system has no CA certificates to verify the issuer by; give --oidc-ca-file or certificateAuthority"
    )]
    NoSystemCa,
}

/// Why the keys could not be fetched, for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{url}: {source}")]
    Json { url: Uri, source: serde_json::Error },
    #[error("the discovery document names the issuer {theirs:?}, not {ours:?}")]
    Name { theirs: String, ours: String },
    #[error("{url}: {source}")]
    Keys { url: Uri, source: JwkError },
    #[error("none of the issuer's keys can be used")]
    NoKeys,
}

/// The discovery document of an issuer.
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Discovery {
    /// Parses the document like Go: it must be an object, names are case-insensitive, and the last
    /// of duplicates wins.
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
                // Other members must be valid JSON.
                _ => {
                    serde_json::from_str::<Value>(raw.get())?;
                }
            }
        }
        Ok(discovery)
    }
}

impl Issuer {
    /// Starts fetching the keys, and refreshes them from then on. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub(super) fn new(settings: &IssuerSettings) -> Result<Arc<Issuer>, IssuerError> {
        let fetcher = Arc::new(Fetcher::new(&settings.ca, &settings.url)?);
        Ok(Issuer::start(settings.url.clone(), settings.discovery_url.clone(), fetcher))
    }

    /// Like [`Issuer::new`], with an existing fetcher.
    pub(super) fn start(
        url: String,
        discovery_url: Option<String>,
        fetcher: Arc<Fetcher>,
    ) -> Arc<Issuer> {
        let discovery_url = discovery_url.unwrap_or_else(|| {
            let base = url.strip_suffix('/').unwrap_or(&url);
            format!("{base}/.well-known/openid-configuration")
        });
        let source = Source { url, discovery_url, fetcher };
        Arc::new(Issuer(RemoteKeySet::start(source, BURST)))
    }

    /// Returns the fetcher for the issuer's documents.
    pub(super) fn fetcher(&self) -> &Arc<Fetcher> {
        &self.0.source().fetcher
    }

    /// Returns the issuer's URL, as configured.
    pub(super) fn url(&self) -> &str {
        &self.0.source().url
    }

    /// Verifies the signature of `token`. If no known key matches, the keys are fetched first,
    /// unless tokens have caused too many fetches recently.
    pub(super) async fn verify(&self, token: &Jwt<'_>) -> Signature {
        let seen = self.0.keys();
        if is_signed(seen.as_deref(), token) {
            return Signature::Good;
        }
        self.0.fetch_for_token(seen.as_ref()).await;
        let keys = self.0.keys();
        match is_signed(keys.as_deref(), token) {
            true => Signature::Good,
            false if keys.is_none() => Signature::KeysUnknown,
            false => Signature::Bad,
        }
    }
}

/// Returns whether one of `keys` has signed the token. If the token names a key, only that one
/// counts.
fn is_signed(keys: Option<&Vec<NamedWebKey>>, token: &Jwt<'_>) -> bool {
    let named = |key: &&NamedWebKey| token.key_id.is_empty() || key.id == token.key_id;
    keys.into_iter().flatten().filter(named).any(|key| token.is_signed_by(&key.key))
}

impl KeySource for Source {
    type Keys = Vec<NamedWebKey>;
    type Error = KeysError;

    fn log_changed(&self, keys: &Vec<NamedWebKey>) {
        tracing::info!(
            issuer = self.url,
            count = keys.len(),
            "fetched the keys of the OIDC issuer"
        );
    }

    fn log_failed(&self, error: &KeysError) {
        tracing::warn!(issuer = self.url, %error, "cannot fetch the keys of the OIDC issuer");
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

#[cfg(test)]
impl Issuer {
    /// Creates an issuer with fixed keys, which are never fetched.
    pub(super) fn with_keys(url: &str, keys: &[(&str, PublicKey)]) -> Arc<Issuer> {
        let named =
            |(id, key): &(&str, PublicKey)| NamedWebKey { id: (*id).to_owned(), key: key.clone() };
        let fetcher = Arc::new(Fetcher::never());
        let source = Source { url: url.to_owned(), discovery_url: String::new(), fetcher };
        Arc::new(Issuer(RemoteKeySet::fixed(source, keys.iter().map(named).collect())))
    }
}
