//! Authenticates JSON Web Tokens of OpenID Connect issuers and others, configured with `--oidc-*`
//! or an `AuthenticationConfiguration`. Both result in the same settings.
//!
//! | file | contents |
//! |---|---|
//! | `settings` | the settings of an issuer and its claim mappings |
//! | `issuer`, `fetch` | its keys, and how they are fetched |
//! | `authenticator` | verifies signature, audience and validity of a token |
//! | `claims` | the claims of a token and their types |
//! | `mapping` | maps claims to a user |
//! | `distributed` | fetches groups that are not in the token |

mod authenticator;
mod claims;
mod distributed;
mod fetch;
mod issuer;
mod mapping;
mod settings;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use self::authenticator::JwtAuthenticator;
use super::jwt::Jwt;
use super::verified::Verified;
use crate::AuthenticationMetrics;

pub(crate) use authenticator::OidcError;
pub(crate) use fetch::pem_roots;
pub use issuer::IssuerError;
pub use settings::{CaSource, ClaimRule, IssuerSettings, JwtSettings, NameMapping};
pub(crate) use settings::{ExtraMapping, Rule, UidMapping};

/// The trusted issuers. They can be replaced while requests are processed.
pub struct JwtAuthenticators {
    current: ArcSwap<Vec<Arc<JwtAuthenticator>>>,
    metrics: Arc<AuthenticationMetrics>,
}

impl JwtAuthenticators {
    /// Starts fetching the keys of all issuers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Returns an error for the first issuer whose configuration cannot be used.
    pub fn new(
        settings: Vec<JwtSettings>,
        metrics: Arc<AuthenticationMetrics>,
    ) -> Result<JwtAuthenticators, IssuerError> {
        let authenticators = JwtAuthenticators { current: ArcSwap::default(), metrics };
        authenticators.replace(settings)?;
        Ok(authenticators)
    }

    /// Replaces the trusted issuers. An issuer keeps its keys if the settings for fetching them are
    /// unchanged. The caller must clear the token cache afterwards.
    ///
    /// # Errors
    /// Returns an error for the first issuer whose configuration cannot be used; the current
    /// issuers stay active.
    pub fn replace(&self, settings: Vec<JwtSettings>) -> Result<(), IssuerError> {
        let before = self.current.load();
        let new = |settings: JwtSettings| {
            let known = before.iter().find(|known| known.settings().issuer == settings.issuer);
            let known = known.map(|known| known.issuer().clone());
            JwtAuthenticator::new(settings, known, self.metrics.clone()).map(Arc::new)
        };
        let new = settings.into_iter().map(new).collect::<Result<Vec<_>, _>>()?;
        self.current.store(Arc::new(new));
        Ok(())
    }

    /// Returns whether there are no issuers.
    pub fn is_empty(&self) -> bool {
        self.current.load().is_empty()
    }

    /// Verifies `token` at the time `now` and returns its user; `None` if none of the issuers has
    /// issued it.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub async fn verify(
        &self,
        token: &Jwt<'_>,
        now: SystemTime,
    ) -> Result<Option<Verified>, OidcError> {
        let issuer = token.issuer();
        let current = self.current.load();
        let found = current.iter().find(|known| known.is_of(&issuer)).cloned();
        drop(current);
        match found {
            Some(authenticator) => authenticator.verify(token, now).await.map(Some),
            None => Ok(None),
        }
    }
}
