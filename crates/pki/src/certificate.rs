//! A certificate (RFC 5280, 4.1), taken apart as Go's crypto/x509 does it.

use std::net::IpAddr;

use x509_parser::prelude::{ASN1Time, FromDer, X509Name};

use super::der::{self, Malformed, Reader, tag, whole_bytes};
use super::name_constraints::NameConstraints;
use super::names::GeneralName;

/// A certificate, borrowed from its DER.
#[derive(Debug, Clone)]
pub struct Certificate<'a> {
    /// The whole certificate.
    pub(super) der: &'a [u8],
    /// The bytes that the issuer signed.
    pub(super) signed: &'a [u8],
    /// The content of the signature's `AlgorithmIdentifier`.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    /// 1 or 3.
    pub(super) version: u8,
    pub(super) serial: &'a [u8],
    /// The whole `Name`.
    pub(super) issuer: &'a [u8],
    /// The whole `Name`.
    pub(super) subject: &'a [u8],
    /// First and last second of validity, in seconds since 1970.
    pub(super) validity: (i64, i64),
    /// The whole `SubjectPublicKeyInfo`.
    pub(super) public_key: &'a [u8],
    pub(super) extensions: Extensions<'a>,
}

/// The extensions that matter to verification.
#[derive(Debug, Clone, Default)]
pub(super) struct Extensions<'a> {
    pub(super) basic_constraints: Option<BasicConstraints>,
    pub(super) key_usage: Option<KeyUsage>,
    /// Object identifiers; `None` without the extension.
    pub(super) extended_key_usage: Option<Vec<&'a [u8]>>,
    pub(super) names: Option<Vec<GeneralName<'a>>>,
    pub(super) name_constraints: Option<NameConstraints<'a>>,
    /// Object identifiers.
    pub(super) policies: Vec<&'a [u8]>,
    pub(super) policy_mappings: Vec<PolicyMapping<'a>>,
    pub(super) require_explicit_policy: Option<u32>,
    pub(super) inhibit_policy_mapping: Option<u32>,
    pub(super) inhibit_any_policy: Option<u32>,
    /// Object identifiers of critical extensions that are not understood.
    pub(super) unknown_critical: Vec<&'a [u8]>,
}

/// Issuer and subject domain policy.
pub(super) type PolicyMapping<'a> = (&'a [u8], &'a [u8]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BasicConstraints {
    pub(super) ca: bool,
    pub(super) path_length: Option<u32>,
}

/// The bits of key usage that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyUsage {
    pub(super) signs_certificates: bool,
    pub(super) signs_revocation_lists: bool,
}

/// Last octet of `2.5.29.x`.
mod extension {
    pub(super) const SUBJECT_KEY_ID: u8 = 14;
    pub(super) const KEY_USAGE: u8 = 15;
    pub(super) const SUBJECT_ALT_NAME: u8 = 17;
    pub(super) const BASIC_CONSTRAINTS: u8 = 19;
    pub(super) const NAME_CONSTRAINTS: u8 = 30;
    pub(super) const CRL_DISTRIBUTION_POINTS: u8 = 31;
    pub(super) const CERTIFICATE_POLICIES: u8 = 32;
    pub(super) const POLICY_MAPPINGS: u8 = 33;
    pub(super) const AUTHORITY_KEY_ID: u8 = 35;
    pub(super) const POLICY_CONSTRAINTS: u8 = 36;
    pub(super) const EXTENDED_KEY_USAGE: u8 = 37;
    pub(super) const INHIBIT_ANY_POLICY: u8 = 54;
}

