//! The proxy's own `Authorization` header.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::error::ConfigError;

/// The proxy's own `Authorization` header, never shown in `Debug`, and overwritten when another takes
/// its place.
pub struct Credentials {
    header: ArcSwap<HeaderValue>,
    file: Option<PathBuf>,
    /// Whether the last look at the file failed; a lasting failure is logged once.
    failing: AtomicBool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Credentials {
    /// A token that stays as it is; `field` is what errors call it.
    pub fn token(token: &str, field: &str) -> Result<Credentials, ConfigError> {
        Ok(Credentials::new(bearer(token, field)?, None))
    }

    /// A token in a file, which may change, as projected service account tokens do.
    pub fn token_file(path: &Path, field: &str) -> Result<Credentials, ConfigError> {
        let token = crate::regular_file::read_to_string(path).map_err(|source| {
            ConfigError::Read { field: field.to_owned(), path: path.to_owned(), source }
        })?;
        let token = Zeroizing::new(token);
        let field = format!("{field}: {}", path.display());
        Ok(Credentials::new(bearer(&token, &field)?, Some(path.to_owned())))
    }

    /// A user name and a password.
    pub fn basic(username: &str, password: &str) -> Credentials {
        let pair = Zeroizing::new(format!("{username}:{password}"));
        let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        let header = header("Basic ", &pair).expect("base64 has only characters of headers");
        Credentials::new(header, None)
    }

    fn new(header: HeaderValue, file: Option<PathBuf>) -> Credentials {
        Credentials { header: ArcSwap::from_pointee(header), file, failing: AtomicBool::new(false) }
    }

    /// The header's value now, marked as sensitive.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::clone(&self.header.load())
    }

    /// Reads the token file again, if there is one. A file that is missing, empty or half written
    /// leaves the last token in use.
    pub(super) fn refresh(&self) {
        let Some(path) = &self.file else { return };
        let field = path.display().to_string();
        let read = crate::regular_file::read_to_string(path).map_err(|source| ConfigError::Read {
            field: field.clone(),
            path: path.clone(),
            source,
        });
        let token = read.and_then(|token| bearer(&Zeroizing::new(token), &field));
        let failed_before = self.failing.swap(token.is_err(), Ordering::Relaxed);
        match token {
            Ok(header) if header != **self.header.load() => {
                tracing::info!(file = %field, "upstream token changed");
                self.header.store(header.into());
            }
            Ok(_) => {}
            Err(error) if !failed_before => {
                tracing::warn!(%error, "keeping the last upstream token");
            }
            Err(_) => {}
        }
    }
}

fn bearer(token: &str, field: &str) -> Result<HeaderValue, ConfigError> {
    let token = token.trim();
    if token.is_empty() {
        return Err(ConfigError::field(field, "the token is empty"));
    }
    header("Bearer ", token).ok_or_else(|| {
        ConfigError::field(field, "the token has characters that a header cannot have")
    })
}

/// A value that is overwritten when nobody has it any more; `None` for characters that no header
/// may have.
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
    fn a_token_file_is_read_again() {
        let path = std::env::temp_dir().join(format!("kap-token-{}", std::process::id()));
        std::fs::write(&path, "first\n").unwrap();
        let credentials = Credentials::token_file(&path, "--upstream-token-file").unwrap();
        assert_eq!(credentials.header(), "Bearer first");
        assert!(credentials.header().is_sensitive());
        std::fs::write(&path, "second").unwrap();
        credentials.refresh();
        assert_eq!(credentials.header(), "Bearer second");
        for unusable in ["", "\n", "a\nb"] {
            std::fs::write(&path, unusable).unwrap();
            credentials.refresh();
            assert_eq!(credentials.header(), "Bearer second");
        }
        std::fs::remove_file(&path).unwrap();
        credentials.refresh();
        assert_eq!(credentials.header(), "Bearer second");
        assert!(!format!("{credentials:?}").contains("second"));
        let error = Credentials::token_file(&path, "--upstream-token-file").unwrap_err();
        assert!(error.to_string().starts_with("--upstream-token-file: cannot read "), "{error}");
    }

    #[test]
    fn a_password_becomes_basic() {
        assert_eq!(Credentials::basic("admin", "pä:ss").header(), "Basic YWRtaW46cMOkOnNz");
    }

    #[test]
    fn a_wrong_token_is_not_shown() {
        let error = Credentials::token("se\ncret", "user.token").unwrap_err().to_string();
        assert_eq!(error, "user.token: the token has characters that a header cannot have");
    }
}
