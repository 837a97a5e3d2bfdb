//! Certificate revocation lists (RFC 5280, section 5).

use rcgen::{CertificateRevocationListParams, Issuer, KeyPair, RevokedCertParams, SerialNumber};
use time::OffsetDateTime;

/// Returns a list in PEM of the certificates with these serial numbers, signed by `issuer`.
///
/// # Panics
/// If the issuer must not sign revocation lists.
pub fn revocation_list(
    issuer: &Issuer<'_, KeyPair>,
    serials: &[u64],
    next_update: OffsetDateTime,
) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: rcgen::date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update,
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}
