//! Networks in CIDR notation.

use std::net::IpAddr;
use std::str::FromStr;

/// A network in CIDR notation. An address without a prefix length is a network of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u32,
}

/// A text that is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: write ADDRESS/PREFIX, as in 10.0.0.0/8")]
pub struct InvalidCidr(String);

impl Cidr {
    /// Returns whether `address` is in the network. An IPv4 address mapped to IPv6 is an IPv4
    /// address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let equal_bits = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        equal_bits >= self.prefix
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Cidr, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => {
                prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(invalid)?
            }
            None => longest,
        };
        Ok(Cidr { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let found = network.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
            assert_eq!(found, expected, "{network} {address}");
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for text in ["10.0.0.0/33", "10.0.0", "a", "10.0.0.0/", "::/129", "", "10.0.0.0/-1"] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{text:?} is not a network: write ADDRESS/PREFIX, as in 10.0.0.0/8")
            );
        }
    }
}
