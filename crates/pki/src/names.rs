//! Names in certificates: what a server's certificate is for (RFC 6125, as Go matches it).

use rustls_pki_types::ServerName;

use super::certificate::{Certificate, ip_address};
use super::der::{Malformed, Reader, tag};

/// One name of a subject alternative name, or the base of a name constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GeneralName<'a> {
    Email(&'a str),
    Dns(&'a str),
    Uri(&'a str),
    /// An address, or in a constraint an address and its mask.
    Ip(&'a [u8]),
    /// The content of a `Name`.
    Directory(&'a [u8]),
    /// Another kind, by its tag.
    Other(u8),
}

impl<'a> GeneralName<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Result<GeneralName<'a>, Malformed> {
        let (kind, content) = reader.any()?;
        let text = || match std::str::from_utf8(content) {
            Ok(text) if text.is_ascii() => Ok(text),
            _ => Err(Malformed),
        };
        const EMAIL: u8 = tag::context(1);
        const DNS: u8 = tag::context(2);
        const DIRECTORY: u8 = tag::explicit(4);
        const URI: u8 = tag::context(6);
        const IP: u8 = tag::context(7);
        Ok(match kind {
            EMAIL => GeneralName::Email(text()?),
            DNS => GeneralName::Dns(text()?),
            URI => GeneralName::Uri(text()?),
            IP => GeneralName::Ip(content),
            DIRECTORY => {
                let mut name = Reader::new(content);
                let rdns = name.expect(tag::SEQUENCE)?;
                name.end()?;
                GeneralName::Directory(rdns)
            }
            other if other & 0xc0 == 0x80 => GeneralName::Other(other),
            _ => return Err(Malformed),
        })
    }

    /// Returns whether it is of a kind that names a host, an address, a mailbox or a resource.
    pub(super) fn names_an_endpoint(&self) -> bool {
        !matches!(self, GeneralName::Directory(_) | GeneralName::Other(_))
    }
}

/// Returns whether `certificate` is for `server`. The subject's common name does not count.
pub(super) fn is_for(certificate: &Certificate<'_>, server: &ServerName<'_>) -> bool {
    let mut names = certificate.extensions.names.iter().flatten();
    match server {
        ServerName::IpAddress(address) => {
            let wanted = std::net::IpAddr::from(*address).to_canonical();
            names.any(|name| match name {
                GeneralName::Ip(bytes) => {
                    ip_address(bytes).is_some_and(|address| address.to_canonical() == wanted)
                }
                _ => false,
            })
        }
        ServerName::DnsName(wanted) => names.any(
            |name| matches!(name, GeneralName::Dns(name) if matches_host(name, wanted.as_ref())),
        ),
        _ => false,
    }
}

/// Returns whether `host` matches `pattern`, whose first label can be `*` for any single label.
fn matches_host(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(parent), Some((_, rest))) => parent.eq_ignore_ascii_case(rest),
        (Some(_), None) => false,
        (None, _) => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_wildcards() {
        for (pattern, host, expected) in [
            ("api.example", "api.example", true),
            ("API.Example", "api.example", true),
            ("api.example.", "api.example", false),
            ("api.example", "api.example.", true),
            ("*.example", "api.example", true),
            ("*.example", "a.api.example", false),
            ("*.example", "example", false),
            ("*.api.example", "x.api.example", true),
            ("a*.example", "api.example", false),
            ("api.*", "api.example", false),
            ("*", "localhost", false),
            ("", "localhost", false),
            ("localhost", "localhost", true),
            (".example", "api.example", false),
        ] {
            assert_eq!(matches_host(pattern, host), expected, "{pattern} {host}");
        }
    }
}
