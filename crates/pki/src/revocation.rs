//! Certificate revocation lists (RFC 5280, 5).

use rustls_pki_types::CertificateRevocationListDer;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::certificate::{Certificate, display_name};
use super::der::{Reader, only_sequence, tag, whole_bytes};
use super::error::{Reason, VerifyError};
use super::signature::{self, Verdict};

/// A list of revoked certificates. Delta and indirect lists are refused.
#[derive(Debug)]
pub struct RevocationList {
    list: CertRevocationList<'static>,
    der: Vec<u8>,
}

impl RevocationList {
    /// Reads a list.
    ///
    /// # Errors
    /// Returns an error if it is not a revocation list, or of an unsupported kind.
    pub fn parse(der: &CertificateRevocationListDer<'_>) -> Result<RevocationList, webpki::Error> {
        let list = CertRevocationList::from(OwnedCertRevocationList::from_der(der)?);
        Ok(RevocationList { list, der: der.to_vec() })
    }

    fn is_signed_by(&self, authority: &Certificate<'_>) -> bool {
        let parts = || {
            let mut outer = only_sequence(&self.der)?;
            let signed = outer.expect_whole(tag::SEQUENCE)?;
            let algorithm = outer.expect(tag::SEQUENCE)?;
            let signature = whole_bytes(outer.expect(tag::BIT_STRING)?)?;
            outer.end().map(|()| (signed, algorithm, signature))
        };
        parts().is_ok_and(|(signed, algorithm, signature)| {
            signature::verify(authority, algorithm, signed, signature) == Verdict::Valid
        })
    }
}

/// Checks `certificate`, which `issuer` signed. An outdated list still says what was revoked, and
/// an authority without a list revokes nothing.
///
/// # Errors
/// Returns an error if it was revoked, or if no list in the name of `issuer` is signed by it.
pub(super) fn check(
    lists: &[RevocationList],
    certificate: &Certificate<'_>,
    issuer: &Certificate<'_>,
) -> Result<(), VerifyError> {
    let Ok(name) = Reader::new(certificate.issuer).expect(tag::SEQUENCE) else {
        return Err(VerifyError::new(certificate, Reason::Malformed));
    };
    let issuer_name = || display_name(issuer.subject);
    let may_sign = issuer.extensions.key_usage.is_none_or(|usage| usage.signs_revocation_lists);
    let (mut named, mut signed) = (false, false);
    for list in lists.iter().filter(|list| list.list.issuer() == name) {
        named = true;
        if !may_sign || !list.is_signed_by(issuer) {
            continue;
        }
        signed = true;
        match list.list.find_serial(certificate.serial) {
            Ok(None) => {}
            Ok(Some(_)) => {
                return Err(VerifyError::new(
                    certificate,
                    Reason::Revoked { issuer: issuer_name() },
                ));
            }
            Err(_) => signed = false,
        }
    }
    if named && !signed {
        let reason = Reason::RevocationList { issuer: issuer_name() };
        return Err(VerifyError::new(certificate, reason));
    }
    Ok(())
}
