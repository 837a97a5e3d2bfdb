//! Why a certificate is not trusted: the certificate, the fault, and the remedy.

use std::sync::Arc;

use jiff::Timestamp;

use super::certificate::{Certificate, display_name};

/// A certificate that is not trusted. Names its subject, the reason and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate {certificate} {reason}")]
pub struct VerifyError {
    certificate: String,
    reason: Reason,
}

/// Why a certificate is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The certificate is not DER, or contradicts itself.
    #[error("is malformed; it takes an X.509 version 3 certificate in DER, as RFC 5280 defines it")]
    Malformed,
    /// X.509 version 1, where that is not allowed.
    #[error(
        "is of X.509 version 1, which is not accepted; issue it with extensions (version 3), or for \
         clients see --client-ca-allow-x509-v1"
    )]
    Version1,
    /// The certificate is not valid yet.
    #[error("is not valid before {not_before}, and it is {now}; check the clock of this machine")]
    NotYetValid {
        /// Seconds since 1970, as text.
        not_before: String,
        /// The time of the verification.
        now: String,
    },
    /// The certificate has expired.
    #[error(
        "expired at {not_after}, and it is {now}; renew it, or check the clock of this machine"
    )]
    Expired {
        /// The last second of its validity.
        not_after: String,
        /// The time of the verification.
        now: String,
    },
    /// A critical extension is not understood.
    #[error(
        "has the critical extension {0}, which is not supported; reissue it without, or not critical"
    )]
    CriticalExtension(String),
    /// No trusted authority signed the certificate.
    #[error(
        "was issued by {issuer:?}, which does not lead to a CA in {roots}; add that CA's certificate \
         there, and intermediate certificates to the chain that the peer presents"
    )]
    UnknownIssuer {
        /// The issuer of the certificate.
        issuer: String,
        /// The source of the CAs.
        roots: Arc<str>,
    },
    /// The key of the named issuer did not sign it.
    #[error(
        "is not signed by the key of {issuer:?}, which it names as its issuer; if that CA was \
         renewed with a new key, use its current certificate"
    )]
    Signature {
        /// The issuer.
        issuer: String,
    },
    /// The signature is of a kind that is not accepted.
    #[error(
        "is signed by an algorithm that is not accepted; reissue it with SHA-256 or better, and RSA \
         keys of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    SignatureAlgorithm,
    /// The certificate signed another one, but is not a CA.
    #[error(
        "signed {0:?} but is not a CA: it needs basicConstraints CA:TRUE and keyUsage keyCertSign"
    )]
    NotCa(String),
    /// There are more certificates below it than it allows.
    #[error("allows {allowed} CA certificates below it (pathlen), and there are more")]
    PathLength {
        /// The allowed number.
        allowed: u32,
    },
    /// The certificate does not permit this use.
    #[error("is not for {0}; reissue it with that extendedKeyUsage, or without any")]
    Usage(&'static str),
    /// A name below it violates its name constraints.
    #[error("does not permit the name {name} of {below:?} (name constraints)")]
    NameConstraint {
        /// The certificate below it.
        below: String,
        /// The name.
        name: String,
    },
    /// The chain has more names and constraints than are compared.
    #[error("has too many name constraints for the names below it")]
    TooManyConstraints,
    /// An authority requires a policy, and none is valid.
    #[error(
        "has no certificate policy that is valid along its chain, and an authority of the chain \
         requires one (policyConstraints)"
    )]
    Policy,
    /// The certificate was revoked.
    #[error("was revoked by {issuer:?}")]
    Revoked {
        /// The issuer of the certificate.
        issuer: String,
    },
    /// A revocation list of its issuer's name is not signed by its issuer.
    #[error(
        "cannot be checked for revocation: the list of {issuer:?} in --client-crl-file is not signed \
         by that CA; replace it"
    )]
    RevocationList {
        /// The issuer.
        issuer: String,
    },
    /// The server's certificate is for other names.
    #[error(
        "is not for {wanted:?} but for {names}; connect with one of these names, or set one with tls-server-name (--upstream-tls-server-name)"
    )]
    ServerName {
        /// The name that was connected to.
        wanted: String,
        /// The names in the certificate.
        names: String,
    },
    /// The server's certificate has no names at all.
    #[error(
        "is not for {wanted:?}: it has no subjectAltName, and a common name does not count; reissue \
         it with one"
    )]
    NoServerName {
        /// The name that was connected to.
        wanted: String,
    },
    /// Too many ways lead from it to a CA.
    #[error("has too many possible issuers")]
    TooComplex,
}

impl VerifyError {
    pub(super) fn new(certificate: &Certificate<'_>, reason: Reason) -> VerifyError {
        VerifyError { certificate: name(certificate), reason }
    }

    pub(super) fn malformed() -> VerifyError {
        VerifyError { certificate: "of the peer".to_owned(), reason: Reason::Malformed }
    }

    /// Returns the reason.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }
}

/// The name of a certificate in messages: its subject, or if that is empty, its names or number.
fn name(certificate: &Certificate<'_>) -> String {
    let subject = display_name(certificate.subject);
    if !subject.is_empty() {
        return format!("{subject:?}");
    }
    match certificate.server_names().first() {
        Some(name) => format!("for {name:?}"),
        None => {
            let serial: String =
                certificate.serial.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("with serial number {serial}")
        }
    }
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn time(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{seconds} s after 1970"),
    }
}
