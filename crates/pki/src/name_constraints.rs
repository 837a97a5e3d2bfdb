//! Name constraints (RFC 5280, 4.2.1.10): which names those below an authority may have.
//!
//! DNS names, mailboxes, URIs and addresses are matched as Go does it, directory names by RFC 5280,
//! 7.1, without normalization. For a name of any other kind a constraint of that kind is a refusal.

use std::net::IpAddr;

use super::certificate::Certificate;
use super::der::{self, Malformed, Reader, tag};
use super::names::GeneralName;

/// The names that an authority may vouch for.
#[derive(Debug, Clone, Default)]
pub(super) struct NameConstraints<'a> {
    permitted: Vec<GeneralName<'a>>,
    excluded: Vec<GeneralName<'a>>,
}

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Violation {
    /// The name is not permitted, or it is excluded.
    Name(String),
    /// The name cannot be compared.
    Unreadable(String),
    /// There is too much to compare.
    Exhausted,
}

impl<'a> NameConstraints<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Result<NameConstraints<'a>, Malformed> {
        let mut reader = der::only_sequence(value)?;
        let subtrees = |list: Option<&'a [u8]>| list.map_or(Ok(Vec::new()), subtrees);
        let permitted = subtrees(reader.optional(tag::explicit(0))?)?;
        let excluded = subtrees(reader.optional(tag::explicit(1))?)?;
        reader.end()?;
        if permitted.is_empty() && excluded.is_empty() {
            return Err(Malformed);
        }
        Ok(NameConstraints { permitted, excluded })
    }

    /// Checks all names of `certificate`. Each comparison takes one off `budget`.
    pub(super) fn check(
        &self,
        certificate: &Certificate<'_>,
        budget: &mut u32,
    ) -> Result<(), Violation> {
        for name in certificate.extensions.names.iter().flatten() {
            self.check_name(name, budget)?;
        }
        let mut subject = Reader::new(certificate.subject);
        match subject.expect(tag::SEQUENCE) {
            // An empty subject is no name (RFC 5280, 4.1.2.6).
            Ok([]) | Err(Malformed) => Ok(()),
            Ok(rdns) => self.check_name(&GeneralName::Directory(rdns), budget),
        }
    }

    fn check_name(&self, name: &GeneralName<'_>, budget: &mut u32) -> Result<(), Violation> {
        // Go rejects an unreadable name even if no constraint applies to names of its kind.
        if !is_readable(name) {
            return Err(Violation::Unreadable(describe(name)));
        }
        let violation = || Violation::Name(describe(name));
        for base in &self.excluded {
            spend(budget)?;
            if same_kind(name, base) && matches(name, base, true)? {
                return Err(violation());
            }
        }
        let mut permitted = None;
        for base in self.permitted.iter().filter(|base| same_kind(name, base)) {
            spend(budget)?;
            if matches(name, base, false)? {
                return Ok(());
            }
            permitted = Some(false);
        }
        match permitted {
            Some(false) => Err(violation()),
            _ => Ok(()),
        }
    }
}

/// Returns whether a name could be compared with a constraint of its kind.
fn is_readable(name: &GeneralName<'_>) -> bool {
    let is_host = |host: &str| labels(host).is_some_and(|labels| !labels.is_empty());
    match name {
        GeneralName::Dns(name) => is_host(name),
        GeneralName::Email(name) => name
            .rsplit_once('@')
            .is_some_and(|(mailbox, host)| !mailbox.is_empty() && is_host(host)),
        GeneralName::Uri(uri) => host_of(uri).is_some(),
        GeneralName::Ip(_) | GeneralName::Directory(_) | GeneralName::Other(_) => true,
    }
}

fn spend(budget: &mut u32) -> Result<(), Violation> {
    *budget = budget.checked_sub(1).ok_or(Violation::Exhausted)?;
    Ok(())
}

fn subtrees(list: &[u8]) -> Result<Vec<GeneralName<'_>>, Malformed> {
    let mut reader = Reader::new(list);
    let mut subtrees = Vec::new();
    while !reader.is_at_end() {
        let mut subtree = reader.sequence()?;
        let base = GeneralName::parse(&mut subtree)?;
        // minimum and maximum must not be there.
        subtree.end()?;
        let valid = match base {
            GeneralName::Dns(name) => labels(name.strip_prefix('.').unwrap_or(name)).is_some(),
            GeneralName::Ip(bytes) => match bytes.len() {
                8 | 32 => is_prefix_mask(&bytes[bytes.len() / 2..]),
                _ => false,
            },
            GeneralName::Email(name) => match name.rsplit_once('@') {
                Some((_, host)) => labels(host).is_some(),
                None => labels(name.strip_prefix('.').unwrap_or(name)).is_some(),
            },
            GeneralName::Uri(host) => {
                host.parse::<IpAddr>().is_err()
                    && labels(host.strip_prefix('.').unwrap_or(host)).is_some()
            }
            GeneralName::Directory(_) | GeneralName::Other(_) => true,
        };
        if !valid {
            return Err(Malformed);
        }
        subtrees.push(base);
    }
    Ok(subtrees)
}

