//! Authenticates tokens of one issuer: verifies signature, audience and validity, and maps the
//! claims to a user.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::claims::Registered;
use super::distributed::Distributed;
use super::issuer::{Issuer, IssuerError, Signature};
use super::mapping::Mapped;
use super::settings::{JwtSettings, NameMapping};
use crate::AuthenticationMetrics;
use crate::cel::EvaluationError;
use crate::jwt::{Algorithm, Jwt};
use crate::verified::Verified;

/// How far `nbf` may be in the future, like in kube-apiserver. `exp` has no leeway.
const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(60);

/// A trusted issuer, and how its claims are mapped to users.
pub(super) struct JwtAuthenticator {
    issuer: Arc<Issuer>,
    settings: JwtSettings,
    distributed: Option<Distributed>,
    metrics: Arc<AuthenticationMetrics>,
}

/// Why a token of the issuer is rejected, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The issuer's keys could not be fetched yet.
    #[error("oidc: authenticator not initialized")]
    NotReady,
    /// Something that the token refers to could not be fetched.
    #[error("oidc: a distributed claim could not be fetched")]
    Unavailable,
    /// The issuer did not sign the token.
    #[error("oidc: failed to verify signature")]
    Signature,
    /// The algorithm is not accepted.
    #[error("oidc: signing algorithm {0:?} is not accepted")]
    Algorithm(Algorithm),
    /// The claims cannot be parsed.
    #[error("oidc: claims cannot be read: {0}")]
    Claims(String),
    /// The token has other audiences.
    #[error("oidc: expected audience in {0:?}")]
    Audience(Vec<String>),
    /// The time in `exp` has passed.
    #[error("oidc: token is expired")]
    Expired,
    /// The time in `nbf` is in the future.
    #[error("oidc: current time before the nbf (not before) time")]
    NotValidYet,
    /// A claim is missing or has an invalid value.
    #[error("oidc: claim {0:?} {1}")]
    Claim(String, &'static str),
    /// The user name is empty.
    #[error("oidc: the user name is empty")]
    NoName,
    /// The user name is reserved for Kubernetes.
    #[error(
        "oidc: user name {0:?} begins with system:, which is reserved for Kubernetes; to accept it, configure a prefix, or a literal in the expression, that begins with system:"
    )]
    Reserved(String),
    /// The token has a group that no authenticated user may have.
    #[error("oidc: group {0:?} is not for authenticated users")]
    Unauthenticated(&'static str),
    /// The evaluation of an expression failed.
    #[error("oidc: error evaluating {0} expression: {1}")]
    Expression(&'static str, EvaluationError),
    /// A validation rule rejects the token.
    #[error("oidc: validation expression '{expression}' failed: {message}")]
    Rule {
        /// The rule.
        expression: String,
        /// The configured message.
        message: String,
    },
}

impl OidcError {
    /// Returns whether the same token could be valid later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, OidcError::NotReady | OidcError::Unavailable)
    }
}

impl JwtAuthenticator {
    /// Creates an authenticator with the keys of `known`, or otherwise starts fetching them. Must
    /// be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub(super) fn new(
        settings: JwtSettings,
        known: Option<Arc<Issuer>>,
        metrics: Arc<AuthenticationMetrics>,
    ) -> Result<JwtAuthenticator, IssuerError> {
        let issuer = match known {
            Some(issuer) => issuer,
            None => Issuer::new(&settings.issuer)?,
        };
        let distributed = match &settings.groups {
            Some(NameMapping::Claim { claim, .. }) => {
                Some(Distributed::new(claim.clone(), issuer.fetcher().clone()))
            }
            _ => None,
        };
        Ok(JwtAuthenticator { issuer, settings, distributed, metrics })
    }

    pub(super) fn settings(&self) -> &JwtSettings {
        &self.settings
    }

    pub(super) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Returns whether the claim `iss` names this issuer.
    pub(super) fn is_of(&self, issuer: &str) -> bool {
        // Google's tokens may omit the scheme.
        let issuer =
            if issuer == "accounts.google.com" { "https://accounts.google.com" } else { issuer };
        self.issuer.url() == issuer
    }

    /// Authenticates `token`, whose claimed issuer is this one, at the time `now`.
    pub(super) async fn verify(
        &self,
        token: &Jwt<'_>,
        now: SystemTime,
    ) -> Result<Verified, OidcError> {
        let (mut claims, expires) = verify_claims(token, &self.issuer, &self.settings, now).await?;
        if let Some(distributed) = &self.distributed {
            distributed.expand(&mut claims, &self.settings, now).await?;
        }
        let issuer = self.issuer.url();
        let mapped = self.settings.user(&claims).inspect_err(|error| {
            if let OidcError::Reserved(username) = error {
                self.metrics.reserved_names.inc();
                tracing::warn!(issuer, username, "token rejected: {error}");
            }
        })?;
        let Mapped { user, reserved_groups } = mapped;
        if !reserved_groups.is_empty() {
            self.metrics.reserved_names.inc_by(reserved_groups.len() as u64);
            let username = &user.username;
            tracing::debug!(
                issuer,
                username,
                ?reserved_groups,
                "removed groups that are reserved for Kubernetes"
            );
        }
        Ok(Verified { user, expires: Some(expires), annotations: Vec::new() })
    }
}

/// Verifies that `issuer` has signed the token and that `settings` allow its use. Returns the
/// claims and the time of expiry.
pub(super) async fn verify_claims(
    token: &Jwt<'_>,
    issuer: &Issuer,
    settings: &JwtSettings,
    now: SystemTime,
) -> Result<(Map<String, Value>, SystemTime), OidcError> {
    if !settings.algorithms.contains(&token.algorithm) {
        return Err(OidcError::Algorithm(token.algorithm));
    }
    let unreadable = |error: serde_json::Error| OidcError::Claims(error.to_string());
    let registered = Registered::parse(&token.claims).map_err(unreadable)?;
    if !registered.audiences.iter().any(|audience| settings.audiences.contains(audience)) {
        return Err(OidcError::Audience(settings.audiences.clone()));
    }
    let expires = registered.expires.map(time).filter(|expires| *expires >= now);
    let expires = expires.ok_or(OidcError::Expired)?;
    if registered.not_before.is_some_and(|nbf| now + NOT_BEFORE_LEEWAY < time(nbf)) {
        return Err(OidcError::NotValidYet);
    }
    match issuer.verify(token).await {
        Signature::Good => {}
        Signature::Bad => return Err(OidcError::Signature),
        Signature::KeysUnknown => return Err(OidcError::NotReady),
    }
    Ok((serde_json::from_slice(&token.claims).map_err(unreadable)?, expires))
}

/// Converts seconds since 1970 to a time. Earlier times become 1970, times out of range a distant
/// one.
fn time(seconds: i64) -> SystemTime {
    const FAR: Duration = Duration::from_secs(1 << 40);
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH + FAR)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod replay;
