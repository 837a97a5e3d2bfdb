//! Connections through a proxy (`proxy-url` in a kubeconfig).
//!
//! Like client-go: `http` and `https` proxies get a `CONNECT`, `socks5` proxies speak RFC 1928, and
//! the proxy resolves the name of the endpoint. The certificate of an `https` proxy must be signed
//! by the CA of the endpoint's certificate.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::config::Trust;
use crate::dial::dial;
use crate::error::ConfigError;
use crate::tls::ClientTls;

/// Bytes of a proxy's response to `CONNECT`.
const RESPONSE: usize = 16 << 10;

/// A connection, possibly in TLS, possibly through another one.
pub type Tunnel = Box<dyn Connected>;

/// A stream that is used like a socket.
pub trait Connected: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Connected for T {}

/// A proxy, from a URL such as `http://proxy.example:3128`.
pub struct ProxyUrl {
    protocol: Protocol,
    host: String,
    port: u16,
    /// User name and password.
    credentials: Option<(Zeroizing<String>, Zeroizing<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Https,
    Socks5,
}

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyUrl({:?} {}:{})", self.protocol, self.host, self.port)
    }
}

impl ProxyUrl {
    /// Parses `url`; `field` is what errors call it. They do not show the URL, which may hold a
    /// password.
    pub fn parse(url: &str, field: &str) -> Result<ProxyUrl, ConfigError> {
        let wrong = |reason: &str| {
            let remedy = "give a URL like http://proxy.example:3128; https and socks5 work, too";
            ConfigError::field(field, format!("{reason}; {remedy}"))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        let (protocol, default_port) = match uri.scheme_str() {
            Some("http") => (Protocol::Http, 80),
            Some("https") => (Protocol::Https, 443),
            Some("socks5" | "socks5h") => (Protocol::Socks5, 1080),
            _ => return Err(wrong("has a scheme that is not supported")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(wrong("has no host"));
        }
        let credentials = match authority.as_str().rsplit_once('@') {
            Some((user, _)) => {
                let (user, password) = user.split_once(':').unwrap_or((user, ""));
                let decode =
                    |text| decode(text).ok_or_else(|| wrong("has a malformed user or password"));
                Some((decode(user)?, decode(password)?))
            }
            None => None,
        };
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(ProxyUrl { protocol, host: host.to_owned(), port, credentials })
    }

    /// Returns host and port of the proxy, for error messages.
    pub fn address(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Connects to `host` and `port` through the proxy. `tls` are the settings for the endpoint,
    /// which an `https` proxy is verified by, too.
    ///
    /// # Errors
    /// If the proxy cannot be reached or refuses to connect. The message names the proxy.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: Option<&ClientTls>,
        timeout: Duration,
    ) -> io::Result<Tunnel> {
        self.try_connect(host, port, tls, timeout).await.map_err(|error| {
            let message = format!("through the proxy {}: {error}", self.address());
            io::Error::new(error.kind(), message)
        })
    }

    async fn try_connect(
        &self,
        host: &str,
        port: u16,
        tls: Option<&ClientTls>,
        timeout: Duration,
    ) -> io::Result<Tunnel> {
        let tcp = dial(&self.host, self.port, timeout).await?;
        match self.protocol {
            Protocol::Http => self.http(Box::new(tcp), host, port).await,
            Protocol::Https => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                let config = match tls {
                    Some(tls) => tls.upgrades(),
                    None => ClientTls::new(Trust::System, None, name.clone())
                        .map_err(io::Error::other)?
                        .upgrades(),
                };
                let stream = TlsConnector::from(config).connect(name, tcp).await?;
                self.http(Box::new(stream), host, port).await
            }
            Protocol::Socks5 => self.socks5(Box::new(tcp), host, port).await,
        }
    }

    /// `CONNECT` (RFC 9110, 9.3.6).
    async fn http(&self, mut proxy: Tunnel, host: &str, port: u16) -> io::Result<Tunnel> {
        let host = authority(host, port);
        let mut request = Zeroizing::new(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n"));
        if let Some((user, password)) = &self.credentials {
            let pair = Zeroizing::new(format!("{}:{}", **user, **password));
            let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&pair);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        proxy.write_all(request.as_bytes()).await?;
        proxy.flush().await?;
        let mut response = Vec::with_capacity(256);
        // Byte by byte: what comes after the head is the endpoint's.
        while !response.ends_with(b"\r\n\r\n") {
            if response.len() == RESPONSE {
                return Err(io::Error::other("the response to CONNECT is too long"));
            }
            response.push(proxy.read_u8().await?);
        }
        let line = response.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let status = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
        match status {
            Some(status) if status.starts_with(b"2") => Ok(proxy),
            _ => {
                let line = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                Err(io::Error::other(format!("it responded to CONNECT with {line:?}")))
            }
        }
    }

    /// RFC 1928, with user and password as in RFC 1929.
    async fn socks5(&self, mut proxy: Tunnel, host: &str, port: u16) -> io::Result<Tunnel> {
        const NONE: u8 = 0;
        const PASSWORD: u8 = 2;
        let refused = |what: &str| io::Error::other(format!("{what} (SOCKS5)"));
        let short = |text: &str| {
            u8::try_from(text.len()).map_err(|_| refused("a name is longer than 255 bytes"))
        };
        let methods: &[u8] = match self.credentials {
            Some(_) => &[5, 2, NONE, PASSWORD],
            None => &[5, 1, NONE],
        };
        proxy.write_all(methods).await?;
        let mut chosen = [0; 2];
        proxy.read_exact(&mut chosen).await?;
        match (chosen, &self.credentials) {
            ([5, NONE], _) => {}
            ([5, PASSWORD], Some((user, password))) => {
                let mut message = Zeroizing::new(vec![1, short(user)?]);
                message.extend_from_slice(user.as_bytes());
                message.push(short(password)?);
                message.extend_from_slice(password.as_bytes());
                proxy.write_all(&message).await?;
                let mut status = [0; 2];
                proxy.read_exact(&mut status).await?;
                if status[1] != 0 {
                    return Err(refused("it rejected the user name and password"));
                }
            }
            _ => return Err(refused("it requires an authentication method that is not supported")),
        }
        let mut request = vec![5, 1, 0];
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                request.push(1);
                request.extend_from_slice(&address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                request.push(4);
                request.extend_from_slice(&address.octets());
            }
            Err(_) => {
                request.extend_from_slice(&[3, short(host)?]);
                request.extend_from_slice(host.as_bytes());
            }
        }
        request.extend_from_slice(&port.to_be_bytes());
        proxy.write_all(&request).await?;
        let mut head = [0; 4];
        proxy.read_exact(&mut head).await?;
        if head[..2] != [5, 0] {
            return Err(refused(&format!("it refused to connect, with code {}", head[1])));
        }
        let rest = match head[3] {
            1 => 4,
            4 => 16,
            3 => usize::from(proxy.read_u8().await?),
            _ => return Err(refused("it responded with an unknown kind of address")),
        };
        proxy.read_exact(&mut vec![0; rest + 2]).await?;
        Ok(proxy)
    }
}

/// Host and port, with the brackets of an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Decodes `%41`; `None` where it is malformed.
fn decode(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match first {
            b'%' => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                rest = &tail[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => *byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parse = |url| ProxyUrl::parse(url, "proxy-url");
        let proxy = parse("http://us%40er:pa%3Ass@proxy.example").unwrap();
        assert_eq!((proxy.protocol, proxy.port), (Protocol::Http, 80));
        let (user, password) = proxy.credentials.as_ref().unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("us@er", "pa:ss"));
        assert_eq!(format!("{proxy:?}"), "ProxyUrl(Http proxy.example:80)");
        let proxy = parse("socks5://[::1]:9050").unwrap();
        assert_eq!((proxy.protocol, &*proxy.host, proxy.port), (Protocol::Socks5, "::1", 9050));
        assert_eq!(parse("https://p").unwrap().port, 443);
        for (url, reason) in [
            ("proxy.example:3128", "has a scheme that is not supported"),
            ("ftp://user:secret@p", "has a scheme that is not supported"),
            ("http://", "is not a URL"),
            ("http://u:%zz@p", "has a malformed user or password"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("proxy-url: {reason}; give a URL")),
                "{url}: {error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
