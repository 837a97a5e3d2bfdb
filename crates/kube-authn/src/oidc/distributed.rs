//! Distributed claims (OpenID Connect Core 1.0, 5.6.2): a token can name a source from which the
//! groups are fetched, if they are too large for the token.
//!
//! Like in kube-apiserver, only the claim of `claimMappings.groups` can be distributed, the
//! response must itself be a token for the same audiences, and the keys of its issuer are found by
//! discovery.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::authenticator::{OidcError, verify_claims};
use super::claims::{CLAIM_NAMES, CLAIM_SOURCES, Source, claim_names, claim_sources};
use super::fetch::Fetcher;
use super::issuer::Issuer;
use super::settings::JwtSettings;
use crate::jwt::Jwt;

/// Maximum number of issuers of fetched tokens whose keys are cached.
const ISSUERS: usize = 16;

/// Fetches a distributed claim.
pub(super) struct Distributed {
    claim: String,
    fetcher: Arc<Fetcher>,
    issuers: Mutex<HashMap<String, Arc<Issuer>>>,
}

impl Distributed {
    /// Creates a fetcher for `claim`.
    pub(super) fn new(claim: String, fetcher: Arc<Fetcher>) -> Distributed {
        Distributed { claim, fetcher, issuers: Mutex::default() }
    }

    /// Fetches the claim if it is distributed, and adds it to `claims`.
    pub(super) async fn expand(
        &self,
        claims: &mut Map<String, Value>,
        settings: &JwtSettings,
        now: SystemTime,
    ) -> Result<(), OidcError> {
        let Some(source) = self.source(claims)? else { return Ok(()) };
        let token = Some(source.access_token.as_str()).filter(|token| !token.is_empty());
        let (_, answer) = self.fetcher.get(&source.endpoint, token).await.map_err(|error| {
            tracing::warn!(claim = self.claim, %error, "cannot fetch a distributed claim");
            OidcError::Unavailable
        })?;
        let fetched = self.fetched(&answer, settings, now).await?;
        claims.insert(self.claim.clone(), fetched);
        Ok(())
    }

    /// Returns the source of the claim, if it is distributed.
    fn source(&self, claims: &Map<String, Value>) -> Result<Option<Source>, OidcError> {
        let wrong = |name: &str, problem| OidcError::Claim(name.to_owned(), problem);
        if claims.contains_key(&self.claim) {
            return Ok(None);
        }
        let Some(names) = claims.get(CLAIM_NAMES) else { return Ok(None) };
        let names = claim_names(names).map_err(|_| wrong(CLAIM_NAMES, "is no map of strings"))?;
        let sources =
            claims.get(CLAIM_SOURCES).ok_or_else(|| wrong(CLAIM_SOURCES, "is missing"))?;
        let mut sources = claim_sources(sources)
            .map_err(|_| wrong(CLAIM_SOURCES, "has a source that cannot be read"))?;
        let Some(name) = names.get(&self.claim) else { return Ok(None) };
        let source =
            sources.remove(name).ok_or_else(|| wrong(CLAIM_SOURCES, "lacks the source"))?;
        // A source without an endpoint contains the claims itself, which kube-apiserver does not
        // support.
        Ok(Some(source).filter(|source| !source.endpoint.is_empty()))
    }

    /// Returns the claim from the fetched token.
    async fn fetched(
        &self,
        answer: &Bytes,
        settings: &JwtSettings,
        now: SystemTime,
    ) -> Result<Value, OidcError> {
        let unusable = |problem| OidcError::Claim(self.claim.clone(), problem);
        let token = Jwt::parse(answer.trim_ascii())
            .ok_or(unusable("was fetched, but not as a signed token"))?;
        let issuer = self.issuer(token.issuer())?;
        let (mut claims, _) = verify_claims(&token, &issuer, settings, now).await?;
        claims.remove(&self.claim).ok_or(unusable("is not in the token that was fetched"))
    }

    fn issuer(&self, url: String) -> Result<Arc<Issuer>, OidcError> {
        let mut issuers = self.issuers.lock().expect("nothing panics while holding the lock");
        if let Some(issuer) = issuers.get(&url) {
            return Ok(issuer.clone());
        }
        if issuers.len() >= ISSUERS {
            let problem = "was fetched, but from too many issuers";
            return Err(OidcError::Claim(self.claim.clone(), problem));
        }
        let issuer = Issuer::start(url.clone(), None, self.fetcher.clone());
        issuers.insert(url, issuer);
        // Like in kube-apiserver, fetching its keys begins now, and only later tokens can be
        // verified.
        Err(OidcError::NotReady)
    }
}