/// Returns whether `mask` is ones followed by zeros.
fn is_prefix_mask(mask: &[u8]) -> bool {
    let mut rest = mask.iter().skip_while(|byte| **byte == 0xff);
    rest.next().is_none_or(|byte| byte.leading_ones() + byte.trailing_zeros() >= 8)
        && rest.all(|byte| *byte == 0)
}

fn same_kind(name: &GeneralName<'_>, base: &GeneralName<'_>) -> bool {
    match (name, base) {
        (GeneralName::Other(one), GeneralName::Other(other)) => one == other,
        // An address is only comparable with those of its own family.
        _ => std::mem::discriminant(name) == std::mem::discriminant(base),
    }
}

/// Returns whether `name` is within `base`. If `may`, also whether a wildcard may be.
fn matches(name: &GeneralName<'_>, base: &GeneralName<'_>, may: bool) -> Result<bool, Violation> {
    let unreadable = || Violation::Unreadable(describe(name));
    match (name, base) {
        (GeneralName::Dns(name), GeneralName::Dns(base)) => {
            let name = labels(name).filter(|labels| !labels.is_empty()).ok_or_else(unreadable)?;
            Ok(is_within(&name, base, may))
        }
        (GeneralName::Email(name), GeneralName::Email(base)) => {
            let (mailbox, host) = name.rsplit_once('@').ok_or_else(unreadable)?;
            let labels = labels(host).filter(|labels| !labels.is_empty()).ok_or_else(unreadable)?;
            if mailbox.is_empty() {
                return Err(unreadable());
            }
            Ok(match base.rsplit_once('@') {
                Some((base_mailbox, base_host)) => {
                    mailbox == base_mailbox && host.eq_ignore_ascii_case(base_host)
                }
                None => is_within(&labels, base, false),
            })
        }
        (GeneralName::Uri(uri), GeneralName::Uri(base)) => {
            let host = host_of(uri).ok_or_else(unreadable)?;
            let labels = labels(host).filter(|labels| !labels.is_empty()).ok_or_else(unreadable)?;
            Ok(is_within(&labels, base, false))
        }
        (GeneralName::Ip(address), GeneralName::Ip(base)) => {
            let (network, mask) = base.split_at(base.len() / 2);
            Ok(address.len() == network.len()
                && address
                    .iter()
                    .zip(network.iter().zip(mask))
                    .all(|(byte, (network, mask))| (byte ^ network) & mask == 0))
        }
        // A prefix of whole relative distinguished names.
        (GeneralName::Directory(name), GeneralName::Directory(base)) => Ok(name.starts_with(base)),
        // Names of this kind cannot be compared, so it is not permitted, and may be excluded.
        _ => Ok(may),
    }
}

/// Returns the labels of a host name, the last one first; `None` if it is invalid. An empty text
/// has no labels.
fn labels(name: &str) -> Option<Vec<&str>> {
    if name.is_empty() {
        return Some(Vec::new());
    }
    let labels: Vec<&str> = name.rsplit('.').collect();
    let is_label =
        |label: &&str| !label.is_empty() && label.bytes().all(|byte| (33..=126).contains(&byte));
    labels.iter().all(is_label).then_some(labels)
}

/// Returns whether the host with these labels is `base` or below it; if `base` begins with a dot,
/// only below.
fn is_within(host: &[&str], base: &str, may: bool) -> bool {
    let (base, below_only) = match base.strip_prefix('.') {
        Some(base) => (base, true),
        None => (base, false),
    };
    let Some(base) = labels(base) else { return false };
    let same = |host: &[&str], base: &[&str]| {
        host.iter().zip(base).all(|(one, other)| one.eq_ignore_ascii_case(other))
    };
    // `*.example` may be `a.example`, whatever that one label is.
    if may && host.last() == Some(&"*") && base.len() == host.len() {
        return same(&host[..host.len() - 1], &base[..base.len() - 1]);
    }
    let long_enough = host.len() >= base.len() + usize::from(below_only);
    long_enough && same(host, &base)
}

/// Returns the host of a URI, where that is a name.
fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    let is_name = !host.is_empty() && !host.starts_with('[') && host.parse::<IpAddr>().is_err();
    is_name.then_some(host)
}

