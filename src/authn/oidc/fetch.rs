//! What issuers have to say, over HTTPS: within bounds of time and size, and no redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::issuer::IssuerError;
use super::settings::CaSource;
use crate::upstream::{DialService, system_roots};

/// How long one fetch may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Size of what is fetched.
const LIMIT: usize = 1 << 20;

/// Asks one issuer, and whoever has a certificate that is as good as the issuer's.
pub struct Fetcher {
    client: Client<HttpsConnector<DialService>, Empty<Bytes>>,
}

/// Why something could not be fetched. For the log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Only https is asked.
    #[error("{0}: no https URL")]
    Url(String),
    /// No connection, or no answer on it.
    #[error("{url}: {reason}")]
    Request {
        /// What was asked for.
        url: Uri,
        /// Why.
        reason: String,
    },
    /// Not 200.
    #[error("{url}: answered {code}")]
    Code {
        /// What was asked for.
        url: Uri,
        /// The code.
        code: u16,
    },
    /// The answer did not end well.
    #[error("{url}: longer than 1 MiB, or broken off")]
    Body {
        /// What was asked for.
        url: Uri,
    },
    /// The answer did not end in time.
    #[error("{url}: no answer within 10 s")]
    Late {
        /// What was asked for.
        url: Uri,
    },
}

impl Fetcher {
    /// Believes these CAs.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn new(ca: &CaSource) -> Result<Fetcher, IssuerError> {
        let roots = match ca {
            CaSource::System => system_roots().ok_or(IssuerError::NoSystemCa)?,
            CaSource::File(path) => file_roots(path)?,
            CaSource::Pem(pem) => pem_roots(pem).map_err(IssuerError::Pem)?,
        };
        Ok(Fetcher::with_roots(roots))
    }

    /// Believes these CAs.
    pub fn with_roots(roots: RootCertStore) -> Fetcher {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(DialService { timeout: TIMEOUT });
        Fetcher { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// What is at `url`, asked for with this bearer token.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get(&self, url: &str, token: Option<&str>) -> Result<(Uri, Bytes), FetchError> {
        let url: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        if url.scheme_str() != Some("https") {
            return Err(FetchError::Url(url.to_string()));
        }
        let broken = |reason: String| FetchError::Request { url: url.clone(), reason };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url.clone();
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| broken("its access token cannot be sent".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let getting = async {
            let response = self.client.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                broken(cause.unwrap_or_else(|| error.to_string()))
            })?;
            let code = response.status().as_u16();
            if code != 200 {
                return Err(FetchError::Code { url: url.clone(), code });
            }
            let body = Limited::new(response.into_body(), LIMIT).collect().await;
            let body = body.map_err(|_| FetchError::Body { url: url.clone() })?;
            Ok((url.clone(), body.to_bytes()))
        };
        match tokio::time::timeout(TIMEOUT, getting).await {
            Ok(got) => got,
            Err(_) => Err(FetchError::Late { url }),
        }
    }
}

fn file_roots(path: &Path) -> Result<RootCertStore, IssuerError> {
    let unusable = |reason: String| IssuerError::CaFile { path: path.to_owned(), reason };
    let pem = crate::regular_file::read(path).map_err(|error| unusable(error.to_string()))?;
    roots_of(&pem).map_err(unusable)
}

/// The CAs in a PEM text.
///
/// # Errors
/// Why there are none.
pub fn pem_roots(pem: &str) -> Result<RootCertStore, String> {
    roots_of(pem.as_bytes())
}

fn roots_of(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ca_files_must_have_certificates() {
        let dir = crate::test_dir::TestDir::new();
        let error = file_roots(&dir.write("ca.crt", "nothing")).unwrap_err().to_string();
        assert!(error.contains("ca.crt: no certificate in it"), "{error}");
        assert!(file_roots(&dir.path().join("absent")).is_err());
        assert!(pem_roots("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----").is_err());
    }

    #[tokio::test]
    async fn only_https_is_asked() {
        let fetcher = Fetcher::with_roots(RootCertStore::empty());
        for url in ["http://127.0.0.1:1/", "ftp://a", "a", ""] {
            let error = fetcher.get(url, None).await.unwrap_err();
            assert!(matches!(error, FetchError::Url(_)), "{url}: {error}");
        }
        let error = fetcher.get("https://127.0.0.1:1/", Some("a\nb")).await.unwrap_err();
        assert!(error.to_string().contains("access token cannot be sent"), "{error}");
    }
}
