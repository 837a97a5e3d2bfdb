//! The source of a request: the client's addresses, collected like in kube-apiserver.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};
pub use k8s_audit::network::Cidr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The networks from which `X-Forwarded-For` is trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TrustedProxies {
    /// All addresses, like in kube-apiserver.
    #[default]
    Everyone,
    /// Only these networks.
    Networks(Vec<Cidr>),
}

impl TrustedProxies {
    fn trusts(&self, address: IpAddr) -> bool {
        match self {
            TrustedProxies::Everyone => true,
            TrustedProxies::Networks(networks) => networks.iter().any(|n| n.contains(address)),
        }
    }

    /// Returns the addresses of a request's source for `sourceIPs` of an event, farthest first.
    ///
    /// Like in kube-apiserver, they are those in the first `X-Forwarded-For` line, in `X-Real-Ip`,
    /// and the peer's. If only some networks are trusted, the chain is followed back from the peer
    /// up to the first address that is not trusted: earlier addresses can be forged.
    pub fn source_ips(&self, headers: &HeaderMap, peer: SocketAddr) -> Vec<IpAddr> {
        let peer = peer.ip().to_canonical();
        if !self.trusts(peer) {
            return vec![peer];
        }
        let first = |name| headers.get(name).map_or(&[][..], |value| value.as_bytes());
        let forwarded = first(FORWARDED_FOR);
        let mut addresses: Vec<IpAddr> =
            forwarded.split(|b| *b == b',').filter_map(|part| parse(part.trim_ascii())).collect();
        if let TrustedProxies::Networks(_) = self {
            let forged = addresses.iter().rposition(|address| !self.trusts(*address));
            addresses.drain(..forged.unwrap_or(0));
        }
        let real = parse(first(REAL_IP));
        if let Some(real) = real.filter(|real| !addresses.contains(real)) {
            addresses.push(real);
        }
        if addresses.last() != Some(&peer) {
            addresses.push(peer);
        }
        addresses
    }

    /// Updates the headers for the API server: appends the peer to `X-Forwarded-For`, and removes
    /// what an untrusted peer has sent.
    pub fn forward(&self, headers: &mut HeaderMap, peer: &Peer) {
        if !self.trusts(peer.address) {
            headers.remove(REAL_IP);
            headers.remove(FORWARDED_FOR);
        }
        match headers.entry(FORWARDED_FOR) {
            Entry::Vacant(place) => {
                place.insert(peer.header.clone());
            }
            Entry::Occupied(mut lines) => {
                let mut value = Vec::new();
                for line in lines.iter() {
                    value.extend_from_slice(line.as_bytes());
                    value.extend_from_slice(b", ");
                }
                value.extend_from_slice(peer.header.as_bytes());
                lines.insert(HeaderValue::from_bytes(&value).expect("made of header values"));
            }
        }
    }
}

/// The peer of a connection, as in `X-Forwarded-For`.
pub struct Peer {
    address: IpAddr,
    header: HeaderValue,
}

impl Peer {
    /// Of a connection from `address`.
    pub fn new(address: SocketAddr) -> Peer {
        let address = address.ip().to_canonical();
        // Bytes with this owner are cloned without an allocation.
        let text = Bytes::from_owner(address.to_string());
        let header = HeaderValue::from_maybe_shared(text).expect("an address is a header value");
        Peer { address, header }
    }
}

/// Parses an address like Kubernetes: octets of IPv4 addresses may have leading zeros.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = text.parse().ok().or_else(|| lenient_v4(text).map(IpAddr::V4))?;
    Some(IpAddr::to_canonical(&address))
}

