//! What a client accepts as an answer.

use http::{HeaderMap, header};

/// Whether kube-apiserver could answer in an encoding that the client accepts.
pub fn accepts_any_encoding(headers: &HeaderMap) -> bool {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(|range| range.trim_ascii())
        .filter(|range| !range.is_empty())
        .peekable();
    ranges.peek().is_none()
        || ranges.any(|range| {
            let mut parts = range.split(|b| *b == b';').map(|part| part.trim_ascii());
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let served = [
                &b"*/*"[..],
                b"application/*",
                b"application/json",
                b"application/yaml",
                b"application/vnd.kubernetes.protobuf",
            ];
            served.contains(&&media_type[..]) && !parts.any(|part| part.starts_with(b"as="))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kube_apiserver_can_satisfy() {
        let accepts = |value: &'static str| {
            accepts_any_encoding(&HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]))
        };
        assert!(accepts_any_encoding(&HeaderMap::new()));
        for value in
            ["", "*/*", "image/png, application/JSON;q=0.1", "application/yaml", "application/*"]
        {
            assert!(accepts(value), "{value}");
        }
        for value in ["image/png", "text/html", "application/json;as=Table;v=v1;g=meta.k8s.io"] {
            assert!(!accepts(value), "{value}");
        }
    }
}
