//! The PROXY protocol, versions 1 and 2: a load balancer that does not terminate TLS sends a header
//! before it with the client's address (`--proxy-protocol`).
//!
//! The header is only read from the networks of the flag, where it is required. It is read in the
//! connection's own task, within the deadline of the TLS handshake, and no byte after it is
//! consumed. See <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The first bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum size of a header of version 1, including its end of line.
const MAX_V1: usize = 107;
/// Maximum size of the address and extensions of version 2. Load balancers send about 100 bytes;
/// more than 4 KiB is rejected, like in nginx.
const MAX_V2: usize = 4096;
/// `PP2_TYPE_CRC32C`
const CRC32C: u8 = 0x03;

/// Why a connection has no valid PROXY header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The header cannot be read.
    #[error("cannot read the PROXY header: {0}")]
    Read(#[from] io::Error),
    /// There is no header.
    #[error(
        "no PROXY header: let the load balancer send one (version 1 or 2), or leave its network out \
         of --proxy-protocol"
    )]
    Missing,
    /// The header is longer than any valid one.
    #[error("the PROXY header is longer than {0} bytes")]
    TooLong(usize),
    /// The header is invalid.
    #[error("the PROXY header is invalid: {0}")]
    Invalid(&'static str),
}

/// Reads the header at the start of the connection. Returns the client's address; `None` if the
/// load balancer opened the connection for itself (health checks), or if the header has no address
/// of TCP over IP.
///
/// # Errors
/// See [`HeaderError`].
pub(super) async fn read(tcp: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    // No valid header is shorter.
    let mut start = [0; SIGNATURE.len()];
    tcp.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return read_v2(tcp).await;
    }
    if start.starts_with(b"PROXY ") {
        return read_v1(tcp, &start).await;
    }
    Err(HeaderError::Missing)
}

async fn read_v2(tcp: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut head = [0; 4];
    tcp.read_exact(&mut head).await?;
    let [_, _, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(HeaderError::TooLong(MAX_V2));
    }
    let mut header = [&SIGNATURE[..], &head].concat();
    header.resize(SIGNATURE.len() + head.len() + length, 0);
    tcp.read_exact(&mut header[SIGNATURE.len() + head.len()..]).await?;
    parse_v2(&header)
}

