//! Generated certificates of kinds that the corpus does not have.

use std::sync::Arc;

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SingleCertAndKey;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate chain, the end entity first, and its key.
pub struct Identity {
    /// The certificates.
    pub chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Identity {
    /// Returns the private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// Returns the private key in PEM.
    pub fn key_pem(&self) -> String {
        let base64 = base64::engine::general_purpose::STANDARD.encode(&self.key);
        format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n")
    }

    /// Appends these intermediate certificates to the chain.
    pub fn with(mut self, authorities: &[&Authority]) -> Identity {
        self.chain.extend(authorities.iter().map(|authority| authority.der.clone()));
        self
    }

    /// Returns the same as X.509 version 1, signed by `signer`.
    pub fn into_v1(mut self, signer: &Authority) -> Identity {
        self.chain[0] = test_support::as_v1(&self.chain[0], signer.issuer.key());
        self
    }
}

impl Authority {
    /// Returns a root CA.
    pub fn root(name: &str) -> Authority {
        Authority::new(None, name)
    }

    /// Returns an intermediate CA below this one.
    pub fn below(&self, name: &str) -> Authority {
        Authority::new(Some(self), name)
    }

    /// Returns a root CA with the changes that `change` makes.
    pub fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        Authority::make(None, name, change)
    }

    fn new(parent: Option<&Authority>, name: &str) -> Authority {
        Authority::make(parent, name, |_| {})
    }

    fn make(
        parent: Option<&Authority>,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match parent {
            Some(parent) => params.signed_by(&key, &parent.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Authority { issuer: Issuer::new(params, key), der, pem }
    }

    /// Returns a client certificate without a name; `change` can set one, and other properties.
    pub fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }

    /// Returns a revocation list of this CA.
    pub fn revocation_list(&self, serials: &[u64]) -> String {
        let next_update = rcgen::date_time_ymd(2090, 1, 1);
        test_support::revocation_list(&self.issuer, serials, next_update)
    }
}

/// Returns the TLS settings of a server with this certificate.
pub fn server_config(identity: &Identity) -> rustls::ServerConfig {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&identity.key()).unwrap();
    // Not with the builder, which rejects certificates that webpki cannot parse.
    let certified = rustls::sign::CertifiedKey::new(identity.chain.clone(), key);
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Returns a certificate in PEM.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// Returns a certificate like that of `openssl req -x509`: self-signed, CA:TRUE, without key usage.
pub fn openssl_req_x509(name: &str, hosts: &[&str]) -> Identity {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
}

/// Adds critical certificatePolicies, policyConstraints and inhibitAnyPolicy.
pub fn critical_policies(params: &mut CertificateParams) {
    let extensions: [(u64, &[u8]); 3] = [
        (32, &[0x30, 6, 0x30, 4, 0x06, 2, 0x2a, 3]),
        (36, &[0x30, 3, 0x80, 1, 0]),
        (54, &[2, 1, 0]),
    ];
    for (number, value) in extensions {
        let oid = [2, 5, 29, number];
        let mut extension = CustomExtension::from_oid_content(&oid, value.to_vec());
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    }
}

/// Returns a self-signed certificate.
pub fn self_signed(name: &str) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
}
