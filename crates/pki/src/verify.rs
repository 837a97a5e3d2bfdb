//! Chains of certificates, verified by the rules of Go's `x509.Certificate.Verify`.
//!
//! Unlike webpki, Go accepts a CA certificate as an end entity (`openssl req -x509` makes them), a
//! trusted certificate itself, and critical certificate policies, policy constraints and
//! inhibitAnyPolicy. Like Go, and unlike webpki, this refuses authorities that are expired, that
//! are no CA, or whose key usage does not include signing certificates, also where they are
//! trusted.

use super::certificate::{Certificate, display_name};
use super::error::{Reason, VerifyError, time};
use super::name_constraints::Violation;
use super::policies;
use super::revocation::{self, RevocationList};
use super::roots::Roots;
use super::signature::{self, Verdict};

/// Signatures that are checked for one chain; as in Go.
const MAX_SIGNATURES: u32 = 100;
/// Names that are compared with constraints for one chain; as in Go.
const MAX_COMPARISONS: u32 = 250_000;

/// The use of a certificate (extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Servers.
    Server,
    /// Clients.
    Client,
}

const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

impl Usage {
    fn oid(self) -> &'static [u8] {
        match self {
            Usage::Server => SERVER_AUTH,
            Usage::Client => CLIENT_AUTH,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Usage::Server => "TLS servers (serverAuth)",
            Usage::Client => "TLS clients (clientAuth)",
        }
    }
}

/// The settings of chain verification.
pub struct Verification<'a> {
    /// The trusted CAs.
    pub roots: &'a Roots,
    /// Lists of revoked certificates.
    pub revoked: &'a [RevocationList],
    /// The use of the end-entity certificate.
    pub usage: Usage,
    /// Accepts an end entity of X.509 version 1, signed by a CA among the roots itself.
    pub allow_v1: bool,
    /// Seconds since 1970.
    pub now: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    EndEntity,
    Intermediate,
    Root,
}

/// A search for one chain.
struct Search<'a> {
    verification: &'a Verification<'a>,
    intermediates: &'a [Certificate<'a>],
    signatures: u32,
    comparisons: u32,
    /// The first thing that kept a chain from being valid.
    error: Option<VerifyError>,
}

impl Verification<'_> {
    /// Verifies `end_entity`, with the certificates that came with it.
    ///
    /// # Errors
    /// Returns an error if no valid chain leads to a root.
    pub fn verify(
        &self,
        end_entity: &Certificate<'_>,
        intermediates: &[Certificate<'_>],
    ) -> Result<(), VerifyError> {
        if end_entity.version == 1 && !self.allow_v1 {
            return Err(VerifyError::new(end_entity, Reason::Version1));
        }
        let mut search = Search {
            verification: self,
            intermediates,
            signatures: MAX_SIGNATURES,
            comparisons: MAX_COMPARISONS,
            error: None,
        };
        search.check_role(end_entity, Role::EndEntity, &[])?;
        if self.roots.contains(end_entity) {
            return search.check_chain(&[end_entity]);
        }
        if search.extend(&mut vec![end_entity])? {
            return Ok(());
        }
        Err(search.error.unwrap_or_else(|| {
            let issuer = display_name(end_entity.issuer);
            let roots = self.roots.name().clone();
            VerifyError::new(end_entity, Reason::UnknownIssuer { issuer, roots })
        }))
    }
}

