//! Certificates of servers that the proxy connects to.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::Certificate;
use super::error::VerifyError;
use super::roots::Roots;
use super::signature;
use super::verify::{Usage, Verification, check_server_name};

/// Verifies the certificates of TLS servers by the rules of Go's crypto/x509.
#[derive(Debug)]
pub struct ServerVerifier {
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Trusts `roots`.
    pub fn new(roots: Roots, provider: &CryptoProvider) -> ServerVerifier {
        ServerVerifier { roots, algorithms: provider.signature_verification_algorithms }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let parsed = Certificate::parse(end_entity).map_err(|_| VerifyError::malformed())?;
        let verification = Verification {
            roots: &self.roots,
            revoked: &[],
            usage: Usage::Server,
            allow_v1: false,
            now: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        };
        verification.verify(&parsed, &readable(intermediates))?;
        check_server_name(&parsed, server)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verify(end_entity, intermediates, server_name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => {
                let other = OtherError(Arc::new(error));
                Err(Error::InvalidCertificate(CertificateError::Other(other)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature::verify_tls12(&self.algorithms, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature::verify_tls13(&self.algorithms, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Certificates that came along. Those that cannot be read are of no use, and do no harm.
pub fn readable<'a>(certificates: &'a [CertificateDer<'_>]) -> Vec<Certificate<'a>> {
    certificates.iter().filter_map(|der| Certificate::parse(der).ok()).collect()
}

/// Describes why a TLS handshake failed: the certificate, the reason and the remedy where it was a
/// certificate.
pub fn describe_tls_error(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<Error>() {
            return describe(tls);
        }
        // io::Error shows its inner error, but `source` skips it.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    error.to_string()
}

fn describe(error: &Error) -> String {
    use rustls::AlertDescription as Alert;
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => other.to_string(),
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the server does not have the private key of its certificate".to_owned()
        }
        Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA),
        ) => {
            format!(
                "the server refused the proxy's client certificate (TLS alert {alert:?}); present \
                 one that it trusts, with its key"
            )
        }
        other => other.to_string(),
    }
}
