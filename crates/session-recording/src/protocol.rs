//! The protocol that a client and the API server have negotiated, and whether it is supported.

use http::HeaderMap;
use http::header::{HeaderName, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// The header with which SPDY clients and servers negotiate a subprotocol.
pub const SPDY_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The activity of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// `exec`
    Exec,
    /// `attach`
    Attach,
    /// `port-forward`
    PortForward,
}

impl Activity {
    /// Returns the activity of a subresource of pods, if it is one.
    pub fn of_subresource(name: &[u8]) -> Option<Activity> {
        match name {
            b"exec" => Some(Activity::Exec),
            b"attach" => Some(Activity::Attach),
            b"portforward" => Some(Activity::PortForward),
            _ => None,
        }
    }

    /// Returns the name of the subresource.
    pub fn as_str(self) -> &'static str {
        match self {
            Activity::Exec => "exec",
            Activity::Attach => "attach",
            Activity::PortForward => "portforward",
        }
    }

    fn is_command(self) -> bool {
        self != Activity::PortForward
    }
}

/// The encoding of payloads in channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Unencoded.
    Raw,
    /// base64
    Base64,
}

/// permessage-deflate, as negotiated for one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// Whether each message is compressed by itself (`*_no_context_takeover`).
    pub resets_context: bool,
}

/// A supported protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Channels in WebSocket messages.
    Channels {
        /// The encoding of payloads.
        codec: Codec,
        /// Compression of what the client and the server send.
        deflate: Option<(Deflate, Deflate)>,
    },
    /// SPDY/3.1 streams.
    Spdy,
    /// SPDY/3.1 in WebSocket messages, for port-forward.
    SpdyInWebSocket {
        /// Compression of what the client and the server send.
        deflate: Option<(Deflate, Deflate)>,
    },
}

/// A protocol that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// None of the subprotocols is supported.
    #[error("sessions with the subprotocol {0:?} cannot be recorded")]
    Subprotocol(String),
    /// A WebSocket extension.
    #[error("sessions with the WebSocket extension {0:?} cannot be recorded")]
    Extension(String),
    /// A protocol other than WebSocket and SPDY.
    #[error("sessions over {0:?} cannot be recorded")]
    Upgrade(String),
}

/// Checks that at least one of the subprotocols that a client offers is supported.
///
/// # Errors
/// If none is supported.
pub fn check_offer(activity: Activity, request: &HeaderMap) -> Result<(), Unsupported> {
    let (offered, is_spdy) = match upgrade(request)? {
        Upgrade::Spdy => (list(request, &SPDY_PROTOCOL), true),
        Upgrade::WebSocket => (list(request, &SEC_WEBSOCKET_PROTOCOL), false),
    };
    let is_known = |name: &String| subprotocol(activity, is_spdy, name).is_some();
    match offered.is_empty() || offered.iter().any(is_known) {
        true => Ok(()),
        false => Err(Unsupported::Subprotocol(offered.join(", "))),
    }
}

/// Returns the protocol that the API server has selected in `response`.
///
/// # Errors
/// If it is not supported.
pub fn negotiated(
    activity: Activity,
    request: &HeaderMap,
    response: &HeaderMap,
) -> Result<Protocol, Unsupported> {
    let chosen = if response.contains_key(UPGRADE) { response } else { request };
    match upgrade(chosen)? {
        Upgrade::Spdy => {
            let name = list(response, &SPDY_PROTOCOL).join(", ");
            let protocol = subprotocol(activity, true, &name);
            protocol.map(|_| Protocol::Spdy).ok_or(Unsupported::Subprotocol(name))
        }
        Upgrade::WebSocket => {
            let name = list(response, &SEC_WEBSOCKET_PROTOCOL).join(", ");
            let deflate = extensions(&list(response, &SEC_WEBSOCKET_EXTENSIONS))?;
            match subprotocol(activity, false, &name) {
                Some(Subprotocol::Channels(codec)) => Ok(Protocol::Channels { codec, deflate }),
                Some(Subprotocol::Spdy) => Ok(Protocol::SpdyInWebSocket { deflate }),
                None => Err(Unsupported::Subprotocol(name)),
            }
        }
    }
}

enum Upgrade {
    WebSocket,
    Spdy,
}

fn upgrade(headers: &HeaderMap) -> Result<Upgrade, Unsupported> {
    let value = headers.get(UPGRADE).map_or(&b""[..], |value| value.as_bytes()).trim_ascii();
    if value.eq_ignore_ascii_case(b"websocket") {
        Ok(Upgrade::WebSocket)
    } else if value.eq_ignore_ascii_case(b"SPDY/3.1") {
        Ok(Upgrade::Spdy)
    } else {
        Err(Unsupported::Upgrade(String::from_utf8_lossy(value).into_owned()))
    }
}

/// Returns the elements of all lines of a header.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let elements: Vec<String> = lines
        .flat_map(|line| line.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect();
    elements
}

