//! Bearer tokens in the sub-protocols of a WebSocket handshake. Browsers use them because they
//! cannot set the `Authorization` header (kube-apiserver's `websocket` authenticator).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use zeroize::Zeroizing;

use k8s_audit::request::requested_protocol;

const PREFIX: &[u8] = b"base64url.bearer.authorization.k8s.io.";

/// Why a sub-protocol with a token is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The token is not base64url without padding, or not UTF-8.
    #[error("the token in Sec-WebSocket-Protocol cannot be decoded")]
    Encoding,
    /// There are two tokens.
    #[error("multiple base64.bearer.authorization tokens specified")]
    Multiple,
    /// There is no other sub-protocol for the server to select.
    #[error("missing additional subprotocol")]
    Alone,
}

/// Returns the token among the sub-protocols of a WebSocket handshake, if there is one.
///
/// # Errors
/// See [`ProtocolError`].
pub fn token(headers: &HeaderMap) -> Result<Option<Zeroizing<Vec<u8>>>, ProtocolError> {
    let is_websocket = requested_protocol(headers)
        .is_some_and(|p| p.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !is_websocket {
        return Ok(None);
    }
    let mut token = None;
    let mut others = false;
    for protocol in protocols(headers) {
        let Some(encoded) = protocol.strip_prefix(PREFIX) else {
            others = true;
            continue;
        };
        let decoded = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| ProtocolError::Encoding)?;
        let decoded = Zeroizing::new(decoded);
        std::str::from_utf8(&decoded).map_err(|_| ProtocolError::Encoding)?;
        if token.replace(decoded).is_some() {
            return Err(ProtocolError::Multiple);
        }
    }
    match token {
        Some(token) if token.is_empty() => Ok(None),
        Some(_) if !others => Err(ProtocolError::Alone),
        token => Ok(token),
    }
}

/// Removes tokens from the sub-protocols, so that they are not forwarded.
pub fn remove_token(headers: &mut HeaderMap) {
    if !protocols(headers).any(|protocol| protocol.starts_with(PREFIX)) {
        return;
    }
    let rest: Vec<&[u8]> =
        protocols(headers).filter(|protocol| !protocol.starts_with(PREFIX)).collect();
    let rest = HeaderValue::from_bytes(&rest.join(&b","[..])).expect("parts of header values");
    if rest.is_empty() {
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    } else {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest);
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        headers.insert(header::UPGRADE, "WebSocket".parse().unwrap());
        for line in lines {
            let line = line.replace("P+", std::str::from_utf8(PREFIX).unwrap());
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn tokens_are_parsed_and_removed() {
        type Expected = Result<Option<&'static str>, ProtocolError>;
        let cases: &[(&[&str], Expected, &str)] = &[
            (&["dummy"], Ok(None), "dummy"),
            (&["P+dG9rZW4"], Err(ProtocolError::Alone), ""),
            (&["P+dG9rZW4, dummy"], Ok(Some("token")), "dummy"),
            (&["a, P+dG9rZW4, b"], Ok(Some("token")), "a,b"),
            (&["P+dG9rZW4", "dummy"], Ok(Some("token")), "dummy"),
            (&["P+dG9rZW4, P+dG9rZW4, dummy"], Err(ProtocolError::Multiple), "dummy"),
            (&["P+, dummy"], Ok(None), "dummy"),
            (&["P+dG9rZW4=, dummy"], Err(ProtocolError::Encoding), "dummy"),
            (&["P+__4, dummy"], Err(ProtocolError::Encoding), "dummy"),
        ];
        for (lines, expected, rest) in cases {
            let mut headers = handshake(lines);
            let found = token(&headers);
            assert_eq!(
                found,
                expected.map(|t| t.map(|t| t.as_bytes().to_vec().into())),
                "{lines:?}"
            );
            remove_token(&mut headers);
            let left = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
            assert_eq!(left.map_or("", |v| v.to_str().unwrap()), *rest, "{lines:?}");
        }
        let mut plain = handshake(&["P+dG9rZW4, dummy"]);
        plain.remove(header::UPGRADE);
        assert_eq!(token(&plain), Ok(None), "no upgrade");
    }
}
