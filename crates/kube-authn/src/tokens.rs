//! Authenticates bearer tokens: tries the authenticators in kube-apiserver's order.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::fair_queue::Source;
use super::jwt::Jwt;
use super::oidc::JwtAuthenticators;
use super::service_account::{ServiceAccountError, ServiceAccounts};
use super::token_cache::{TokenCache, TokenId, TokenUser};
use super::token_review::{TokenReview, Unavailable};
use super::verified::Verified;
use super::{AuthenticationError, TokenFile};

/// How long a locally verified token is cached, like in kube-apiserver. Failures are not cached.
const VERIFIED: Duration = Duration::from_secs(10);

/// Tries all configured authenticators for bearer tokens (Kubernetes' union token authenticator).
pub struct UnionTokenAuthenticator {
    /// `--token-auth-file`
    pub file: Option<TokenFile>,
    /// `--service-account-key-file`, `--service-account-keys-from-upstream`
    pub service_accounts: Option<Arc<ServiceAccounts>>,
    /// `--oidc-*` or `--authentication-config`
    pub oidc: Option<Arc<JwtAuthenticators>>,
    /// `--authentication-token-review`, `--authentication-token-webhook-config-file`
    pub review: Option<Arc<TokenReview>>,
    /// The cache of tokens. Those of `file` only need its [`TokenCache::id`].
    pub cache: Arc<TokenCache>,
}

impl UnionTokenAuthenticator {
    /// Authenticates a token that was received from `source`.
    ///
    /// # Errors
    /// Returns an error if the token is invalid, or cannot be verified at the moment; the reason is
    /// logged.
    pub async fn user(
        &self,
        token: &[u8],
        source: Source,
    ) -> Result<TokenUser, AuthenticationError> {
        let has_issuers = self.oidc.as_ref().is_some_and(|issuers| !issuers.is_empty());
        let is_verified = self.service_accounts.is_some() || has_issuers || self.review.is_some();
        if self.file.is_none() && !is_verified {
            tracing::debug!("invalid bearer token");
            return Err(AuthenticationError::Unauthorized);
        }
        let id = self.cache.id(token);
        if let Some(user) = self.file.as_ref().and_then(|file| file.user(&id)) {
            return Ok(user.clone().into());
        }
        if !is_verified {
            tracing::debug!("invalid bearer token");
            return Err(AuthenticationError::Unauthorized);
        }
        if let Some(user) = self.cache.user(&id) {
            return Ok(user);
        }
        // Boxed because it is large and rarely needed, and each request future would contain it.
        Box::pin(self.authenticate_uncached(id, token, source)).await
    }

    /// Verifies a token that is not cached, or sends a TokenReview for it.
    async fn authenticate_uncached(
        &self,
        id: TokenId,
        token: &[u8],
        source: Source,
    ) -> Result<TokenUser, AuthenticationError> {
        let (now, since) = (SystemTime::now(), self.cache.generation());
        let verified = match Jwt::parse(token) {
            Some(jwt) => self.verify(&jwt, now).await,
            None => Ok(None),
        };
        if let Ok(Some(Verified { user, expires, annotations })) = verified {
            let annotations = (!annotations.is_empty()).then(|| annotations.into());
            let user = TokenUser { user: Arc::new(user.into()), annotations };
            let left = expires.map_or(VERIFIED, |end| end.duration_since(now).unwrap_or_default());
            self.cache.insert_user(since, id, user.clone(), left.min(VERIFIED));
            return Ok(user);
        }
        let answer = match &self.review {
            Some(review) => review.user(id, token, source).await,
            None => verified.map(|_| None),
        };
        match answer {
            Ok(Some(user)) => Ok(user.into()),
            Ok(None) => {
                tracing::debug!("invalid bearer token");
                Err(AuthenticationError::Unauthorized)
            }
            Err(Unavailable) => Err(AuthenticationError::Unavailable),
        }
    }

    /// Tries the authenticators that verify tokens with keys; `None` if none of them is
    /// responsible.
    async fn verify(
        &self,
        token: &Jwt<'_>,
        now: SystemTime,
    ) -> Result<Option<Verified>, Unavailable> {
        let mut unavailable = false;
        if let Some(accounts) = &self.service_accounts {
            match accounts.verify(token, now).await {
                Ok(Some(verified)) => return Ok(Some(verified)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "bad service account token");
                    unavailable |= error == ServiceAccountError::NotReady;
                }
            }
        }
        if let Some(oidc) = &self.oidc {
            match oidc.verify(token, now).await {
                Ok(Some(verified)) => return Ok(Some(verified)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "bad OIDC token");
                    unavailable |= error.is_temporary();
                }
            }
        }
        if unavailable { Err(Unavailable) } else { Ok(None) }
    }
}
