//! Fetches documents of issuers over HTTPS, with limits on time and size, and without following
//! redirects.

use std::path::Path;

use api_client::{
    ApiClient, ApiRequest, ClientConfig, Endpoint, Pem, RequestErrorKind, Trust, tls::system_roots,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::issuer::IssuerError;
use super::settings::CaSource;
use pki::Roots;

/// Fetches documents from one issuer, and from other servers with certificates of the same CAs.
pub(super) struct Fetcher {
    /// `None` if nothing is ever fetched.
    client: Option<ApiClient>,
}

/// Why a document could not be fetched, for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The URL is not https.
    #[error("{0}: not an https URL")]
    Url(String),
    /// There was no connection, or no response.
    #[error("{url}: {reason}")]
    Request {
        /// The requested URL.
        url: Uri,
        /// The reason.
        reason: String,
    },
    /// The status code is not 200.
    #[error("{url}: responded with {code}")]
    Code {
        /// The requested URL.
        url: Uri,
        /// The code.
        code: u16,
    },
    /// The response was interrupted.
    #[error("{url}: longer than 1 MiB, or interrupted")]
    Body {
        /// The requested URL.
        url: Uri,
    },
    /// The response did not end in time.
    #[error("{url}: no response within 10 s")]
    Late {
        /// The requested URL.
        url: Uri,
    },
}

impl Fetcher {
    /// Creates a fetcher that trusts these CAs; a CA file is reloaded when it changes. `url` is
    /// that of the issuer. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if there is no CA, or it cannot be parsed.
    pub(super) fn new(ca: &CaSource, url: &str) -> Result<Fetcher, IssuerError> {
        let trust = match ca {
            CaSource::System => {
                system_roots().ok_or(IssuerError::NoSystemCa)?;
                Trust::System
            }
            CaSource::File(path) => {
                file_roots(path)?;
                Trust::Ca(Pem::file("the issuer's CA", path))
            }
            CaSource::Pem(pem) => {
                pem_roots(pem).map_err(IssuerError::Pem)?;
                let field = "certificateAuthority".to_owned();
                Trust::Ca(Pem::Data { field, bytes: pem.clone().into_bytes() })
            }
        };
        let unusable = |error: api_client::ConfigError| IssuerError::Pem(error.to_string());
        // A URL with a query or credentials was rejected before. The URL is used for messages; each
        // request has a URL of its own.
        let mut config = ClientConfig::new(Endpoint::parse(url, "issuer").map_err(unusable)?);
        config.trust = trust;
        let client = ApiClient::new(config, "the token issuer").map_err(unusable)?;
        Ok(Fetcher { client: Some(client) })
    }

    /// Creates a fetcher that never fetches anything.
    #[cfg(test)]
    pub(super) fn never() -> Fetcher {
        Fetcher { client: None }
    }

    /// Fetches the document at `url`, with this bearer token.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(super) async fn get(
        &self,
        url: &str,
        token: Option<&str>,
    ) -> Result<(Uri, Bytes), FetchError> {
        let url: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        if url.scheme_str() != Some("https") {
            return Err(FetchError::Url(url.to_string()));
        }
        let broken = |reason: String| FetchError::Request { url: url.clone(), reason };
        let text = url.to_string();
        let mut request = ApiRequest { headers: HeaderMap::new(), ..ApiRequest::get(&text) };
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| broken("its access token cannot be sent".to_owned()))?;
            value.set_sensitive(true);
            request.headers.insert(header::AUTHORIZATION, value);
        }
        let Some(client) = &self.client else { return Err(broken("is not fetched".to_owned())) };
        let response = client.request(&request).await.map_err(|error| match error.kind {
            RequestErrorKind::Timeout { .. } => FetchError::Late { url: url.clone() },
            RequestErrorKind::TooLarge { .. } => FetchError::Body { url: url.clone() },
            kind => broken(kind.to_string()),
        })?;
        match response.status().as_u16() {
            200 => Ok((url, response.into_body())),
            code => Err(FetchError::Code { url, code }),
        }
    }
}

fn file_roots(path: &Path) -> Result<Roots, IssuerError> {
    let unusable = |reason: String| IssuerError::CaFile { path: path.to_owned(), reason };
    let pem =
        watched_files::regular_file::read(path).map_err(|error| unusable(error.to_string()))?;
    roots_of(&pem, &path.display().to_string()).map_err(unusable)
}

/// Returns the CAs in a PEM text.
///
/// # Errors
/// Returns why there are none.
pub(crate) fn pem_roots(pem: &str) -> Result<Roots, String> {
    roots_of(pem.as_bytes(), "certificateAuthority")
}

fn roots_of(pem: &[u8], name: &str) -> Result<Roots, String> {
    let mut roots = Roots::new(name);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| format!("a certificate in it {error}"))?;
    }
    if roots.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ca_files_must_have_certificates() {
        let dir = test_support::TempDir::new();
        let error = file_roots(&dir.write("ca.crt", "nothing")).unwrap_err().to_string();
        assert!(error.contains("ca.crt: no certificate in it"), "{error}");
        assert!(file_roots(&dir.path().join("absent")).is_err());
        assert!(pem_roots("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----").is_err());
    }

    #[tokio::test]
    async fn only_https_urls_are_fetched() {
        let fetcher = Fetcher::never();
        for url in ["http://127.0.0.1:1/", "ftp://a", "a", ""] {
            let error = fetcher.get(url, None).await.unwrap_err();
            assert!(matches!(error, FetchError::Url(_)), "{url}: {error}");
        }
        let error = fetcher.get("https://127.0.0.1:1/", Some("a\nb")).await.unwrap_err();
        assert!(error.to_string().contains("access token cannot be sent"), "{error}");
    }
}
