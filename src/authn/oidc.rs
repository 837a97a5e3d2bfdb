//! ID tokens of an OpenID Connect issuer (`--oidc-*`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::UserInfo;
use super::issuer::{Issuer, IssuerError, Signature};
use super::jwt::{Algorithm, Jwt, one_or_many};
use super::service_account::{Verified, time};

/// How far `nbf` may lie ahead, as with kube-apiserver. `exp` has no leeway.
const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(5 * 60);
/// Names that Kubernetes has reserved for itself.
const RESERVED: &str = "system:";

/// The issuer that is believed, and how its claims make users.
pub struct Oidc {
    issuer: Arc<Issuer>,
    settings: OidcSettings,
}

/// The `--oidc-*` flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`, which must be an audience.
    pub client_id: String,
    /// `--oidc-username-claim`
    pub username_claim: String,
    /// Put before user names; empty for nothing.
    pub username_prefix: String,
    /// `--oidc-groups-claim`
    pub groups_claim: Option<String>,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// `--oidc-required-claim`
    pub required_claims: Vec<(String, String)>,
    /// `--oidc-signing-algs`
    pub signing_algs: Vec<Algorithm>,
    /// `--oidc-ca-file`
    pub ca_file: Option<PathBuf>,
}

/// Why a token of the issuer is refused. For the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The issuer's keys could not be fetched yet.
    #[error("oidc: authenticator not initialized")]
    NotReady,
    /// Not the issuer's signature.
    #[error("oidc: failed to verify signature")]
    Signature,
    /// An algorithm that `--oidc-signing-algs` does not have.
    #[error("oidc: signing algorithm {0:?} is not among --oidc-signing-algs")]
    Algorithm(Algorithm),
    /// Its claims cannot be read.
    #[error("oidc: claims cannot be read: {0}")]
    Claims(String),
    /// It is for others.
    #[error("oidc: expected audience {0:?}")]
    Audience(String),
    /// `exp`
    #[error("oidc: token is expired")]
    Expired,
    /// `nbf`
    #[error("oidc: current time before the nbf (not before) time")]
    NotValidYet,
    /// A claim is missing or is not what it must be.
    #[error("oidc: claim {0:?} {1}")]
    Claim(String, &'static str),
}

#[derive(Deserialize)]
struct Public {
    #[serde(default, deserialize_with = "one_or_many")]
    aud: Vec<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Oidc {
    /// Begins to fetch the issuer's keys. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub fn new(settings: OidcSettings) -> Result<Oidc, IssuerError> {
        let issuer = Issuer::new(settings.issuer_url.clone(), settings.ca_file.as_deref())?;
        Ok(Oidc { issuer, settings })
    }

    /// Whose `token` is at the time `now`; `None` if its issuer is another.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub async fn verify(
        &self,
        token: &Jwt<'_>,
        now: SystemTime,
    ) -> Result<Option<Verified>, OidcError> {
        if !is_issuer(self.issuer.url(), &token.issuer()) {
            return Ok(None);
        }
        if !self.settings.signing_algs.contains(&token.algorithm) {
            return Err(OidcError::Algorithm(token.algorithm));
        }
        let public: Public = serde_json::from_slice(&token.claims)
            .map_err(|error| OidcError::Claims(error.to_string()))?;
        let expires = self.settings.check(&public, now)?;
        match self.issuer.verify(token).await {
            Signature::Good => {}
            Signature::Bad => return Err(OidcError::Signature),
            Signature::KeysUnknown => return Err(OidcError::NotReady),
        }
        let claims: Map<String, Value> = serde_json::from_slice(&token.claims)
            .map_err(|error| OidcError::Claims(error.to_string()))?;
        let user = self.settings.user(&claims)?;
        Ok(Some(Verified { user, expires: Some(expires), annotations: Vec::new() }))
    }
}

/// Google's tokens may leave out the scheme.
fn is_issuer(ours: &str, theirs: &str) -> bool {
    let theirs =
        if theirs == "accounts.google.com" { "https://accounts.google.com" } else { theirs };
    ours == theirs
}

impl OidcSettings {
    fn check(&self, public: &Public, now: SystemTime) -> Result<SystemTime, OidcError> {
        if !public.aud.contains(&self.client_id) {
            return Err(OidcError::Audience(self.client_id.clone()));
        }
        let expires = public.exp.and_then(time).filter(|expires| *expires >= now);
        let expires = expires.ok_or(OidcError::Expired)?;
        if public.nbf.and_then(time).is_some_and(|nbf| now + NOT_BEFORE_LEEWAY < nbf) {
            return Err(OidcError::NotValidYet);
        }
        Ok(expires)
    }

    fn user(&self, claims: &Map<String, Value>) -> Result<UserInfo, OidcError> {
        for (name, required) in &self.required_claims {
            if claims.get(name).and_then(Value::as_str) != Some(required) {
                let problem = "is not what --oidc-required-claim says";
                return Err(OidcError::Claim(name.clone(), problem));
            }
        }
        let mut extra = BTreeMap::new();
        if let Some(jti) = claims.get("jti").and_then(Value::as_str) {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            extra.insert(key, vec![format!("JTI={jti}")]);
        }
        let user = UserInfo {
            username: self.username(claims)?,
            uid: String::new(),
            groups: self.groups(claims)?,
            extra,
        };
        Ok(user.into_authenticated())
    }

    fn username(&self, claims: &Map<String, Value>) -> Result<String, OidcError> {
        let name = &self.username_claim;
        let wrong = |problem| OidcError::Claim(name.clone(), problem);
        let value = claims.get(name).ok_or(wrong("is missing"))?;
        let value = value.as_str().ok_or(wrong("is no string"))?;
        let unverified = claims.get("email_verified").is_some_and(|v| *v != Value::Bool(true));
        if name == "email" && unverified {
            return Err(OidcError::Claim("email_verified".to_owned(), "is not true"));
        }
        let username = format!("{}{value}", self.username_prefix);
        if username.is_empty() {
            return Err(wrong("is empty"));
        }
        // An issuer names people; what the cluster calls its own parts is not for it to say.
        if username.starts_with(RESERVED) && !self.username_prefix.starts_with(RESERVED) {
            return Err(wrong("begins with system:, which is Kubernetes' own"));
        }
        Ok(username)
    }

    fn groups(&self, claims: &Map<String, Value>) -> Result<Vec<String>, OidcError> {
        let Some(name) = &self.groups_claim else { return Ok(Vec::new()) };
        let wrong = || OidcError::Claim(name.clone(), "is neither a string nor a list of strings");
        let groups = match claims.get(name) {
            None => Vec::new(),
            Some(Value::String(group)) => vec![group.as_str()],
            Some(Value::Array(groups)) => {
                let groups = groups.iter().map(|group| group.as_str().ok_or_else(wrong));
                groups.collect::<Result<_, _>>()?
            }
            Some(_) => return Err(wrong()),
        };
        let prefixed = groups.iter().map(|group| format!("{}{group}", self.groups_prefix));
        let is_reserved = |group: &String| {
            let is_reserved =
                group.starts_with(RESERVED) && !self.groups_prefix.starts_with(RESERVED);
            if is_reserved {
                tracing::debug!(group, "an OIDC token's group that is Kubernetes' own is left out");
            }
            is_reserved
        };
        Ok(prefixed.filter(|group| !is_reserved(group)).collect())
    }
}

#[cfg(test)]
#[path = "oidc_tests.rs"]
mod tests;