enum Subprotocol {
    Channels(Codec),
    Spdy,
}

/// Returns the meaning of a subprotocol; without a name, it is the oldest one.
fn subprotocol(activity: Activity, is_spdy: bool, name: &str) -> Option<Subprotocol> {
    let is_channel = matches!(
        name,
        "" | "channel.k8s.io"
            | "v2.channel.k8s.io"
            | "v3.channel.k8s.io"
            | "v4.channel.k8s.io"
            | "v5.channel.k8s.io"
    );
    if is_spdy {
        let is_forwarding = matches!(name, "" | "portforward.k8s.io");
        let is_known = if activity.is_command() { is_channel } else { is_forwarding };
        return is_known.then_some(Subprotocol::Spdy);
    }
    match name {
        _ if is_channel => Some(Subprotocol::Channels(Codec::Raw)),
        "base64.channel.k8s.io" | "v4.base64.channel.k8s.io" | "v5.base64.channel.k8s.io" => {
            Some(Subprotocol::Channels(Codec::Base64))
        }
        "SPDY/3.1+portforward.k8s.io" if !activity.is_command() => Some(Subprotocol::Spdy),
        _ => None,
    }
}

fn extensions(names: &[String]) -> Result<Option<(Deflate, Deflate)>, Unsupported> {
    let (mut client, mut server) =
        (Deflate { resets_context: false }, Deflate { resets_context: false });
    match names {
        [] => Ok(None),
        [one] => {
            let mut parts = one.split(';').map(str::trim);
            if parts.next() != Some("permessage-deflate") {
                return Err(Unsupported::Extension(one.clone()));
            }
            for part in parts {
                match part.split('=').next().unwrap_or_default().trim() {
                    "client_no_context_takeover" => client.resets_context = true,
                    "server_no_context_takeover" => server.resets_context = true,
                    // A smaller window needs no special handling.
                    "client_max_window_bits" | "server_max_window_bits" => {}
                    _ => return Err(Unsupported::Extension(one.clone())),
                }
            }
            Ok(Some((client, server)))
        }
        several => Err(Unsupported::Extension(several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        lines.iter().map(line).collect()
    }

    fn chosen(activity: Activity, lines: &[(&'static str, &str)]) -> Result<Protocol, Unsupported> {
        negotiated(activity, &HeaderMap::new(), &headers(lines))
    }

    #[test]
    fn protocols_of_kubernetes_are_known() {
        let websocket = ("upgrade", "websocket");
        let raw = Protocol::Channels { codec: Codec::Raw, deflate: None };
        let base64 = Protocol::Channels { codec: Codec::Base64, deflate: None };
        for (name, expected) in [
            ("channel.k8s.io", raw),
            ("v4.channel.k8s.io", raw),
            ("v5.channel.k8s.io", raw),
            ("base64.channel.k8s.io", base64),
            ("v4.base64.channel.k8s.io", base64),
        ] {
            let lines = [websocket, ("sec-websocket-protocol", name)];
            assert_eq!(chosen(Activity::Exec, &lines), Ok(expected), "{name}");
        }
        assert_eq!(chosen(Activity::Attach, &[websocket]), Ok(raw));
        let spdy = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
        assert_eq!(chosen(Activity::Exec, &spdy), Ok(Protocol::Spdy));
        let tunnel = [websocket, ("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io")];
        let expected = Protocol::SpdyInWebSocket { deflate: None };
        assert_eq!(chosen(Activity::PortForward, &tunnel), Ok(expected));
        assert!(chosen(Activity::Exec, &tunnel).is_err());
    }

    #[test]
    fn only_permessage_deflate_can_be_read() {
        let with = |extensions| {
            let lines = [("upgrade", "websocket"), ("sec-websocket-extensions", extensions)];
            chosen(Activity::Exec, &lines)
        };
        let deflate =
            with("permessage-deflate; client_no_context_takeover; server_max_window_bits=9");
        let (client, server) =
            (Deflate { resets_context: true }, Deflate { resets_context: false });
        let expected = Protocol::Channels { codec: Codec::Raw, deflate: Some((client, server)) };
        assert_eq!(deflate, Ok(expected));
        for unknown in
            ["x-webkit-deflate-frame", "permessage-deflate; other", "permessage-deflate, mux"]
        {
            assert!(matches!(with(unknown), Err(Unsupported::Extension(_))), "{unknown}");
        }
    }

    #[test]
    fn an_offer_needs_one_readable_subprotocol() {
        let offer = |names| {
            let lines = [("upgrade", "websocket"), ("sec-websocket-protocol", names)];
            check_offer(Activity::Exec, &headers(&lines))
        };
        assert!(offer("mqtt, v5.channel.k8s.io").is_ok());
        assert_eq!(offer("mqtt"), Err(Unsupported::Subprotocol("mqtt".to_owned())));
    }
}
