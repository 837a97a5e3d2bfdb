//! Tokens of OpenID Connect issuers and others that sign JSON Web Tokens: those of `--oidc-*`, or
//! those of an `AuthenticationConfiguration`. The flags are one way to write down the same thing.
//!
//! | file | what it does |
//! |---|---|
//! | `settings` | an issuer, and how its claims make users |
//! | `issuer`, `fetch` | its keys, and how they are asked for |
//! | `authenticator` | is a token the issuer's, for us, and valid |
//! | `claims` | the claims of a token, of the types that they must have |
//! | `mapping` | from claims to a user |
//! | `distributed` | groups that are not in the token but have to be fetched |

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

/// The trusted issuers; they can be replaced while requests are processed.
pub struct JwtAuthenticators {
    current: ArcSwap<Vec<Arc<JwtAuthenticator>>>,
    metrics: Arc<AuthenticationMetrics>,
}

impl JwtAuthenticators {
    /// Begins to fetch the keys of all issuers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Returns the first issuer whose configuration cannot be used.
    pub fn new(
        settings: Vec<JwtSettings>,
        metrics: Arc<AuthenticationMetrics>,
    ) -> Result<JwtAuthenticators, IssuerError> {
        let authenticators = JwtAuthenticators { current: ArcSwap::default(), metrics };
        authenticators.replace(settings)?;
        Ok(authenticators)
    }

    /// Replaces the trusted issuers. Issuers whose keys are fetched in the same way as before keep
    /// their keys. The caller must clear the token cache afterwards.
    ///
    /// # Errors
    /// Returns the first issuer whose configuration cannot be used; then nothing has changed.
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

    /// Whose `token` is at the time `now`; `None` if its issuer is none of these.
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
