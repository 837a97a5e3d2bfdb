//! The bearer token in an `Authorization` header.

use http::{HeaderMap, header};

/// Returns the token of the first `Authorization` header, if its scheme is `Bearer` in any case
/// (kube-apiserver's `bearertoken` authenticator).
pub(crate) fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes().trim_ascii();
    let mut parts = value.splitn(3, |b| *b == b' ');
    let scheme = parts.next()?;
    let token = parts.next()?;
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_kube_apiserver_finds_them() {
        let cases: [(&str, Option<&str>); 11] = [
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer  abc", None),
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER abc", Some("abc")),
            (" Bearer abc ", Some("abc")),
            ("Bearer abc extra", Some("abc")),
            ("Bearer%20abc", None),
            ("Bearerabc", None),
            ("Basic abc", None),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
            headers.append(header::AUTHORIZATION, "Bearer second".parse().unwrap());
            assert_eq!(token(&headers), expected.map(str::as_bytes), "{value:?}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }
}
