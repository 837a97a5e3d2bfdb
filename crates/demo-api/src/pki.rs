//! Certificates for the demo and for tests: two CAs, and the certificates that they sign.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// Long enough for a demo or one run of tests.
const VALIDITY: Duration = Duration::days(30);
const CLOCK_SKEW: Duration = Duration::hours(1);

/// Common name of the CA for clients and servers.
pub(crate) const CA: &str = "kubernetes-ca";
/// Common name of the CA for front proxies.
pub(crate) const FRONT_PROXY_CA: &str = "front-proxy-ca";

/// Why certificates could not be created.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Generation or signing failed.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Only two groups fit into a certificate that is created here.
    #[error("a certificate can be made for at most two groups")]
    TooManyGroups,
    /// rustls rejected the certificates.
    #[error("cannot use the certificates made: {0}")]
    Tls(String),
}

/// A certificate with its key.
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The key in PEM (PKCS#8).
    pub key_pem: String,
    key_der: Vec<u8>,
}

/// A CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    issued: Issued,
}

/// The CAs of a cluster.
pub struct Pki {
    /// Signs the certificates of servers and clients.
    pub ca: Authority,
    /// Signs the certificates of front proxies.
    pub front_proxy_ca: Authority,
}

impl Pki {
    /// Creates both CAs.
    ///
    /// # Errors
    /// If the system cannot generate keys.
    pub fn new() -> Result<Pki, PkiError> {
        Ok(Pki { ca: Authority::new(CA)?, front_proxy_ca: Authority::new(FRONT_PROXY_CA)? })
    }

    /// Issues a client certificate: user `cn` in groups `orgs`, at most two.
    ///
    /// # Errors
    /// If there are more groups, or the system cannot generate keys.
    pub fn issue_client(&self, cn: &str, orgs: &[&str]) -> Result<Issued, PkiError> {
        self.ca.issue(cn, orgs, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues a server certificate for loopback and `kubernetes.default.svc`.
    ///
    /// # Errors
    /// If the system cannot generate keys.
    pub fn issue_server(&self, cn: &str) -> Result<Issued, PkiError> {
        self.ca.issue(cn, &[], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues the certificate of a front proxy, for `X-Remote-*` headers.
    ///
    /// # Errors
    /// If the system cannot generate keys.
    pub fn issue_front_proxy(&self) -> Result<Issued, PkiError> {
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        self.front_proxy_ca.issue("front-proxy-client", &[], client)
    }

    /// Returns the TLS settings for [`super::serve`]: a new server certificate, optional client
    /// certificates of both CAs, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// If the system cannot generate keys.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let failed = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
        let server = self.issue_server("kube-apiserver")?;
        let mut roots = RootCertStore::empty();
        for authority in [&self.ca, &self.front_proxy_ca] {
            roots.add(authority.issued.certificate.clone()).map_err(|e| failed(&e))?;
        }
        let provider = Arc::new(::pki::crypto_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|e| failed(&e))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.certificate.clone()], server.key())
            .map_err(|e| failed(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Authority {
    fn new(name: &str) -> Result<Authority, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params_of(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?;
        let issued = Issued::new(&certificate, &key);
        Ok(Authority { issuer: Issuer::new(params, key), issued })
    }

    /// Returns the CA's own certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.issued.certificate_pem
    }

    /// Returns the CA's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.issued.certificate
    }

    fn issue(
        &self,
        cn: &str,
        orgs: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params_of(cn);
        // rcgen keeps one value per attribute type. Giving the same type by its OID allows a second
        // value.
        let attributes = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        if orgs.len() > attributes.len() {
            return Err(PkiError::TooManyGroups);
        }
        for (attribute, org) in attributes.into_iter().zip(orgs) {
            params.distinguished_name.push(attribute, *org);
        }
        if usage == ExtendedKeyUsagePurpose::ServerAuth {
            params.subject_alt_names = vec![
                SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ];
            for name in ["localhost", "kubernetes", "kubernetes.default.svc"] {
                params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
            }
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued::new(&certificate, &key))
    }
}

fn params_of(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // Clocks of clients may differ slightly.
    params.not_before = OffsetDateTime::now_utc() - CLOCK_SKEW;
    params.not_after = OffsetDateTime::now_utc() + VALIDITY;
    params
}

impl Issued {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Issued {
        Issued {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }

    /// Returns the key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key_der.clone().into())
    }

    /// Writes `NAME.crt`, and `NAME.key` which only the owner can read, into a directory.
    ///
    /// # Errors
    /// Returns errors of the file system.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<()> {
        fs::write(folder.join(format!("{name}.crt")), &self.certificate_pem)?;
        write_private(&folder.join(format!("{name}.key")), &self.key_pem)
    }
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// Returns errors of the file system.
pub fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(content.as_bytes())
}
