//! TLS settings with kube-apiserver's options: versions, cipher suites, ALPN, client certificates.

use std::sync::Arc;

use clap::ValueEnum;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, ResolvesServerCert};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// The TLS options for client connections.
#[derive(Debug, Clone)]
pub(crate) struct TlsOptions {
    /// `--tls-min-version`
    pub min_version: MinVersion,
    /// `--tls-cipher-suites`; `None` enables all of this build. Like in Go, the list restricts TLS
    /// 1.2 only: the suites of TLS 1.3 are always enabled.
    pub cipher_suites: Option<Vec<SupportedCipherSuite>>,
    /// Whether to request a client certificate: `--client-ca-file` is set.
    pub request_client_certificates: bool,
}

/// The minimum version of TLS (`--tls-min-version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MinVersion {
    /// TLS 1.2
    #[value(name = "VersionTLS12")]
    Tls12,
    /// TLS 1.3
    #[value(name = "VersionTLS13")]
    Tls13,
}

impl MinVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static VERSIONS: [&SupportedProtocolVersion; 2] =
            [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            MinVersion::Tls12 => &VERSIONS,
            MinVersion::Tls13 => &VERSIONS[..1],
        }
    }
}

/// Returns the cipher suites of this build with their IANA names, preferred ones first.
pub(crate) fn cipher_suites() -> impl Iterator<Item = (String, SupportedCipherSuite)> {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().map(|suite| {
        let name = suite.suite().as_str().unwrap_or_default();
        // rustls writes TLS13_AES_…, IANA and Go write TLS_AES_….
        (name.replacen("TLS13_", "TLS_", 1), *suite)
    })
}

/// Returns the settings of the TLS listener.
///
/// # Errors
/// Returns an error if no cipher suite is left for the enabled versions.
pub(crate) fn server_config(
    options: &TlsOptions,
    certificate: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut provider = pki::crypto_provider();
    if let Some(chosen) = &options.cipher_suites {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen.contains(suite));
    }
    let provider = Arc::new(provider);
    let verifier: Arc<dyn ClientCertVerifier> = if options.request_client_certificates {
        Arc::new(PossessionVerifier::new(&provider))
    } else {
        Arc::new(NoClientAuth)
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(options.min_version.versions())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Verifies only that the client has the private key of the certificate that it presents.
///
/// Chain, validity and usage of the certificate are verified when a request is authenticated, so
/// that an unknown CA results in a 401 and an audit event instead of a failed handshake, and a
/// changed `--client-ca-file` applies to open connections.
#[derive(Debug)]
struct PossessionVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl PossessionVerifier {
    fn new(provider: &CryptoProvider) -> PossessionVerifier {
        PossessionVerifier { algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for PossessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    // Names of CAs would have to follow --client-ca-file, and would keep clients from presenting
    // the wrong certificate, which should result in a 401 and an event.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        pki::verify_tls12(&self.algorithms, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        pki::verify_tls13(&self.algorithms, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
