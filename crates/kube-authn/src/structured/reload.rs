//! Reloads the file when it changes: issuers and anonymous access change with it, or stay active if
//! the new content is invalid.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::load::{self, AuthenticationConfiguration, LoadError};
use crate::AuthenticationMetrics;
use crate::anonymous::Anonymous;
use crate::oidc::{IssuerError, JwtAuthenticators};
use crate::token_cache::TokenCache;

/// The active file.
pub struct AuthenticationConfigFile {
    path: PathBuf,
    disallowed_issuers: Vec<String>,
    /// `--anonymous-auth`, if it was given.
    anonymous_auth: Option<bool>,
    authenticators: Arc<JwtAuthenticators>,
    anonymous: Arc<ArcSwap<Anonymous>>,
    cache: Arc<TokenCache>,
}

/// Why the file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The configuration is invalid. The message has one problem per line.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file and a flag both set anonymous authentication.
    #[error("{path}: --anonymous-auth cannot be given where the file has \"anonymous\"; remove the flag or the member", path = path.display())]
    AnonymousTwice {
        /// The file.
        path: PathBuf,
    },
    /// The configuration of an issuer cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Issuer {
        /// The file.
        path: PathBuf,
        /// The error.
        source: IssuerError,
    },
}

impl AuthenticationConfigFile {
    /// Loads the file at `path`. Reloads clear the token cache `cache`. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// See [`ConfigFileError`].
    pub fn open(
        path: &Path,
        disallowed_issuers: Vec<String>,
        anonymous_auth: Option<bool>,
        cache: Arc<TokenCache>,
        metrics: Arc<AuthenticationMetrics>,
    ) -> Result<AuthenticationConfigFile, ConfigFileError> {
        let file = AuthenticationConfigFile {
            path: path.to_owned(),
            disallowed_issuers,
            anonymous_auth,
            authenticators: Arc::new(
                JwtAuthenticators::new(Vec::new(), metrics)
                    .map_err(|source| ConfigFileError::Issuer { path: path.to_owned(), source })?,
            ),
            anonymous: Arc::new(ArcSwap::from_pointee(Anonymous::Nowhere)),
            cache,
        };
        file.reload()?;
        Ok(file)
    }

    /// Returns the issuers, which follow reloads.
    pub fn authenticators(&self) -> Arc<JwtAuthenticators> {
        self.authenticators.clone()
    }

    /// Returns the rules for anonymous requests, which follow reloads.
    pub fn anonymous(&self) -> Arc<ArcSwap<Anonymous>> {
        self.anonymous.clone()
    }

    /// Reloads the file. Tokens of issuers that are no longer in it are rejected from then on.
    ///
    /// # Errors
    /// See [`ConfigFileError`]; the current content stays active.
    pub fn reload(&self) -> Result<(), ConfigFileError> {
        let loaded = load::load(&self.path, &self.disallowed_issuers)?;
        let AuthenticationConfiguration { jwt, anonymous, warnings } = loaded;
        let anonymous = match (anonymous, self.anonymous_auth) {
            (Some(_), Some(_)) => {
                return Err(ConfigFileError::AnonymousTwice { path: self.path.clone() });
            }
            (Some(anonymous), None) => anonymous,
            (None, flag) => flag.unwrap_or(true).into(),
        };
        let issuers: Vec<String> = jwt.iter().map(|one| one.issuer.url.clone()).collect();
        self.authenticators
            .replace(jwt)
            .map_err(|source| ConfigFileError::Issuer { path: self.path.clone(), source })?;
        self.anonymous.store(Arc::new(anonymous));
        // Cleared last, so that later cache entries were verified by the new issuers.
        self.cache.clear();
        for warning in warnings {
            tracing::warn!("--authentication-config: {warning}");
        }
        tracing::info!(file = %self.path.display(), ?issuers, "authentication configuration loaded");
        Ok(())
    }
}