fn describe(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::Email(name) | GeneralName::Dns(name) | GeneralName::Uri(name) => {
            format!("{name:?}")
        }
        GeneralName::Ip(bytes) => match super::certificate::ip_address(bytes) {
            Some(address) => address.to_string(),
            None => "an IP address".to_owned(),
        },
        GeneralName::Directory(_) => "its directory name".to_owned(),
        GeneralName::Other(_) => "a name of another kind".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraints<'a>(
        permitted: &[GeneralName<'a>],
        excluded: &[GeneralName<'a>],
    ) -> NameConstraints<'a> {
        NameConstraints { permitted: permitted.to_vec(), excluded: excluded.to_vec() }
    }

    fn allows(constraints: &NameConstraints<'_>, name: GeneralName<'_>) -> bool {
        constraints.check_name(&name, &mut 1000).is_ok()
    }

    #[test]
    fn dns_names() {
        use GeneralName::{Dns, Ip};
        let only = constraints(&[Dns("example.com"), Dns(".sub.test")], &[]);
        for (name, expected) in [
            ("example.com", true),
            ("EXAMPLE.com", true),
            ("a.b.example.com", true),
            ("*.example.com", true),
            ("badexample.com", false),
            ("com", false),
            ("sub.test", false),
            ("a.sub.test", true),
            ("a..example.com", false),
            ("example.com.", false),
            ("", false),
        ] {
            assert_eq!(allows(&only, Dns(name)), expected, "{name}");
        }
        assert!(allows(&only, Ip(&[10, 0, 0, 1])), "another kind is not constrained");
        assert!(!allows(&only, GeneralName::Uri("urn:x")), "nor readable");
        let not = constraints(&[], &[Dns("evil.example.com")]);
        for (name, expected) in [
            ("example.com", true),
            ("a.evil.example.com", false),
            ("*.evil.example.com", false),
            // Otherwise it would be valid for evil.example.com.
            ("*.example.com", false),
            ("*.other.com", true),
        ] {
            assert_eq!(allows(&not, Dns(name)), expected, "{name}");
        }
        assert!(!allows(&constraints(&[], &[Dns("")]), Dns("a")), "everything is excluded");
        assert!(allows(&constraints(&[Dns("")], &[]), Dns("a")), "everything is permitted");
    }

    #[test]
    fn addresses_mailboxes_uris_and_others() {
        use GeneralName::{Directory, Email, Ip, Other, Uri};
        let network = [10, 0, 0, 0, 255, 0, 0, 0];
        let only = constraints(&[Ip(&network), Email("example.com"), Uri(".example.com")], &[]);
        assert!(allows(&only, Ip(&[10, 9, 9, 9])));
        assert!(!allows(&only, Ip(&[11, 0, 0, 1])));
        assert!(!allows(&only, Ip(&[0; 16])), "the other family is not permitted");
        assert!(allows(&only, Email("a@example.com")));
        assert!(allows(&only, Email("a@b.example.com")));
        assert!(!allows(&only, Email("a@example.org")));
        assert!(!allows(&only, Email("example.com")));
        assert!(allows(&only, Uri("https://a.example.com:8443/x")));
        assert!(!allows(&only, Uri("https://example.com/")));
        assert!(!allows(&only, Uri("https://10.0.0.1/")));
        assert!(!allows(&only, Uri("urn:x")));
        let mailbox = constraints(&[Email("root@example.com")], &[]);
        assert!(allows(&mailbox, Email("root@EXAMPLE.com")));
        assert!(!allows(&mailbox, Email("Root@example.com")));
        let directory = constraints(&[Directory(&[1, 2])], &[Directory(&[1, 2, 3])]);
        assert!(allows(&directory, Directory(&[1, 2, 4])));
        assert!(!allows(&directory, Directory(&[1, 2, 3, 4])));
        assert!(!allows(&directory, Directory(&[2])));
        for other in [constraints(&[Other(0xa0)], &[]), constraints(&[], &[Other(0xa0)])] {
            assert!(!allows(&other, Other(0xa0)));
            assert!(allows(&other, Other(0xa3)));
        }
    }

    #[test]
    fn malformed_constraints_are_refused_whole() {
        for base in [
            &[0x82, 2, b'a', b' '][..],
            &[0x87, 8, 10, 0, 0, 0, 255, 0, 255, 0],
            &[0x87, 4, 10, 0, 0, 0],
            &[0x86, 8, b'1', b'0', b'.', b'0', b'.', b'0', b'.', b'1'],
        ] {
            let length = u8::try_from(base.len()).unwrap();
            let head = [0x30, length + 4, 0xa0, length + 2, 0x30, length];
            let value = [&head[..], base].concat();
            assert!(NameConstraints::parse(&value).is_err(), "{base:?}");
        }
        assert!(NameConstraints::parse(&[0x30, 0]).is_err());
        let with_minimum = [0x30, 10, 0xa0, 8, 0x30, 6, 0x82, 1, b'a', 0x80, 1, 1];
        assert!(NameConstraints::parse(&with_minimum).is_err());
    }

    #[test]
    fn comparisons_are_bounded() {
        let many = constraints(&[], &[GeneralName::Dns("a"); 100]);
        let error = many.check_name(&GeneralName::Dns("b"), &mut 50);
        assert_eq!(error, Err(Violation::Exhausted));
    }
}
