//! Trusted CA certificates.

use std::collections::HashMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::certificate::Certificate;

/// CA certificates that chains may end at, and certificates that are trusted themselves.
#[derive(Debug, Clone)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    by_subject: HashMap<Vec<u8>, Vec<usize>>,
    name: Arc<str>,
}

/// A certificate cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an X.509 certificate in DER, as RFC 5280 defines it")]
pub struct UnreadableCertificate;

impl Roots {
    /// Creates an empty set. Messages refer to its source as `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Roots {
        Roots { certificates: Vec::new(), by_subject: HashMap::new(), name: name.into() }
    }

    /// Adds a certificate.
    ///
    /// # Errors
    /// It cannot be read. A certificate that is expired, or has an unknown critical extension, is
    /// added, but no chain through it is valid.
    pub fn add(&mut self, der: CertificateDer<'static>) -> Result<(), UnreadableCertificate> {
        let subject = match Certificate::parse(&der) {
            Ok(certificate) => certificate.subject.to_vec(),
            Err(_) => return Err(UnreadableCertificate),
        };
        let same = self.by_subject.entry(subject).or_default();
        if !same.iter().any(|index| self.certificates[*index] == der) {
            same.push(self.certificates.len());
            self.certificates.push(der);
        }
        Ok(())
    }

    /// Returns whether there are no roots.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the roots with this subject (a whole `Name`).
    pub(super) fn named(&self, subject: &[u8]) -> impl Iterator<Item = Certificate<'_>> {
        let indices = self.by_subject.get(subject).map_or(&[][..], Vec::as_slice);
        indices.iter().filter_map(|index| Certificate::parse(&self.certificates[*index]).ok())
    }

    /// Returns whether exactly this certificate is among them.
    pub(super) fn contains(&self, certificate: &Certificate<'_>) -> bool {
        self.named(certificate.subject).any(|root| root.der == certificate.der)
    }
}
