//! TLS settings for connections to a server, with certificates that are reloaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::config::{ClientCertificate, Pem, Trust};
use crate::error::ConfigError;
use pki::{self, KeyError, Roots, ServerVerifier, certified_key};

/// The TLS settings for one server.
#[derive(Debug)]
pub struct ClientTls {
    /// The name that the server's certificate must be valid for.
    pub server_name: ServerName<'static>,
    /// Shared with servers that have the same CAs and client certificate.
    settings: Arc<Settings>,
}

/// The TLS settings in use, and where they came from.
pub(crate) struct Settings {
    pub trust: Trust,
    pub client_certificate: Option<ClientCertificate>,
    current: ArcSwap<Current>,
    /// Counts the changes of the settings.
    generation: AtomicU64,
}

struct Current {
    pooled: Arc<ClientConfig>,
    upgrades: Arc<ClientConfig>,
    inputs: Inputs,
}

/// The texts that the settings were made of.
#[derive(PartialEq)]
struct Inputs {
    ca: Option<Vec<u8>>,
    certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the certificates.
    pub fn new(
        trust: Trust,
        client_certificate: Option<ClientCertificate>,
        server_name: ServerName<'static>,
    ) -> Result<ClientTls, ConfigError> {
        let inputs = Inputs::read(&trust, client_certificate.as_ref())?;
        let current = Current::new(&trust, client_certificate.as_ref(), inputs)?;
        let settings = Arc::new(Settings {
            trust,
            client_certificate,
            current: ArcSwap::from_pointee(current),
            generation: AtomicU64::new(0),
        });
        Ok(ClientTls { server_name, settings })
    }

    /// Returns the same settings for a server with another name. They reload together.
    pub fn for_server(&self, server_name: ServerName<'static>) -> ClientTls {
        ClientTls { server_name, settings: Arc::clone(&self.settings) }
    }

    /// Returns the settings for pooled connections: HTTP/2, else HTTP/1.1.
    pub fn pooled(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.settings.current.load().pooled)
    }

    /// Returns the settings for connections that will be upgraded: HTTP/1.1 only.
    pub fn upgrades(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.settings.current.load().upgrades)
    }

    /// Returns a number that changes whenever the settings do.
    pub fn generation(&self) -> u64 {
        self.settings.generation.load(Ordering::Acquire)
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}

impl Settings {
    /// Rereads the files. Returns whether anything changed, so that older connections should take
    /// no more requests.
    ///
    /// # Errors
    /// If a file cannot be used, usually because a new certificate is written and its key not yet;
    /// the current settings stay active.
    pub(crate) fn refresh(&self) -> Result<bool, ConfigError> {
        let certificate = self.client_certificate.as_ref();
        let inputs = Inputs::read(&self.trust, certificate)?;
        if inputs == self.current.load().inputs {
            return Ok(false);
        }
        let current = Current::new(&self.trust, certificate, inputs)?;
        tracing::info!("upstream certificates reloaded");
        self.current.store(Arc::new(current));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(true)
    }
}

impl Inputs {
    fn read(trust: &Trust, certificate: Option<&ClientCertificate>) -> Result<Inputs, ConfigError> {
        let ca = match trust {
            Trust::Ca(pem) => Some(pem.read()?),
            Trust::System | Trust::Insecure | Trust::Unset => None,
        };
        let certificate = match certificate {
            Some(ClientCertificate::Pem { certificate, key }) => {
                Some((certificate.read()?, key.read()?))
            }
            Some(ClientCertificate::Plugin(plugin)) => plugin.certificate(),
            None => None,
        };
        Ok(Inputs { ca, certificate })
    }
}

