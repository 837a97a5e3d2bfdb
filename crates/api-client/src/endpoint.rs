//! The API server's address.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use crate::error::ConfigError;

/// The address of the API server, from a URL such as `https://10.0.0.1:6443`.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `https`, or `http` for an upstream in plain text.
    pub scheme: Scheme,
    /// Host and port as written; goes out as `Host` and `:authority`.
    pub authority: Authority,
    /// [`Self::authority`] as a header.
    pub host_header: HeaderValue,
    /// Name or address to connect to, without the brackets of an IPv6 address.
    pub host: String,
    /// The port; 443 or 80 where the URL has none.
    pub port: u16,
    /// Put before every path, without a slash at its end; mostly empty.
    pub path_prefix: String,
}

impl Endpoint {
    /// Parses `url`; `field` is what errors call it.
    pub fn parse(url: &str, field: &str) -> Result<Endpoint, ConfigError> {
        let wrong = |reason: &str| {
            ConfigError::field(
                field,
                format!("{reason}; give a URL like https://10.0.0.1:6443, not {:?}", redact(url)),
            )
        };
        // kubectl takes a server without a scheme as plain HTTP; that would put credentials on the
        // wire by a slip, so here the scheme has to be said.
        if !url.contains("://") {
            return Err(wrong("the scheme is missing"));
        }
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("not a URL ({error})")))?;
        let parts = uri.into_parts();
        let scheme = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTPS || scheme == Scheme::HTTP => scheme,
            _ => return Err(wrong("the scheme must be https or http")),
        };
        let authority = parts.authority.ok_or_else(|| wrong("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("credentials do not belong in the URL"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() != authority.host() => {
                return Err(wrong("the port is not a number"));
            }
            None if scheme == Scheme::HTTPS => 443,
            None => 80,
        };
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(wrong("a query is not supported here"));
        }
        let path_prefix = path.path().trim_end_matches('/').to_owned();
        let host_header = HeaderValue::from_str(authority.as_str())
            .map_err(|_| wrong("the host has characters that a header cannot have"))?;
        Ok(Endpoint { host: host.to_owned(), scheme, authority, host_header, port, path_prefix })
    }

    /// Returns whether connections are in TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

/// `url` without what could be a password in it.
fn redact(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://…{}", &url[..scheme], &url[at..])
        }
        (None, Some(at)) => format!("…{}", &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, authority, host, port, prefix) in [
            ("https://10.0.0.1:6443", "10.0.0.1:6443", "10.0.0.1", 6443, ""),
            ("https://api.example/", "api.example", "api.example", 443, ""),
            ("http://127.0.0.1", "127.0.0.1", "127.0.0.1", 80, ""),
            ("https://[::1]:8443/", "[::1]:8443", "::1", 8443, ""),
            ("https://[fd00::1]", "[fd00::1]", "fd00::1", 443, ""),
            (
                "https://r.example/k8s/clusters/c-1/",
                "r.example",
                "r.example",
                443,
                "/k8s/clusters/c-1",
            ),
        ] {
            let endpoint = Endpoint::parse(url, "server").unwrap();
            assert_eq!(endpoint.authority.as_str(), authority, "{url}");
            assert_eq!(endpoint.host, host, "{url}");
            assert_eq!(endpoint.port, port, "{url}");
            assert_eq!(endpoint.path_prefix, prefix, "{url}");
        }
    }

    #[test]
    fn wrong_urls_say_why() {
        for (url, reason) in [
            ("", "the scheme is missing"),
            ("10.0.0.1:6443", "the scheme is missing"),
            ("ftp://a", "the scheme must be https or http"),
            ("https://", "not a URL"),
            ("https://me:hunter2@a", "credentials do not belong in the URL"),
            ("https://a/?x=1", "a query is not supported here"),
            ("https://a:99999", ""),
        ] {
            let error = Endpoint::parse(url, "--upstream-server").unwrap_err().to_string();
            assert!(error.starts_with("--upstream-server: "), "{error}");
            assert!(error.contains(reason), "{url}: {error}");
            assert!(error.contains("https://10.0.0.1:6443"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
