//! Content negotiation for a `Status`, like kube-apiserver's.

use http::{HeaderMap, header};

/// The negotiated encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Whether the client requested indented JSON with `;pretty=1`.
    pub pretty: bool,
}

/// Subtypes in which kube-apiserver encodes a `Status`, and whether it can stream them.
const SERVED: [(&str, bool); 3] =
    [("json", true), ("yaml", false), ("vnd.kubernetes.protobuf", true)];

/// Negotiates the encoding of a `Status` like kube-apiserver (goautoneg and
/// `NegotiateMediaTypeOptions`).
///
/// Returns `None` if the client accepts none of the encodings. kube-apiserver then still sends an
/// error, as indented JSON, but omits it from the audit event.
pub fn negotiate(headers: &HeaderMap) -> Option<Accepted> {
    // Only the first header line, like Go's `Header.Get`.
    let value = headers.get(header::ACCEPT).map_or(&[][..], |value| value.as_bytes());
    if value.is_empty() {
        return Some(Accepted { pretty: false });
    }
    let mut best: Option<(f32, Accepted)> = None;
    for clause in value.split(|byte| *byte == b',') {
        let Some((quality, accepted)) = parse(clause) else { continue };
        if best.is_none_or(|(known, _)| quality > known) {
            best = Some((quality, accepted));
        }
    }
    best.map(|(_, accepted)| accepted)
}

/// Parses one clause of the header. Returns its quality and encoding; `None` if kube-apiserver does
/// not support the encoding.
fn parse(clause: &[u8]) -> Option<(f32, Accepted)> {
    let clause = std::str::from_utf8(clause).ok()?;
    let mut parts = clause.split(';');
    let media_type = parts.next()?.trim_matches(' ');
    let (range, subtype) = media_type.split_once('/').unwrap_or((media_type, "*"));
    let (range, subtype) = (range.trim_matches(' '), subtype.trim_matches(' '));
    let all = range == "*" && subtype == "*";
    if !all && (range != "application" || !media_type.contains('/')) {
        return None;
    }
    let mut streamed = false;
    let mut quality = 1.0;
    let mut pretty = false;
    for part in parts {
        let Some((key, value)) = part.split_once('=') else { continue };
        let value = value.trim_matches(' ');
        if value.is_empty() || value.contains('=') {
            continue;
        }
        match key.trim_matches(' ') {
            "q" => quality = value.parse().unwrap_or(0.0),
            "as" | "g" | "v" | "sv" => return None,
            "stream" if value != "watch" => return None,
            "stream" => streamed = true,
            "pretty" => pretty = value == "1",
            _ => {}
        }
    }
    let fits = SERVED.iter().any(|(name, can_stream)| {
        (subtype == *name || subtype == "*") && (*can_stream || !streamed)
    });
    fits.then_some((quality, Accepted { pretty }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &'static str) -> Option<Accepted> {
        negotiate(&HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]))
    }

    #[test]
    fn what_kube_apiserver_can_satisfy() {
        assert!(negotiate(&HeaderMap::new()).is_some());
        for value in [
            "",
            "*/*",
            "*",
            "image/png, application/json;q=0.1",
            "application/yaml",
            "application/*",
            "application/json;stream=watch",
            "application/json; charset=utf-8",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            "application/json;profile=nopeer",
        ] {
            assert!(accepts(value).is_some(), "{value}");
        }
        for value in [
            "image/png",
            "text/html",
            "bad",
            "application",
            "application/JSON",
            "application/cbor",
            "application/yaml;stream=watch",
            "application/json;stream=foo",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
        ] {
            assert!(accepts(value).is_none(), "{value}");
        }
    }

    #[test]
    fn indented_json_is_requested_with_a_parameter() {
        assert_eq!(accepts("application/json;pretty=1"), Some(Accepted { pretty: true }));
        assert_eq!(accepts("application/json; pretty=true"), Some(Accepted { pretty: false }));
        let other = "application/json;pretty=1;q=0.5, application/json";
        assert_eq!(accepts(other), Some(Accepted { pretty: false }));
    }
}
