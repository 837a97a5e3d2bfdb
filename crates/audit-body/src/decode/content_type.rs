//! The decoder that kube-apiserver chooses for a request body by its `Content-Type`.

use http::{HeaderMap, header};

use crate::RequestBodyKind;

/// The format in which a request body is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An object in JSON, or one of the three patches in JSON.
    Json,
    /// An object or an apply patch in YAML.
    Yaml,
    /// An object in protobuf, in its `k8s\0` envelope.
    Protobuf,
    /// An object or an apply patch in CBOR (alpha, off by default).
    Cbor,
    /// kube-apiserver refuses the body with 415 (Unsupported Media Type).
    Unsupported,
}

impl Format {
    /// Returns the format of a request body with these headers.
    ///
    /// `Content-Encoding` is ignored, as in kube-apiserver, which never decompresses requests.
    /// A patch's type is compared byte for byte (`PatchResource`); other types are parsed by the
    /// rules of RFC 2045 (`NegotiateInputSerializer`). A missing or empty type is JSON.
    pub fn of_request(headers: &HeaderMap, kind: RequestBodyKind) -> Format {
        let value = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if kind == RequestBodyKind::Patch { of_patch(value) } else { of_object(value) }
    }
}

fn of_patch(value: &[u8]) -> Format {
    let end = value.iter().position(|byte| *byte == b';').filter(|end| *end > 0);
    match &value[..end.unwrap_or(value.len())] {
        b"application/json-patch+json"
        | b"application/merge-patch+json"
        | b"application/strategic-merge-patch+json" => Format::Json,
        b"application/apply-patch+yaml" => Format::Yaml,
        b"application/apply-patch+cbor" => Format::Cbor,
        _ => Format::Unsupported,
    }
}

fn of_object(value: &[u8]) -> Format {
    if value.is_empty() {
        return Format::Json;
    }
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    let (media_type, parameters) = value.split_at(end);
    if !are_parameters(parameters) {
        return Format::Unsupported;
    }
    let media_type = media_type.trim_ascii();
    let is = |known: &str| media_type.eq_ignore_ascii_case(known.as_bytes());
    if is("application/json") {
        Format::Json
    } else if is("application/yaml") {
        Format::Yaml
    } else if is("application/vnd.kubernetes.protobuf") {
        Format::Protobuf
    } else if is("application/cbor") {
        Format::Cbor
    } else {
        Format::Unsupported
    }
}

/// Returns whether Go's `mime.ParseMediaType` accepts the parameters: each `;name=value`, the value
/// a token or a quoted string, no name twice; blanks around them, and a `;` at the end.
fn are_parameters(mut rest: &[u8]) -> bool {
    let mut names: Vec<Vec<u8>> = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return true;
        }
        let Some((name, after)) = parameter(rest) else {
            // "Ignore trailing semicolons", as Go has it.
            return rest.trim_ascii() == b";";
        };
        if names.contains(&name) {
            return false;
        }
        names.push(name);
        rest = after;
    }
}

/// Takes one parameter with its `;`: its name in lower case, and what follows.
fn parameter(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let rest = text.strip_prefix(b";")?.trim_ascii_start();
    let (name, rest) = token(rest)?;
    let rest = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let rest = if rest.first() == Some(&b'"') { quoted(rest)? } else { token(rest)?.1 };
    Some((name.to_ascii_lowercase(), rest))
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(byte);
    let length = text.iter().position(|byte| !is_token(byte)).unwrap_or(text.len());
    (length > 0).then(|| text.split_at(length))
}

fn quoted(text: &[u8]) -> Option<&[u8]> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(&text[at + 1..]),
            // A backslash escapes only what is not a letter or digit, for the sake of file names.
            b'\\' if text.get(at + 1).is_some_and(|next| !is_token_byte(*next)) => at += 2,
            b'\r' | b'\n' => return None,
            _ => at += 1,
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    token(&[byte]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(value: Option<&str>, kind: RequestBodyKind) -> Format {
        let value = value.map(|value| (header::CONTENT_TYPE, value.parse().unwrap()));
        Format::of_request(&HeaderMap::from_iter(value), kind)
    }

    #[test]
    fn objects_are_negotiated() {
        for (value, expected) in [
            (None, Format::Json),
            (Some(""), Format::Json),
            (Some("APPLICATION/JSON"), Format::Json),
            (Some(" application/yaml "), Format::Yaml),
            (Some("application/yaml;charset=utf-16"), Format::Yaml),
            (Some("application/json; q=1 ; b=\"x;\\\"y\" ;"), Format::Json),
            (Some("application/vnd.kubernetes.protobuf; q=1"), Format::Protobuf),
            (Some("application/cbor"), Format::Cbor),
            (Some("*/*"), Format::Unsupported),
            (Some("text/yaml"), Format::Unsupported),
            (Some("application/json;q"), Format::Unsupported),
            (Some("application/json;q=1;q=2"), Format::Unsupported),
            (Some("application/json, application/yaml"), Format::Unsupported),
            (Some("application/merge-patch+json"), Format::Unsupported),
        ] {
            assert_eq!(format(value, RequestBodyKind::Object), expected, "{value:?}");
            assert_eq!(format(value, RequestBodyKind::DeleteOptions), expected, "{value:?}");
        }
    }

    #[test]
    fn patches_are_compared_byte_for_byte() {
        for (value, expected) in [
            (Some("application/merge-patch+json;charset=utf-8"), Format::Json),
            (Some("application/json-patch+json"), Format::Json),
            (Some("application/strategic-merge-patch+json"), Format::Json),
            (Some("application/apply-patch+yaml"), Format::Yaml),
            (Some("application/apply-patch+cbor"), Format::Cbor),
            (Some("Application/merge-patch+json"), Format::Unsupported),
            (Some("application/merge-patch+json ;q=1"), Format::Unsupported),
            (Some("application/json"), Format::Unsupported),
            (None, Format::Unsupported),
        ] {
            assert_eq!(format(value, RequestBodyKind::Patch), expected, "{value:?}");
        }
    }
}