impl Current {
    fn new(
        trust: &Trust,
        certificate: Option<&ClientCertificate>,
        inputs: Inputs,
    ) -> Result<Current, ConfigError> {
        let provider = Arc::new(pki::crypto_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has suites for TLS 1.2 and 1.3");
        let verifier: Arc<dyn ServerCertVerifier> = match (trust, &inputs.ca) {
            (Trust::Ca(pem), Some(text)) => {
                Arc::new(ServerVerifier::new(roots(pem, text)?, &provider))
            }
            (Trust::System, _) => {
                let roots = system_roots().ok_or_else(|| {
                    let reason = "this system has no CA certificates to verify the server by; name \
                                  a file with certificate-authority";
                    ConfigError::field("certificate-authority", reason)
                })?;
                Arc::new(ServerVerifier::new(roots, &provider))
            }
            (Trust::Insecure, _) => Arc::new(AnyCertificate(Arc::clone(&provider))),
            _ => Arc::new(ServerVerifier::new(Roots::new("an empty list"), &provider)),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut pooled = match (certificate, &inputs.certificate) {
            (Some(source), Some((chain, key))) => {
                let (certificate_name, key_name) = source.names();
                let chain = certificates(&certificate_name, chain)?;
                let pair = certified_key(chain, key, &provider).map_err(|error| {
                    let at_fault = match error {
                        KeyError::Certificate => certificate_name,
                        _ => key_name,
                    };
                    ConfigError::field(at_fault, error.to_string())
                })?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
            _ => builder.with_no_client_auth(),
        };
        pooled.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut upgrades = pooled.clone();
        upgrades.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Current { pooled: Arc::new(pooled), upgrades: Arc::new(upgrades), inputs })
    }
}

/// Returns the CAs that this system trusts; `None` where there are none.
pub fn system_roots() -> Option<Roots> {
    let mut roots = Roots::new("the CA certificates of this system");
    for certificate in rustls_native_certs::load_native_certs().certs {
        // Those that cannot be read are only missed if one of theirs is met.
        let _ = roots.add(certificate);
    }
    (!roots.is_empty()).then_some(roots)
}

fn roots(pem: &Pem, text: &[u8]) -> Result<Roots, ConfigError> {
    let mut roots = Roots::new(pem.name());
    for (index, certificate) in certificates(&pem.name(), text)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            ConfigError::field(pem.name(), format!("certificate {} {error}", index + 1))
        })?;
    }
    Ok(roots)
}

fn certificates(name: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(ConfigError::field(name, "has no certificate; PEM text is expected here")),
        Err(error) => Err(ConfigError::field(name, format!("is not PEM ({error:?})"))),
    }
}

/// `insecure-skip-tls-verify`: any certificate, though its key must be proven.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        pki::verify_tls12(algorithms, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        pki::verify_tls13(algorithms, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ServerName<'static> {
        "localhost".try_into().unwrap()
    }

    fn data(bytes: &[u8]) -> Pem {
        Pem::Data { field: "k: data".to_owned(), bytes: bytes.to_vec() }
    }

    fn error(ca: &[u8], pair: Option<(&[u8], &[u8])>) -> String {
        let pair = pair.map(|(c, k)| ClientCertificate::Pem { certificate: data(c), key: data(k) });
        ClientTls::new(Trust::Ca(data(ca)), pair, name()).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field() {
        let one = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["b".to_owned()]).unwrap();
        let (cert, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let other_key = other.signing_key.serialize_pem();
        assert_eq!(error(b"", None), "k: data: has no certificate; PEM text is expected here");
        assert!(error(key.as_bytes(), None).contains("has no certificate"));
        let wrong = error(cert.as_bytes(), Some((cert.as_bytes(), b"nothing")));
        assert!(wrong.starts_with("k: data: has no private key in PEM"), "{wrong}");
        let wrong = error(cert.as_bytes(), Some((cert.as_bytes(), other_key.as_bytes())));
        assert!(wrong.contains("does not belong to the first certificate"), "{wrong}");
        let armor =
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let wrong = error(cert.as_bytes(), Some((cert.as_bytes(), armor)));
        assert!(wrong.starts_with("k: data: the private key is encrypted"), "{wrong}");
    }

    #[test]
    fn files_are_reloaded() {
        let path = std::env::temp_dir().join(format!("kap-ca-{}", std::process::id()));
        let pem = || rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem();
        std::fs::write(&path, pem()).unwrap();
        let tls = ClientTls::new(Trust::Ca(Pem::file("ca", &path)), None, name()).unwrap();
        let first = tls.pooled();
        assert!(!tls.settings().refresh().unwrap());
        std::fs::write(&path, "half a certificate").unwrap();
        tls.settings().refresh().unwrap_err();
        assert!(Arc::ptr_eq(&first, &tls.pooled()));
        std::fs::write(&path, pem()).unwrap();
        assert!(tls.settings().refresh().unwrap());
        assert!(!Arc::ptr_eq(&first, &tls.pooled()));
        std::fs::remove_file(&path).unwrap();
    }
}
