//! Requests to switch to another protocol.

use http::{HeaderMap, HeaderValue, header};

/// Returns the protocol that an HTTP/1.1 request asks to switch to (RFC 9110, section 7.8).
pub fn requested_protocol(headers: &HeaderMap) -> Option<&HeaderValue> {
    let asked = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    headers.get(header::UPGRADE).filter(|protocol| asked && !protocol.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn an_upgrade_needs_both_headers() {
        let asked = |lines: &[(&'static str, &'static str)]| {
            let line = |(name, value): &(&'static str, &'static str)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_static(value))
            };
            requested_protocol(&lines.iter().map(line).collect()).is_some()
        };
        assert!(asked(&[("Connection", "keep-alive, Upgrade"), ("Upgrade", "SPDY/3.1")]));
        assert!(!asked(&[("Upgrade", "websocket")]));
        assert!(!asked(&[("Connection", "upgrade")]));
        assert!(!asked(&[("Connection", "close"), ("Upgrade", "websocket")]));
    }
}
