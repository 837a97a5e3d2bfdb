//! The `Authorization` header of the proxy's own requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::error::ConfigError;
use crate::exec::{CredentialError, ExecCredentials, OwnCredential};

/// The source of the `Authorization` header of the proxy's own requests.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A token or password, possibly in a file.
    Header(Arc<HeaderCredentials>),
    /// A credential plugin, which may return a client certificate instead of a token.
    Exec(Arc<ExecCredentials>),
}

/// A token or password. Never shown in `Debug`, and overwritten when another one replaces it.
pub struct HeaderCredentials {
    header: ArcSwap<HeaderValue>,
    file: Option<PathBuf>,
}

impl std::fmt::Debug for HeaderCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderCredentials").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Returns a token that does not change.
    ///
    /// # Errors
    /// If a header cannot have its characters; names `field`.
    pub fn token(token: &str, field: &str) -> Result<Credentials, ConfigError> {
        Ok(Credentials::fixed(bearer(token, field)?, None))
    }

    /// Returns a token in a file that may change, like a projected ServiceAccount token.
    ///
    /// # Errors
    /// If the file has no usable token; names `field`.
    pub fn token_file(path: &Path, field: &str) -> Result<Credentials, ConfigError> {
        let token = watched_files::regular_file::read_to_string(path).map_err(|source| {
            ConfigError::Read { field: field.to_owned(), path: path.to_owned(), source }
        })?;
        let token = Zeroizing::new(token);
        let field = format!("{field}: {}", path.display());
        Ok(Credentials::fixed(bearer(&token, &field)?, Some(path.to_owned())))
    }

    /// Returns a user name and a password.
    pub fn basic(username: &str, password: &str) -> Credentials {
        let pair = Zeroizing::new(format!("{username}:{password}"));
        let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        let header = header("Basic ", &pair).expect("base64 has only characters of headers");
        Credentials::fixed(header, None)
    }

    fn fixed(header: HeaderValue, file: Option<PathBuf>) -> Credentials {
        let header = ArcSwap::from_pointee(header);
        Credentials::Header(Arc::new(HeaderCredentials { header, file }))
    }

    /// Returns the credential if one is valid now; `None` if the plugin has yet to return it.
    pub fn current(&self) -> Option<OwnCredential> {
        match self {
            Credentials::Header(header) => Some(header.own()),
            Credentials::Exec(plugin) => plugin.current(),
        }
    }

    /// Returns a valid credential; waits for the plugin if there is none.
    ///
    /// # Errors
    /// If the plugin fails.
    pub async fn valid(&self) -> Result<OwnCredential, CredentialError> {
        match self {
            Credentials::Header(header) => Ok(header.own()),
            Credentials::Exec(plugin) => plugin.valid().await,
        }
    }

    /// Returns the current header, marked as sensitive.
    pub fn header(&self) -> Option<HeaderValue> {
        self.current()?.header
    }
}

impl HeaderCredentials {
    fn own(&self) -> OwnCredential {
        OwnCredential { header: Some(HeaderValue::clone(&self.header.load())), generation: None }
    }

    /// Returns the token file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Rereads the token file, if there is one.
    ///
    /// # Errors
    /// If it is missing, empty or partially written; the last token stays in use.
    pub(crate) fn refresh(&self) -> Result<(), ConfigError> {
        let Some(path) = &self.file else { return Ok(()) };
        let field = path.display().to_string();
        let token = watched_files::regular_file::read_to_string(path).map_err(|source| {
            ConfigError::Read { field: field.clone(), path: path.clone(), source }
        })?;
        let header = bearer(&Zeroizing::new(token), &field)?;
        if header != **self.header.load() {
            tracing::info!(file = %field, "upstream token reloaded");
            self.header.store(header.into());
        }
        Ok(())
    }
}

/// Returns `Bearer` and the token as a header.
///
/// # Errors
/// If the token is empty or a header cannot have its characters; names `field`, not the token.
pub(crate) fn bearer(token: &str, field: &str) -> Result<HeaderValue, ConfigError> {
    let token = token.trim();
    if token.is_empty() {
        return Err(ConfigError::field(field, "the token is empty"));
    }
    header("Bearer ", token).ok_or_else(|| {
        ConfigError::field(field, "the token has characters that a header cannot have")
    })
}

/// Returns a header whose memory is overwritten when the last clone is dropped; `None` if a header
/// cannot have its characters.
fn header(scheme: &str, secret: &str) -> Option<HeaderValue> {
    let mut text = Zeroizing::new(Vec::with_capacity(scheme.len() + secret.len()));
    text.extend_from_slice(scheme.as_bytes());
    text.extend_from_slice(secret.as_bytes());
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_reloaded() {
        let path = std::env::temp_dir().join(format!("kap-token-{}", std::process::id()));
        std::fs::write(&path, "first\n").unwrap();
        let credentials = Credentials::token_file(&path, "--upstream-token-file").unwrap();
        let Credentials::Header(file) = &credentials else { panic!("{credentials:?}") };
        assert_eq!(credentials.header().unwrap(), "Bearer first");
        assert!(credentials.header().unwrap().is_sensitive());
        std::fs::write(&path, "second").unwrap();
        file.refresh().unwrap();
        assert_eq!(credentials.header().unwrap(), "Bearer second");
        for unusable in ["", "\n", "a\nb"] {
            std::fs::write(&path, unusable).unwrap();
            let error = file.refresh().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: the token ", path.display())), "{error}");
            assert_eq!(credentials.header().unwrap(), "Bearer second");
        }
        std::fs::remove_file(&path).unwrap();
        file.refresh().unwrap_err();
        assert_eq!(credentials.header().unwrap(), "Bearer second");
        assert!(!format!("{credentials:?}").contains("second"));
        let error = Credentials::token_file(&path, "--upstream-token-file").unwrap_err();
        assert!(error.to_string().starts_with("--upstream-token-file: cannot read "), "{error}");
    }

    #[test]
    fn a_password_becomes_basic() {
        assert_eq!(
            Credentials::basic("admin", "pä:ss").header().unwrap(),
            "Basic YWRtaW46cMOkOnNz"
        );
    }

    #[test]
    fn an_invalid_token_is_not_printed() {
        let error = Credentials::token("se\ncret", "user.token").unwrap_err().to_string();
        assert_eq!(error, "user.token: the token has characters that a header cannot have");
    }
}