async fn read_v1(tcp: &mut TcpStream, start: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let mut header = start.to_vec();
    // The length is only known at the end of the line, and the next bytes belong to TLS.
    while header.last() != Some(&b'\n') {
        if header.len() >= MAX_V1 {
            return Err(HeaderError::TooLong(MAX_V1));
        }
        let mut next = [0; MAX_V1];
        let seen = tcp.peek(&mut next[..MAX_V1 - header.len()]).await?;
        if seen == 0 {
            return Err(HeaderError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let end = memchr::memchr(b'\n', &next[..seen]).map_or(seen, |at| at + 1);
        tcp.read_exact(&mut next[..end]).await?;
        header.extend_from_slice(&next[..end]);
    }
    parse_v1(&header)
}

/// Parses a whole header of either version, for fuzzing.
///
/// # Errors
/// See [`HeaderError`].
pub fn parse(header: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    match header.get(..SIGNATURE.len()) {
        Some(start) if start == SIGNATURE => parse_v2(header),
        Some(start) if start.starts_with(b"PROXY ") => parse_v1(header),
        _ => Err(HeaderError::Missing),
    }
}

fn parse_v1(header: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    if header.len() > MAX_V1 {
        return Err(HeaderError::TooLong(MAX_V1));
    }
    let invalid = HeaderError::Invalid;
    let line = header.strip_suffix(b"\r\n").ok_or(invalid("its line does not end with CR LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| invalid("it is not ASCII"))?;
    let mut fields = line.split(' ').skip(1);
    let family = fields.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let fields: Vec<&str> = fields.collect();
    let &[source, destination, source_port, destination_port] = fields.as_slice() else {
        return Err(invalid("it does not have two addresses and two ports"));
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    if !matches!(family, "TCP4" | "TCP6") {
        return Err(invalid("its protocol is not TCP4, TCP6 or UNKNOWN"));
    }
    let (Some(source), Some(_)) = (address(source), address(destination)) else {
        return Err(invalid("an address is not one of its protocol"));
    };
    let (Some(port), Some(_)) = (port(source_port), port(destination_port)) else {
        return Err(invalid("a port is not a number from 0 to 65535"));
    };
    Ok(Some(SocketAddr::new(source.to_canonical(), port)))
}

fn port(text: &str) -> Option<u16> {
    let canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn parse_v2(header: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let invalid = HeaderError::Invalid;
    let rest = header.get(SIGNATURE.len()..).unwrap_or_default();
    let [version_and_command, family_and_protocol, high, low, rest @ ..] = rest else {
        return Err(invalid("it is truncated"));
    };
    if rest.len() != usize::from(u16::from_be_bytes([*high, *low])) {
        return Err(invalid("its length is wrong"));
    }
    if rest.len() > MAX_V2 {
        return Err(HeaderError::TooLong(MAX_V2));
    }
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        0x22..=0x2f => return Err(invalid("its command is neither LOCAL nor PROXY")),
        _ => return Err(invalid("its version is not 2")),
    };
    let (family, protocol) = (family_and_protocol >> 4, family_and_protocol & 0x0f);
    if protocol > 2 {
        return Err(invalid("its transport protocol is unknown"));
    }
    let addresses = match family {
        // The contents after an unspecified family are undefined.
        0 => return Ok(None),
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Err(invalid("its address family is unknown")),
    };
    // A LOCAL header may omit the addresses, and they are ignored.
    if is_local && rest.len() < addresses {
        return Ok(None);
    }
    let too_short = invalid("it is shorter than its addresses");
    let (addresses, extensions) = rest.split_at_checked(addresses).ok_or(too_short)?;
    check_extensions(header, extensions)?;
    if is_local || protocol != 1 {
        return Ok(None);
    }
    Ok(source_of(addresses).map(|(address, port)| SocketAddr::new(address.to_canonical(), port)))
}

/// Returns the source of an address block, of IPv4 or IPv6.
fn source_of(addresses: &[u8]) -> Option<(IpAddr, u16)> {
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.try_into().ok()?));
    match addresses.len() {
        12 => {
            let address: [u8; 4] = addresses[..4].try_into().ok()?;
            Some((address.into(), port(&addresses[8..10])?))
        }
        36 => {
            let address: [u8; 16] = addresses[..16].try_into().ok()?;
            Some((address.into(), port(&addresses[32..34])?))
        }
        _ => None,
    }
}

/// Checks that the type-length-value extensions are complete, and verifies the checksum if there is
/// one.
fn check_extensions(header: &[u8], extensions: &[u8]) -> Result<(), HeaderError> {
    let invalid = HeaderError::Invalid;
    let mut rest = extensions;
    while !rest.is_empty() {
        let [kind, high, low, value @ ..] = rest else {
            return Err(invalid("an extension is truncated"));
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, next) =
            value.split_at_checked(length).ok_or(invalid("an extension is truncated"))?;
        if *kind == CRC32C {
            let sum: [u8; 4] =
                value.try_into().map_err(|_| invalid("its checksum does not have 4 bytes"))?;
            let at = header.len() - rest.len() + 3;
            if crc32c(header, at..at + 4) != u32::from_be_bytes(sum) {
                return Err(invalid("its checksum is wrong"));
            }
        }
        rest = next;
    }
    Ok(())
}

/// Returns the CRC-32C of `bytes`, with those in `zeroed` counted as zero.
fn crc32c(bytes: &[u8], zeroed: std::ops::Range<usize>) -> u32 {
    let crc = bytes.iter().enumerate().fold(u32::MAX, |crc, (at, byte)| {
        let byte = if zeroed.contains(&at) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    !crc
}

#[cfg(test)]
mod tests;