impl<'a> Certificate<'a> {
    /// Parses a certificate.
    ///
    /// # Errors
    /// Returns an error if it is not DER, of an unknown version, or contradicts itself.
    pub fn parse(der: &'a [u8]) -> Result<Certificate<'a>, Malformed> {
        let mut outer = der::only_sequence(der)?;
        let signed = outer.expect_whole(tag::SEQUENCE)?;
        let algorithm = outer.expect(tag::SEQUENCE)?;
        let signature = whole_bytes(outer.expect(tag::BIT_STRING)?)?;
        outer.end()?;

        let mut inner = der::only_sequence(signed)?;
        let version = match inner.optional(tag::explicit(0))? {
            None | Some([0x02, 0x01, 0]) => 1,
            Some([0x02, 0x01, 2]) => 3,
            Some(_) => return Err(Malformed),
        };
        let serial = inner.expect(tag::INTEGER)?;
        // Go refuses negative ones, too.
        if serial.first().is_none_or(|first| *first >= 0x80) {
            return Err(Malformed);
        }
        if inner.expect(tag::SEQUENCE)? != algorithm {
            return Err(Malformed);
        }
        let issuer = inner.expect_whole(tag::SEQUENCE)?;
        let mut validity = inner.sequence()?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        validity.end()?;
        let subject = inner.expect_whole(tag::SEQUENCE)?;
        let public_key = inner.expect_whole(tag::SEQUENCE)?;
        if version == 3 {
            inner.optional(tag::context(1))?;
            inner.optional(tag::context(2))?;
        }
        let extensions = match inner.optional(tag::explicit(3))? {
            None => Extensions::default(),
            Some(_) if version != 3 => return Err(Malformed),
            Some(list) => Extensions::parse(list)?,
        };
        inner.end()?;
        Ok(Certificate {
            der,
            signed,
            algorithm,
            signature,
            version,
            serial,
            issuer,
            subject,
            validity: (not_before, not_after),
            public_key,
            extensions,
        })
    }

    /// Returns whether basic constraints allow it to sign certificates.
    pub(super) fn is_ca(&self) -> bool {
        self.extensions.basic_constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Returns whether subject and issuer are the same.
    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Returns its DNS names and IP addresses, for messages.
    pub(super) fn server_names(&self) -> Vec<String> {
        let names = self.extensions.names.iter().flatten();
        names
            .filter_map(|name| match name {
                GeneralName::Dns(name) => Some((*name).to_owned()),
                GeneralName::Ip(bytes) => ip_address(bytes).map(|address| address.to_string()),
                _ => None,
            })
            .collect()
    }
}

/// A DER `Name` as OpenSSL prints it: `CN=alice, O=dev`.
pub(super) fn display_name(name: &[u8]) -> String {
    match X509Name::from_der(name) {
        Ok((_, name)) if name.iter().next().is_some() => name.to_string(),
        _ => String::new(),
    }
}

/// Returns an address of 4 or 16 bytes.
pub(super) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn time(reader: &mut Reader<'_>) -> Result<i64, Malformed> {
    let (found, whole, _) = reader.any_with_header()?;
    if !matches!(found, tag::UTC_TIME | tag::GENERALIZED_TIME) {
        return Err(Malformed);
    }
    let (_, time) = ASN1Time::from_der(whole).map_err(|_| Malformed)?;
    Ok(time.timestamp())
}

impl<'a> Extensions<'a> {
    fn parse(list: &'a [u8]) -> Result<Extensions<'a>, Malformed> {
        let mut list = der::only_sequence(list)?;
        let mut extensions = Extensions::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        while !list.is_at_end() {
            let mut entry = list.sequence()?;
            let oid = entry.expect(tag::OID)?;
            let critical = entry.optional_bool()?;
            let value = entry.expect(tag::OCTET_STRING)?;
            entry.end()?;
            if seen.contains(&oid) {
                return Err(Malformed);
            }
            seen.push(oid);
            let understood = match oid {
                [0x55, 0x1d, number] => extensions.read(*number, critical, value)?,
                _ => false,
            };
            if critical && !understood {
                extensions.unknown_critical.push(oid);
            }
        }
        Ok(extensions)
    }

    /// Reads extension `2.5.29.number`. Whether it is understood.
    fn read(&mut self, number: u8, critical: bool, value: &'a [u8]) -> Result<bool, Malformed> {
        match number {
            // RFC 5280 forbids that these are critical, and Go refuses it.
            extension::SUBJECT_KEY_ID | extension::AUTHORITY_KEY_ID => {
                return Ok(!critical);
            }
            // The location of revocation lists, which is not needed for verification.
            extension::CRL_DISTRIBUTION_POINTS => drop(der::only_sequence(value)?),
            extension::KEY_USAGE => self.key_usage = Some(key_usage(value)?),
            extension::BASIC_CONSTRAINTS => {
                self.basic_constraints = Some(basic_constraints(value)?);
            }
            extension::EXTENDED_KEY_USAGE => {
                let usages = oids(value)?;
                if usages.is_empty() {
                    return Err(Malformed);
                }
                self.extended_key_usage = Some(usages);
            }
            extension::SUBJECT_ALT_NAME => {
                let names = general_names(value)?;
                let understood = names.iter().any(GeneralName::names_an_endpoint);
                self.names = Some(names);
                return Ok(understood);
            }
            extension::NAME_CONSTRAINTS => {
                self.name_constraints = Some(NameConstraints::parse(value)?);
            }
            extension::CERTIFICATE_POLICIES => self.policies = policies(value)?,
            extension::POLICY_MAPPINGS => self.policy_mappings = policy_mappings(value)?,
            extension::POLICY_CONSTRAINTS => {
                let mut list = der::only_sequence(value)?;
                let small = |content: Option<&[u8]>| content.map(der::small_integer).transpose();
                self.require_explicit_policy = small(list.optional(tag::context(0))?)?;
                self.inhibit_policy_mapping = small(list.optional(tag::context(1))?)?;
                list.end()?;
            }
            extension::INHIBIT_ANY_POLICY => {
                let mut reader = Reader::new(value);
                let count = der::small_integer(reader.expect(tag::INTEGER)?)?;
                reader.end()?;
                self.inhibit_any_policy = Some(count);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn basic_constraints(value: &[u8]) -> Result<BasicConstraints, Malformed> {
    let mut list = der::only_sequence(value)?;
    let ca = list.optional_bool()?;
    let path_length = list.optional(tag::INTEGER)?.map(der::small_integer).transpose()?;
    list.end()?;
    Ok(BasicConstraints { ca, path_length })
}

fn key_usage(value: &[u8]) -> Result<KeyUsage, Malformed> {
    let mut reader = Reader::new(value);
    let [unused, bits @ ..] = reader.expect(tag::BIT_STRING)? else { return Err(Malformed) };
    reader.end()?;
    if *unused > 7 || (bits.is_empty() && *unused != 0) {
        return Err(Malformed);
    }
    let first = bits.first().copied().unwrap_or(0);
    let signs_certificates = first & 0x04 != 0;
    Ok(KeyUsage { signs_certificates, signs_revocation_lists: first & 0x02 != 0 })
}

/// `SEQUENCE OF OBJECT IDENTIFIER`
fn oids(value: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut list = der::only_sequence(value)?;
    let mut oids = Vec::new();
    while !list.is_at_end() {
        oids.push(list.expect(tag::OID)?);
    }
    Ok(oids)
}

fn general_names(value: &[u8]) -> Result<Vec<GeneralName<'_>>, Malformed> {
    let mut list = der::only_sequence(value)?;
    let mut names = Vec::new();
    while !list.is_at_end() {
        let name = GeneralName::parse(&mut list)?;
        if let GeneralName::Ip(bytes) = name
            && ip_address(bytes).is_none()
        {
            return Err(Malformed);
        }
        names.push(name);
    }
    Ok(names)
}

/// `SEQUENCE OF SEQUENCE { policy, qualifiers OPTIONAL }`; each policy at most once.
fn policies(value: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut list = der::only_sequence(value)?;
    let mut policies = Vec::new();
    while !list.is_at_end() {
        let policy = list.sequence()?.expect(tag::OID)?;
        if policies.contains(&policy) {
            return Err(Malformed);
        }
        policies.push(policy);
    }
    Ok(policies)
}

fn policy_mappings(value: &[u8]) -> Result<Vec<PolicyMapping<'_>>, Malformed> {
    let mut list = der::only_sequence(value)?;
    let mut mappings = Vec::new();
    while !list.is_at_end() {
        let mut mapping = list.sequence()?;
        mappings.push((mapping.expect(tag::OID)?, mapping.expect(tag::OID)?));
        mapping.end()?;
    }
    Ok(mappings)
}