impl Search<'_> {
    /// Extends `chain` to a root; returns whether there is a valid chain.
    fn extend(&mut self, chain: &mut Vec<&Certificate<'_>>) -> Result<bool, VerifyError> {
        let last = *chain.last().expect("a chain has an end entity");
        for root in self.verification.roots.named(last.issuer) {
            if self.can_follow(chain, &root, Role::Root)? {
                let mut whole = chain.clone();
                whole.push(&root);
                match self.check_chain(&whole) {
                    Ok(()) => return Ok(true),
                    Err(error) => self.note(error),
                }
            }
        }
        if chain[0].version == 1 {
            return Ok(false);
        }
        let intermediates = self.intermediates;
        for candidate in intermediates.iter().filter(|other| other.subject == last.issuer) {
            if self.can_follow(chain, candidate, Role::Intermediate)? {
                let mut longer = chain.clone();
                longer.push(candidate);
                if self.extend(&mut longer)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Returns whether `candidate` signed the last of `chain` and may stand above it.
    ///
    /// # Errors
    /// Returns an error if the search takes too long.
    fn can_follow(
        &mut self,
        chain: &[&Certificate<'_>],
        candidate: &Certificate<'_>,
        role: Role,
    ) -> Result<bool, VerifyError> {
        let same = |known: &&Certificate<'_>| {
            known.subject == candidate.subject && known.public_key == candidate.public_key
        };
        if chain.iter().any(same) {
            return Ok(false);
        }
        let Some(left) = self.signatures.checked_sub(1) else {
            return Err(VerifyError::new(chain[0], Reason::TooComplex));
        };
        self.signatures = left;
        let last = chain[chain.len() - 1];
        let checked = self
            .check_signature(last, candidate)
            .and_then(|()| self.check_role(candidate, role, chain));
        match checked {
            Ok(()) => Ok(true),
            Err(error) => {
                self.note(error);
                Ok(false)
            }
        }
    }

    fn note(&mut self, error: VerifyError) {
        // A wrong signature by another CA of the same name explains the least.
        let is_weak = |error: &VerifyError| matches!(error.reason(), Reason::Signature { .. });
        if self.error.as_ref().is_none_or(|known| is_weak(known) && !is_weak(&error)) {
            self.error = Some(error);
        }
    }

    /// Returns whether `parent` signed `child`, and may sign certificates.
    fn check_signature(
        &self,
        child: &Certificate<'_>,
        parent: &Certificate<'_>,
    ) -> Result<(), VerifyError> {
        let is_v1 = parent.version == 1;
        let may_sign = (is_v1 || parent.is_ca())
            && parent.extensions.key_usage.is_none_or(|usage| usage.signs_certificates);
        if !may_sign {
            return Err(VerifyError::new(parent, Reason::NotCa(display_name(child.subject))));
        }
        let verdict = signature::verify(parent, child.algorithm, child.signed, child.signature);
        let reason = match verdict {
            Verdict::Valid => return Ok(()),
            Verdict::Invalid => Reason::Signature { issuer: display_name(child.issuer) },
            Verdict::Unsupported => Reason::SignatureAlgorithm,
        };
        Err(VerifyError::new(child, reason))
    }

    /// Checks what does not depend on who signed it. `below` are the certificates of the chain so
    /// far.
    fn check_role(
        &mut self,
        certificate: &Certificate<'_>,
        role: Role,
        below: &[&Certificate<'_>],
    ) -> Result<(), VerifyError> {
        let wrong = |reason| Err(VerifyError::new(certificate, reason));
        if let Some(oid) = certificate.extensions.unknown_critical.first() {
            return wrong(Reason::CriticalExtension(super::der::dotted(oid)));
        }
        let now = self.verification.now;
        let (not_before, not_after) = certificate.validity;
        if now < not_before {
            return wrong(Reason::NotYetValid { not_before: time(not_before), now: time(now) });
        }
        if now > not_after {
            return wrong(Reason::Expired { not_after: time(not_after), now: time(now) });
        }
        if role == Role::EndEntity {
            return Ok(());
        }
        if let Some(constraints) = &certificate.extensions.name_constraints {
            if below[0].version == 1 {
                // The certificate has no names to compare.
                let (below, name) = (display_name(below[0].subject), "without extensions".into());
                return wrong(Reason::NameConstraint { below, name });
            }
            for other in below {
                match constraints.check(other, &mut self.comparisons) {
                    Ok(()) => {}
                    Err(Violation::Exhausted) => return wrong(Reason::TooManyConstraints),
                    Err(Violation::Name(name) | Violation::Unreadable(name)) => {
                        let below = display_name(other.subject);
                        return wrong(Reason::NameConstraint { below, name });
                    }
                }
            }
        }
        // A root of version 1 is trusted without; but then only for those of later versions.
        let trusted_v1 = role == Role::Root && certificate.version == 1 && below[0].version != 1;
        if !certificate.is_ca() && !trusted_v1 {
            return wrong(Reason::NotCa(display_name(below[below.len() - 1].subject)));
        }
        let limit = certificate.extensions.basic_constraints.and_then(|it| it.path_length);
        let authorities_below = u32::try_from(below.len() - 1).unwrap_or(u32::MAX);
        match limit {
            Some(allowed) if authorities_below > allowed => wrong(Reason::PathLength { allowed }),
            _ => Ok(()),
        }
    }

    /// Checks what depends on the whole chain: usage, policies, revocation.
    fn check_chain(&self, chain: &[&Certificate<'_>]) -> Result<(), VerifyError> {
        let usage = self.verification.usage;
        for certificate in chain.iter().rev() {
            let usages = certificate.extensions.extended_key_usage.as_deref();
            if usages.is_some_and(|all| !all.contains(&ANY_USAGE) && !all.contains(&usage.oid())) {
                return Err(VerifyError::new(certificate, Reason::Usage(usage.describe())));
            }
        }
        if !policies::are_valid(chain) {
            return Err(VerifyError::new(chain[0], Reason::Policy));
        }
        for pair in chain.windows(2) {
            revocation::check(self.verification.revoked, pair[0], pair[1])?;
        }
        // A trusted certificate that signed itself can also revoke itself.
        if let [alone] = chain
            && alone.is_self_issued()
        {
            revocation::check(self.verification.revoked, alone, alone)?;
        }
        Ok(())
    }
}

/// Returns whether a server's certificate is for the name that was connected to.
///
/// # Errors
/// Returns an error with the names of the certificate if it is not valid for `name`.
pub(super) fn check_server_name(
    certificate: &Certificate<'_>,
    server: &rustls_pki_types::ServerName<'_>,
) -> Result<(), VerifyError> {
    if super::names::is_for(certificate, server) {
        return Ok(());
    }
    let wanted = server.to_str().into_owned();
    let names = certificate.server_names();
    let reason = match names.is_empty() {
        true => Reason::NoServerName { wanted },
        false => Reason::ServerName { wanted, names: names.join(", ") },
    };
    Err(VerifyError::new(certificate, reason))
}
