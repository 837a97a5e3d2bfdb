//! Headers that clients may send, and headers that are not forwarded.

use http::header::{self, HeaderMap, HeaderName};

use k8s_audit::request::query::{self, Plus};
use k8s_audit::status::Status;

/// `Audit-ID`
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Prefix of the headers with which a front proxy passes the user to the API server.
pub const REMOTE_PREFIX: &str = "x-remote-";
/// Prefix of the impersonation headers.
pub const IMPERSONATE_PREFIX: &str = "impersonate-";
/// `Impersonate-User`
pub const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");
/// `Impersonate-Uid`
pub const IMPERSONATE_UID: HeaderName = HeaderName::from_static("impersonate-uid");
/// `Impersonate-Group`
pub const IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");
/// Prefix of `Impersonate-Extra-KEY`.
pub const IMPERSONATE_EXTRA_PREFIX: &str = "impersonate-extra-";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Which special headers a request has, found in one pass over the names. Most requests have none,
/// which saves later lookups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderFlags {
    /// `Impersonate-*`
    pub impersonation: bool,
    /// `Sec-WebSocket-Protocol`
    pub websocket_protocol: bool,
    /// Any header that concerns only the client's connection.
    connection: bool,
    /// `X-Remote-*`
    remote: bool,
}

/// Finds special headers. Rejects headers that a server behind the proxy could treat as identity
/// headers.
///
/// An example is `X_Remote_User`: a server that maps `_` to `-` would trust it. Percent-encoded
/// spellings are rejected too, as are `Impersonate-*` headers that Kubernetes does not define.
fn inspect(headers: &HeaderMap) -> Result<HeaderFlags, Box<Status>> {
    let mut flags = HeaderFlags::default();
    for name in headers.keys() {
        let name = name.as_str();
        match name {
            "connection"
            | "expect"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade" => flags.connection = true,
            "sec-websocket-protocol" => flags.websocket_protocol = true,
            _ if name.starts_with(REMOTE_PREFIX) => flags.remote = true,
            _ if name.starts_with(IMPERSONATE_PREFIX) => {
                flags.impersonation = true;
                let known =
                    matches!(name, "impersonate-user" | "impersonate-uid" | "impersonate-group")
                        || name.starts_with(IMPERSONATE_EXTRA_PREFIX);
                if !known {
                    let message = format!("unknown impersonation header {name:?}");
                    return Err(Box::new(Status::bad_request(message)));
                }
            }
            _ if is_lookalike(name) => {
                let message =
                    format!("header {name:?} is rejected because it looks like an identity header");
                return Err(Box::new(Status::bad_request(message)));
            }
            _ => {}
        }
    }
    Ok(flags)
}

fn is_lookalike(name: &str) -> bool {
    // Nearly all names contain neither character.
    if !name.bytes().any(|b| b == b'_' || b == b'%') {
        return false;
    }
    let decoded = query::decode(name, Plus::IsPlus).unwrap_or(name.as_bytes().into());
    let plain = String::from_utf8_lossy(&decoded).replace('_', "-").to_ascii_lowercase();
    plain.starts_with(REMOTE_PREFIX)
        || plain.starts_with(IMPERSONATE_PREFIX)
        || plain == "authorization"
}

/// Removes headers that concern only the client's connection, and all `X-Remote-*` headers.
///
/// This follows RFC 9110 section 7.6.1, with one exception: `Connection` cannot remove headers with
/// the user's identity or with the content of the request. `Expect` is removed because this proxy
/// responds to it.
///
/// # Errors
/// Returns the 400 to respond with if a header could be treated as an identity header.
pub fn strip(headers: &mut HeaderMap) -> Result<HeaderFlags, Box<Status>> {
    let flags = inspect(headers)?;
    if flags.connection {
        remove_connection_headers(headers, is_protected);
        headers.remove(header::EXPECT);
        // Trailers of requests are not forwarded.
        headers.remove(header::TRAILER);
    }
    if flags.remote {
        remove_prefixed(headers, REMOTE_PREFIX);
    }
    Ok(flags)
}

/// Removes all headers whose names begin with `prefix`.
pub fn remove_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Removes headers from a response that concern only the connection to the API server.
pub fn strip_response(headers: &mut HeaderMap) {
    remove_connection_headers(headers, |_| false);
}

fn remove_connection_headers(headers: &mut HeaderMap, protected: fn(&str) -> bool) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !protected(name.as_str()))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
}

/// Whether `Connection` must not remove this header.
fn is_protected(name: &str) -> bool {
    name.starts_with(REMOTE_PREFIX)
        || name.starts_with(IMPERSONATE_PREFIX)
        || name.starts_with("x-forwarded-")
        || name.starts_with("content-")
        || name.starts_with("sec-websocket-")
        || matches!(
            name,
            "authorization" | "audit-id" | "host" | "accept" | "user-agent" | "x-real-ip"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn stripped(lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = headers(lines);
        strip(&mut headers).unwrap();
        headers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn lookalikes_are_refused() {
        for name in [
            "X_Remote_User",
            "x-remote_user",
            "X%2DRemote-User",
            "x%5fremote%5fgroup",
            "Impersonate_User",
            "impersonate%2duser",
            "Impersonate-Foo",
            "impersonate-",
            "Impersonate-User-",
            "IMPERSONATE_EXTRA_x",
            "Impersonate-Groups",
        ] {
            let status = strip(&mut headers(&[(name, "admin")])).unwrap_err();
            assert_eq!(status.code, 400, "{name}");
        }
        for name in [
            "X-Remote-User",
            "Impersonate-User",
            "Impersonate-Extra-Acme.com%2fProject",
            "Impersonate-Extra-a_b",
            "X-Custom_Header",
            "x%zz",
            "X-Remote-Extra-a%2fb",
        ] {
            assert!(strip(&mut headers(&[(name, "v")])).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_concerns_the_connection_is_removed() {
        let rest = stripped(&[
            ("Connection", "close, X-Mine"),
            ("X-Mine", "1"),
            ("Keep-Alive", "5"),
            ("TE", "gzip"),
            ("Proxy-Authorization", "x"),
            ("Upgrade", "h2c"),
            ("Transfer-Encoding", "chunked"),
            ("Trailer", "X-Remote-User"),
            ("Expect", "100-continue"),
            ("Proxy-Connection", "close"),
            ("X-Kept", "1"),
            ("X-Remote-User", "admin"),
            ("x-remote-extra-a", "b"),
            ("X-REMOTE-ANY", "c"),
        ]);
        assert_eq!(rest, ["x-kept"]);
    }

    #[test]
    fn each_of_them_is_removed_where_it_is_alone() {
        for name in [
            "Connection",
            "Keep-Alive",
            "TE",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Upgrade",
            "Transfer-Encoding",
            "Trailer",
            "Expect",
            "Proxy-Connection",
            "X-Remote-Any",
        ] {
            assert_eq!(stripped(&[(name, "x"), ("X-Kept", "1")]), ["x-kept"], "{name}");
        }
    }

    #[test]
    fn connection_cannot_name_identity_away() {
        let mut rest = stripped(&[
            ("Connection", "Impersonate-User, Audit-ID"),
            ("Connection", "authorization , ,"),
            ("Impersonate-User", "a"),
            ("Audit-ID", "b"),
            ("Authorization", "c"),
        ]);
        rest.sort();
        assert_eq!(rest, ["audit-id", "authorization", "impersonate-user"]);
    }
}