fn lenient_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        part.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(forwarded: &[&str], real: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        if let Some(real) = real {
            headers.insert(REAL_IP, real.parse().unwrap());
        }
        headers
    }

    fn source(trusted: &TrustedProxies, headers: &HeaderMap, peer: &str) -> String {
        let peer = SocketAddr::new(peer.parse().unwrap(), 555);
        let addresses = trusted.source_ips(headers, peer);
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_are_collected_as_kube_apiserver_does() {
        let a = "aaaa:bbbb:cccc:dddd:eeee:ffff:0:1111";
        let cases: &[(&[&str], Option<&str>, &str, &str)] = &[
            (&[], None, "1.2.3.4", "1.2.3.4"),
            (&[""], None, "1.2.3.4", "1.2.3.4"),
            (&["garbage garbage!,4.5.6.7"], None, "1.2.3.4", "4.5.6.7 1.2.3.4"),
            (&["2.2.2.2,1.2.3.4"], None, "1.2.3.4", "2.2.2.2 1.2.3.4"),
            (&["2.2.2.2"], Some("garbage"), "1.2.3.4", "2.2.2.2 1.2.3.4"),
            (&[], Some("2.2.2.2"), "1.2.3.4", "2.2.2.2 1.2.3.4"),
            (&[], Some("1.2.3.4"), "1.2.3.4", "1.2.3.4"),
            (&["9.9.9.9,4.5.6.7"], Some("2.2.2.2"), "1.2.3.4", "9.9.9.9 4.5.6.7 2.2.2.2 1.2.3.4"),
            (
                &["9.9.9.9,2.2.2.2,4.5.6.7"],
                Some("2.2.2.2"),
                "1.2.3.4",
                "9.9.9.9 2.2.2.2 4.5.6.7 1.2.3.4",
            ),
            (&["9.9.9.9", "8.8.8.8"], None, "1.2.3.4", "9.9.9.9 1.2.3.4"),
            (&["010.1.2.3, 5.5.5.5:80, [::1], fe80::1%eth0"], None, "::1", "10.1.2.3 ::1"),
            (&[a], None, "::ffff:1.2.3.4", &format!("{a} 1.2.3.4")),
            (&["::ffff:1.2.3.4"], None, "1.2.3.4", "1.2.3.4"),
        ];
        for (forwarded, real, peer, expected) in cases {
            let headers = headers(forwarded, *real);
            let got = source(&TrustedProxies::Everyone, &headers, peer);
            assert_eq!(got, *expected, "{forwarded:?} {real:?} {peer}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_trusted() {
        let networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"].map(|n| n.parse().unwrap());
        let trusted = TrustedProxies::Networks(networks.to_vec());
        let claims = headers(&["6.6.6.6, 203.0.113.9, 10.1.1.1"], None);
        assert_eq!(source(&trusted, &claims, "198.51.100.1"), "198.51.100.1");
        assert_eq!(source(&trusted, &claims, "10.2.2.2"), "203.0.113.9 10.1.1.1 10.2.2.2");
        assert_eq!(source(&trusted, &claims, "192.0.2.2"), "192.0.2.2");
        let real = headers(&[], Some("6.6.6.6"));
        assert_eq!(source(&trusted, &real, "198.51.100.1"), "198.51.100.1");
    }

    #[test]
    fn the_peer_is_appended_for_the_api_server() {
        let peer = &Peer::new("198.51.100.1:5".parse().unwrap());
        let mut everyone = headers(&["1.1.1.1", "2.2.2.2"], Some("3.3.3.3"));
        TrustedProxies::Everyone.forward(&mut everyone, peer);
        assert_eq!(everyone[FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 198.51.100.1");
        let mut forged = headers(&["1.1.1.1"], Some("3.3.3.3"));
        TrustedProxies::Networks(vec![]).forward(&mut forged, peer);
        assert_eq!((&forged[FORWARDED_FOR], forged.len()), (&"198.51.100.1".parse().unwrap(), 1));
    }

    #[test]
    fn networks_contain_what_they_should() {
        let contains = |network: &str, address: &str| {
            network.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("0.0.0.0/0", "1.2.3.4") && contains("::/0", "::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.9.9.9") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(!contains("::/0", "1.2.3.4"));
        for wrong in ["", "10.0.0.0/33", "x/8", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
